"""What every augmentor is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hard_ray.config.augmentor import DrawnAugmentor, LearnedAugmentor

Gradient = Callable[[Tensor, Tensor], Tensor]
"""From images and labels to the gradient of the teacher's cross-entropy to the images, of their shape."""


@dataclass(frozen=True, slots=True)
class AugmentationInput:
    """A batch in [0, 1] and the noise that belongs to its rows, with what only some augmentors want."""

    images: Float[Tensor, "batch channels height width"]
    noise: Float[Tensor, "batch noise"]
    labels: Int[Tensor, " batch"] | None = None
    generated: Float[Tensor, "batch channels height width"] | None = None
    """The images that were generated beforehand, in the same view."""
    gradient: Gradient | None = None
    """Asks the teacher."""

    def with_noise(self, noise: Tensor) -> AugmentationInput:
        """The same batch with other noise."""
        return replace(self, noise=noise)


@dataclass(frozen=True, slots=True)
class AugmentedView:
    """A second view of a batch, and whose answers it should keep."""

    images: Float[Tensor, "views channels height width"]
    """As many as in the batch, or several times as many: candidates, or views that are all learned from."""
    sources: Float[Tensor, "views batch"] | None = None
    """Row i: the share of each image of the batch in augmented image i, adding up to 1; None: its own alone."""


class Selection(Protocol):
    """Scores candidates: those with the largest scores are learned from."""

    @property
    def needs_teacher(self) -> bool: ...  # noqa: D102
    @property
    def needs_student(self) -> bool: ...  # noqa: D102

    def __call__(self, teacher: Tensor | None, student: Tensor | None) -> Float[Tensor, " candidates"]:
        """One value per candidate, from the logits of the networks that are needed."""
        ...


class Augmentor(nn.Module):
    """Maps images in [0, 1] and noise to a second, harder view of them.

    Everything random comes in as noise, so that a view is a function of the images, the noise and the
    parameters. At strength 0 the input tensor itself comes back.
    """

    noise_dim: int = 0
    """Normal noise values per image."""
    selection: Selection | None = None
    """How the images that are learned from are chosen from those made; None: all are."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the augmentor's optimiser trains, with each group's own settings; empty: nothing is learned."""
        return []

    def forward(self, batch: AugmentationInput) -> Float[Tensor, "batch channels height width"]:
        """The augmented images that the student learns from, of the same shape and range."""
        raise NotImplementedError

    def view(self, batch: AugmentationInput) -> AugmentedView:
        """The same images with their sources."""
        return AugmentedView(self(batch))

    def augment(self, batch: AugmentationInput) -> AugmentedView:
        """The images with their sources as the augmentor's own phase needs them: by its present state."""
        return self.view(batch)

    def remember(self) -> None:
        """Called after each update of the augmentor."""
        return

    def samples(self, batch: AugmentationInput) -> dict[str, Float[Tensor, " batch"]]:
        """What is drawn for each image, one value each, by name: a shift, the share of the own image, ..."""
        del batch
        return {}

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """The range of each name in `samples`."""
        return {}

    @torch.no_grad()
    def statistics(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """Mean and standard deviation of every sampled value over the batch, by the names they are logged under."""
        found: dict[str, Tensor] = {}
        for name, values in self.samples(batch).items():
            found |= {f"{name}_mean": values.mean(), f"{name}_std": values.std(correction=0)}
        return found


class Holding(Augmentor):
    """Holds frozen modules outside of its own weights, so that checkpoints need not repeat them."""

    def __init__(self, *held: nn.Module) -> None:
        """`held` move along to another device or precision."""
        super().__init__()
        self.held = held

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for module in self.held:
            module._apply(fn)
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved


def trained_group(config: LearnedAugmentor, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """One group with the configuration's settings; none where strength 0 leaves the parameters without effect."""
    if config.strength == 0:
        return []
    return [{"params": list(parameters), "lr": config.lr, "weight_decay": config.weight_decay}]


class Drawn(Augmentor):
    """Draws at random, once for the batch or once for each image, and learns nothing."""

    config: DrawnAugmentor

    def __init__(self, config: DrawnAugmentor) -> None:
        """Nothing here is trained."""
        super().__init__()
        self.config = config

    def draws(self, noise: Float[Tensor, "batch noise"]) -> Float[Tensor, "batch noise"]:
        """Uniform numbers between 0 and 1; with one draw for the batch, those of its first image in every row."""
        chosen = noise[:1].expand_as(noise) if self.config.per == "batch" else noise
        uniform: Tensor = torch.special.ndtr(chosen)
        return uniform


class Mixing(Drawn):
    """Puts a share of another image of the batch into each."""

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The mixed images; at strength 0 the input tensor itself."""
        return self.view(batch).images

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """At strength s at most s of an image is its partner's."""
        return {"own_share": (1.0 - self.config.strength, 1.0)}
