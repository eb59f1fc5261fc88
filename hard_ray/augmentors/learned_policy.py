"""HARD-Policy: learned probabilities and magnitudes of many operations, and their prior as a control."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hard_ray.augmentors.affine import PARAMETERS, transform
from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Augmentor, trained_group
from hard_ray.augmentors.operations import (
    PATTERN_DRAWS,
    Fields,
    Operation,
    Patterns,
    operations_of,
    straight_through,
)
from hard_ray.augmentors.replay import REPLAY_DRAWS, Replaying
from hard_ray.config.augmentor import LearnedPolicyAugmentor, PolicyOperations
from hard_ray.maths import losses

MOST_LIKELY = 0.9
"""Largest probability of an operation by the prior, which must be able to leave it out."""
SMALLEST = 1e-6
"""Smallest probability in the prior's term."""
LOOK = 32
"""Largest side of the images that the policy looks at."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What is drawn for each image: normal values that become magnitudes, and whether each operation is applied."""

    mean: Float[Tensor, "batch operations"]
    log_deviation: Float[Tensor, "batch operations"]
    logit: Float[Tensor, "batch operations"]
    """Of the probability that the operation is applied."""

    def where(self, chosen: Tensor, other: Distribution) -> Distribution:
        """The rows of the other distribution where they are chosen, and of this one elsewhere."""
        pairs = zip(other.parts(), self.parts(), strict=True)
        return Distribution(*(torch.where(chosen[:, None], theirs, own) for theirs, own in pairs))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three tensors, in order."""
        return self.mean, self.log_deviation, self.logit


class RandomPolicy(Augmentor):
    r"""Applies operations with the probability p0 = operations / count each, at magnitudes uniform within the bounds.

    .. math:: z_{ik} \sim N(0, 1),\quad g_{ik} \sim \mathrm{Ber}(p_0),\quad
        \tilde x_i = o_K(\ldots o_1(x_i;\, g_{i1}, s\, b_1(\Phi(z_{i1})))\ldots)

    Phi is the normal distribution function, and b_k maps (0, 1) to the bounds of operation k; an operation whose
    choice g is 0 leaves the image as it is. Shift, rotation, scale and shear are one resampling.
    """

    reach: Tensor
    """Lower bound of each operation and the distance to the upper one, shape (operations, 2)."""

    def __init__(self, config: PolicyOperations, *, in_chans: int, img_size: int) -> None:
        super().__init__()
        self.config = config
        self.operations = operations_of(config, in_chans=in_chans, img_size=img_size)
        self.fields = Fields(in_chans, img_size)
        reach = [(operation.low, operation.high - operation.low) for operation in self.operations]
        self.register_buffer("reach", torch.tensor(reach).reshape(-1, 2), persistent=False)
        self.noise_dim = 2 * len(self.operations) + PATTERN_DRAWS
        self.share = min(config.operations / max(len(self.operations), 1), MOST_LIKELY)
        self.prior_logit = math.log(self.share / (1.0 - self.share))

    @property
    def _gate_temperature(self) -> float:
        return 1.0

    def distribution(self, batch: AugmentationInput) -> Distribution:
        """What the student's images are drawn from."""
        return self._prior(batch.noise)

    def _prior(self, noise: Tensor) -> Distribution:
        zeros = noise.new_zeros(len(noise), len(self.operations))
        return Distribution(zeros, zeros, zeros + self.prior_logit)

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The images that the student learns from; at strength 0 the input tensor itself."""
        if not self._changes():
            return batch.images
        return self._applied(batch, self.distribution(batch))

    def _changes(self) -> bool:
        return self.config.strength > 0 and bool(self.operations)

    def _drawn(
        self, batch: AugmentationInput, given: Distribution
    ) -> tuple[Float[Tensor, "batch operations"], Float[Tensor, "batch operations"]]:
        """Magnitudes and choices, by the first columns of the noise."""
        normal, choice = batch.noise[:, : 2 * len(self.operations)].tensor_split(2, dim=1)
        # 1. z = mean + deviation eps, and by Phi uniform within the bounds if z is standard normal
        uniform: Tensor = torch.special.ndtr(given.mean + given.log_deviation.exp() * normal)
        low, width = self.reach.unbind(dim=1)
        magnitudes = self.config.strength * (low + width * uniform)
        # 2. g = 1 with the probability sigmoid(logit): the logistic noise of a relaxed Bernoulli variable
        logistic = torch.special.log_ndtr(choice) - torch.special.log_ndtr(-choice)
        return magnitudes, straight_through(given.logit + logistic, self._gate_temperature)

    def _applied(self, batch: AugmentationInput, given: Distribution) -> Tensor:
        magnitudes, choices = self._drawn(batch, given)
        first = 2 * len(self.operations)
        patterns = self.fields.patterns(batch.noise[:, first : first + PATTERN_DRAWS])
        images = self._resampled(batch.images, magnitudes * choices)
        drawn = zip(self.operations, magnitudes.unbind(dim=1), choices.unbind(dim=1), strict=True)
        for operation, magnitude, choice in drawn:
            if operation.apply is not None:
                images = _chosen(operation, images, magnitude, choice, patterns)
        return images

    def _resampled(self, images: Tensor, magnitudes: Float[Tensor, "batch operations"]) -> Tensor:
        """Shift, rotation, scale and shear in one; those that are not applied or not there are 0."""
        by_name = {
            operation.name: magnitude
            for operation, magnitude in zip(self.operations, magnitudes.unbind(dim=1), strict=True)
        }
        nothing = magnitudes.new_zeros(len(images))
        parameters = torch.stack([by_name.get(name, nothing) for name in PARAMETERS], dim=1)
        return transform(images, parameters, padding=self.config.padding)

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """Magnitudes and probabilities of each operation; angles in radians, shifts in half sides, blur in pixels."""
        given = self.present(batch)
        magnitudes, _ = self._drawn(batch, given)
        names = [operation.name for operation in self.operations]
        drawn = dict(zip(names, magnitudes.unbind(dim=1), strict=True))
        drawn.pop("flip", None)
        chances = given.logit.sigmoid().unbind(dim=1)
        return drawn | {f"p_{name}": chance for name, chance in zip(names, chances, strict=True)}

    def present(self, batch: AugmentationInput) -> Distribution:
        """What is drawn from at present, without replay."""
        return self.distribution(batch)

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """The bounds at this strength, and 0 to 1 for probabilities."""
        strength, found = self.config.strength, self.operations
        bounds = {each.name: (strength * each.low, strength * each.high) for each in found if each.name != "flip"}
        return bounds | {f"p_{each.name}": (0.0, 1.0) for each in found}


def _chosen(operation: Operation, images: Tensor, magnitude: Tensor, choice: Tensor, patterns: Patterns) -> Tensor:
    """Apply an operation where it is chosen; the gradient of a choice is that of a blend of both images."""
    assert operation.apply is not None
    if choice.requires_grad or not _on_host(choice):
        return images + choice[:, None, None, None] * (operation.apply(images, magnitude, patterns) - images)
    rows = choice.nonzero()[:, 0]
    if not len(rows):
        return images
    return images.index_copy(0, rows, operation.apply(images[rows], magnitude[rows], patterns.rows(rows)))


def _on_host(tensor: Tensor) -> bool:
    """Whether its rows can be counted; on a GPU, that would wait for the kernels before."""
    return not tensor.is_cuda


class LearnedPolicy(RandomPolicy, Replaying):
    r"""Learns from which magnitudes and with which probabilities the operations of `RandomPolicy` are drawn.

    .. math:: (\mu, \log\sigma, \ell)_i = f_\phi(\epsilon'_i, x_i),\quad z_{ik} = \mu_{ik} + \sigma_{ik}\epsilon_{ik},
        \quad g_{ik} = [\ell_0 + \ell_{ik} + \eta_{ik} > 0]

    with logistic noise eta; the gradient of g is that of the sigmoid at `gate_temperature` (straight-through). The
    network f starts at 0, so that the first draws are those of the prior: uniform magnitudes, `operations` of them on
    an image. Its loss has the term

    .. math:: \lambda_p \sum_k \mathrm{KL}(N(m_k, v_k) \| N(0, 1)) + \mathrm{KL}(\mathrm{Ber}(p_k) \| \mathrm{Ber}(p_0))

    of the batch's mean m and variance v of the values z, and mean probability p. Without it, magnitudes of noise, blur
    and haze fall to 0 while the student is still poor, and do not return: its largest disagreement is where the
    teacher is most certain.

    Source: the loss is HARD's (arXiv:2305.14890, section 3); the policy and its prior are ours. TeachAugment
    (arXiv:2202.12513) learns networks for colour and for geometry that are adversarial for the target model and
    recognizable for a teacher; TST (arXiv:2212.05422) learns magnitudes and probabilities in turn with distillation.
    """

    config: LearnedPolicyAugmentor

    def __init__(self, config: LearnedPolicyAugmentor, *, in_chans: int, img_size: int) -> None:
        super().__init__(config, in_chans=in_chans, img_size=img_size)
        self.drawn_noise = self.noise_dim
        self.noise_dim += config.noise_dim + (REPLAY_DRAWS if config.replay > 0 else 0)
        self.net = _PolicyNetwork(config, in_chans=in_chans, operations=len(self.operations))
        self._keep_states()

    @property
    def _gate_temperature(self) -> float:
        return self.config.gate_temperature

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network, unless strength 0 leaves it without effect."""
        return trained_group(self.config, self.net.parameters()) if self._changes() else []

    def augment(self, batch: AugmentationInput) -> AugmentedView:
        """The images as the present network draws them, and the prior's term."""
        if not self._changes():
            return AugmentedView(batch.images)
        given = self.present(batch)
        return AugmentedView(self._applied(batch, given), prior=self._prior_loss(given))

    def _prior_loss(self, given: Distribution) -> Tensor | None:
        if self.config.lambda_p == 0:
            return None
        # the values of all images are a mixture of normal ones
        variance = given.log_deviation.mul(2.0).exp().mean(dim=0) + given.mean.var(dim=0, correction=0)
        magnitudes = losses.normal_divergence(given.mean.mean(dim=0), variance)
        # a probability of 1 has an infinite slope
        chances = given.logit.sigmoid().mean(dim=0).clamp(SMALLEST, 1.0 - SMALLEST)
        choices = losses.bernoulli_divergence(chances, chances.new_full((), self.share))
        return self.config.lambda_p * (magnitudes + choices).sum()

    def present(self, batch: AugmentationInput) -> Distribution:
        """What is drawn from at present, without replay."""
        return self._of(self.net(self._noise(batch), batch.images))

    def _noise(self, batch: AugmentationInput) -> Tensor:
        return batch.noise[:, self.drawn_noise : self.drawn_noise + self.config.noise_dim]

    def _of(self, found: Float[Tensor, "batch three"]) -> Distribution:
        mean, log_deviation, logit = found.tensor_split(3, dim=-1)
        return Distribution(mean, log_deviation, self.prior_logit + logit)

    def distribution(self, batch: AugmentationInput) -> Distribution:
        """What the student's images are drawn from: for a share of them, by an earlier state."""
        present, known = self.present(batch), self._known()
        if known == 0:
            return present
        replayed, state = self._replays(batch.noise[:, -REPLAY_DRAWS:], known)
        return present.where(replayed, self._of(self._by_past(batch, state)))

    def _by_past(self, batch: AugmentationInput, state: Int[Tensor, " batch"]) -> Float[Tensor, "batch three"]:
        """The network's answer for each image by its own earlier state: all states for all would cost 25 times more."""
        shapes = {name: parameter.shape for name, parameter in self.net.named_parameters()}
        parts = self.past[state].split([shape.numel() for shape in shapes.values()], dim=1)
        states = {name: part.unflatten(1, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

        def answer(state: dict[str, Tensor], noise: Tensor, image: Tensor) -> Tensor:
            found: Tensor = torch.func.functional_call(self.net, state, (noise[None], image[None]))
            return found[0]

        answers: Tensor = torch.func.vmap(answer)(states, self._noise(batch), batch.images)
        return answers


class _PolicyNetwork(nn.Module):
    """Maps noise, and a look at the image, to three values for each operation, which are 0 at the start."""

    def __init__(self, config: LearnedPolicyAugmentor, *, in_chans: int, operations: int) -> None:
        super().__init__()
        width = config.hidden_dim
        self.look = None
        if config.condition == "image":
            self.look = nn.Sequential(
                nn.Conv2d(in_chans, width // 2, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
                nn.ReLU(),
            )
        seen = 0 if self.look is None else width
        self.hidden = nn.Linear(config.noise_dim + seen, width)
        self.last = nn.Linear(width, 3 * operations)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, noise: Tensor, images: Tensor) -> Float[Tensor, "batch three"]:
        """Means, logarithms of deviations, and logits, one after the other."""
        if self.look is not None:
            if images.shape[-1] > LOOK:
                images = nn.functional.adaptive_avg_pool2d(images, LOOK)
            noise = torch.cat([noise, self.look(images - 0.5).mean(dim=(2, 3))], dim=1)
        answer: Tensor = self.last(self.hidden(noise).relu())
        return answer
