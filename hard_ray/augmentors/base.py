"""The interface of augmentors, and the classes that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hard_ray.augmentors.labels import Labels
from hard_ray.config.augmentor import DrawnAugmentor, LearnedAugmentor
from hard_ray.maths import losses

Gradient = Callable[[Tensor, Labels], Tensor]
"""Returns, for images and labels, the gradient of the teacher's cross-entropy with respect to the images."""

Answer = Callable[[Tensor], Tensor]
"""Returns, for images, the teacher's logits."""


@dataclass(frozen=True, slots=True)
class AugmentationInput:
    """A batch of images in [0, 1] and noise for each, with inputs that only some augmentors use."""

    images: Float[Tensor, "batch channels height width"]
    noise: Float[Tensor, "batch noise"]
    labels: Labels | None = None
    generated: Float[Tensor, "batch channels height width"] | None = None
    """The generated image of each image, in the same crop and flip."""
    gradient: Gradient | None = None
    """Computed by the teacher."""
    answer: Answer | None = None
    """The teacher, for images that have no label; None: all have one."""

    def with_noise(self, noise: Tensor) -> AugmentationInput:
        """The same batch with other noise."""
        return replace(self, noise=noise)

    def first(self, count: int) -> AugmentationInput:
        """The first `count` images, with what belongs to them; the batch itself if it has no more."""
        if count >= len(self.images):
            return self
        labels, generated = self.labels, self.generated
        return replace(
            self,
            images=self.images[:count],
            noise=self.noise[:count],
            labels=None if labels is None else labels[:count],
            generated=None if generated is None else generated[:count],
        )


@dataclass(frozen=True, slots=True)
class AugmentedView:
    """A second view of a batch, and the images that each of its images is made of."""

    images: Float[Tensor, "views channels height width"]
    """As many as in the batch, or a multiple: candidates to select from, or views that are all learned from."""
    sources: Float[Tensor, "views batch"] | None = None
    """Row i: the share of each image of the batch in augmented image i, summing to 1; None: image i alone."""
    prior: Tensor | None = None
    """The prior's term of the augmentor's loss, one value: lambda_p KL(draws || prior); None: there is none."""


class Selection(Protocol):
    """Scores candidates; the student learns from those with the largest scores."""

    @property
    def needs_teacher(self) -> bool: ...  # noqa: D102
    @property
    def needs_student(self) -> bool: ...  # noqa: D102

    def __call__(self, teacher: Tensor | None, student: Tensor | None) -> Float[Tensor, " candidates"]:
        """One value per candidate, from the logits of the networks that are needed."""


class Augmentor(nn.Module):
    """Maps images in [0, 1] and noise to a second, harder view of them.

    All randomness comes in as noise, so that a view is a function of the images, the noise and the parameters. At
    strength 0 the view is the input tensor itself.
    """

    noise_dim: int = 0
    """Standard normal noise values per image."""
    selection: Selection | None = None
    """Selects the images that are learned from; None: all are."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the augmentor's optimiser, each with its settings; empty if nothing is learned."""
        return []

    def forward(self, batch: AugmentationInput) -> Float[Tensor, "batch channels height width"]:
        """The augmented images that the student learns from, of the same shape and range."""
        raise NotImplementedError

    def view(self, batch: AugmentationInput) -> AugmentedView:
        """The augmented images with their sources, for the student's phase."""
        return AugmentedView(self(batch))

    def augment(self, batch: AugmentationInput) -> AugmentedView:
        """The augmented images with their sources, by the augmentor's present state, for its own phase."""
        return self.view(batch)

    def remember(self) -> None:
        """Called after each update of the augmentor."""
        return

    def samples(self, batch: AugmentationInput) -> dict[str, Float[Tensor, " batch"]]:
        """The values drawn for each image, by name: a shift, the share of the image's own pixels, ..."""
        del batch
        return {}

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """The range of each name in `samples`."""
        return {}

    @torch.no_grad()
    def statistics(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """Mean and standard deviation over the batch of every sampled value, by the names in the log."""
        found: dict[str, Tensor] = {}
        for name, values in self.samples(batch).items():
            found |= {f"{name}_mean": values.mean(), f"{name}_std": values.std(correction=0)}
        return found


class Holding(Augmentor):
    """Holds frozen modules outside its own weights, so that checkpoints do not repeat them."""

    def __init__(self, *held: nn.Module) -> None:
        """`held` move with the augmentor to another device or precision."""
        super().__init__()
        self.held = held

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for module in self.held:
            module._apply(fn)
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved


def trained_group(config: LearnedAugmentor, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """One parameter group with the configuration's settings; none at strength 0, where parameters have no effect."""
    if config.strength == 0:
        return []
    return [{"params": list(parameters), "lr": config.lr, "weight_decay": config.weight_decay}]


def prior_loss(config: LearnedAugmentor, values: Float[Tensor, "rows values"]) -> Tensor | None:
    """lambda_p times the divergence of values from N(0, 1), by each one's mean and variance; None without a prior."""
    if config.lambda_p == 0:
        return None
    return config.lambda_p * losses.normal_divergence(values.mean(dim=0), values.var(dim=0, correction=0)).sum()


class Drawn(Augmentor):
    """Base of random augmentors that learn nothing and draw once per batch or once per image."""

    config: DrawnAugmentor

    def __init__(self, config: DrawnAugmentor) -> None:
        super().__init__()
        self.config = config

    def draws(self, noise: Float[Tensor, "batch noise"]) -> Float[Tensor, "batch noise"]:
        """Uniform numbers in (0, 1) from the noise; with one draw per batch, every row is that of the first image."""
        chosen = noise[:1].expand_as(noise) if self.config.per == "batch" else noise
        uniform: Tensor = torch.special.ndtr(chosen)
        return uniform


class Mixing(Drawn):
    """Base of random augmentors that put a share of another image of the batch into each image."""

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The mixed images; at strength 0 the input tensor itself."""
        return self.view(batch).images

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """At strength s, at most the share s of an image is its partner's."""
        return {"own_share": (1.0 - self.config.strength, 1.0)}
