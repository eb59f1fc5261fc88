"""Several augmentors, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Augmentor


class Chain(Augmentor):
    """Applies augmentors in order; each has its own part of the noise and its own learning rate."""

    def __init__(self, parts: Sequence[tuple[str, Augmentor]]) -> None:
        """`parts` are names and augmentors; duplicate names are numbered."""
        super().__init__()
        kinds = [kind for kind, _ in parts]
        numbered = [
            kind if kinds.count(kind) == 1 else f"{kind}{kinds[:place].count(kind) + 1}"
            for place, kind in enumerate(kinds)
        ]
        self.parts = nn.ModuleDict(dict(zip(numbered, (part for _, part in parts), strict=True)))
        self.noise_dim = sum(part.noise_dim for part in self._each())

    def _each(self) -> Iterator[Augmentor]:
        for part in self.parts.values():
            assert isinstance(part, Augmentor)
            yield part

    def _in_turn(
        self, batch: AugmentationInput, *, present: bool
    ) -> Iterator[tuple[str, Augmentor, AugmentationInput, AugmentedView]]:
        """Apply each augmentor in turn: its name, itself, its input and its view, by its present state if `present`."""
        images = batch.images
        for name, part, noise in self._with_noise(batch.noise):
            given = replace(batch, images=images, noise=noise)
            made = part.augment(given) if present else part.view(given)
            yield name, part, given, made
            images = made.images

    def _with_noise(self, noise: Tensor) -> Iterator[tuple[str, Augmentor, Tensor]]:
        """Every augmentor with its own columns of the noise."""
        own = noise.split([part.noise_dim for part in self._each()], dim=1)
        yield from zip(self.parts, self._each(), own, strict=True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all parts."""
        return [group for part in self._each() for group in part.parameter_groups()]

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The images after the last augmentor; the input tensor itself if every strength is 0."""
        return self.view(batch).images

    def remember(self) -> None:
        """Let every part remember its own state."""
        for part in self._each():
            part.remember()

    def view(self, batch: AugmentationInput) -> AugmentedView:
        """The images after the last augmentor; sources multiply, as each augmentor mixes images already mixed."""
        return self._through_all(batch, present=False)

    def augment(self, batch: AugmentationInput) -> AugmentedView:
        """The images after the last augmentor, by the present state of every part."""
        return self._through_all(batch, present=True)

    def _through_all(self, batch: AugmentationInput, *, present: bool) -> AugmentedView:
        view = AugmentedView(batch.images)
        for _, _, _, made in self._in_turn(batch, present=present):
            prior = _sum(made.prior, view.prior)
            view = AugmentedView(made.images, _through(made.sources, view.sources), prior)
        return view

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """The values drawn by each part, under `part.name`."""
        return {
            f"{name}.{key}": values
            for name, part, given, _ in self._in_turn(batch, present=True)
            for key, values in part.samples(given).items()
        }

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """The bounds of each part, under `part.name`."""
        return {
            f"{name}.{key}": bounds
            for name, part in zip(self.parts, self._each(), strict=True)
            for key, bounds in part.bounds_of_samples().items()
        }


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _through(later: Tensor | None, earlier: Tensor | None) -> Tensor | None:
    """Shares of the batch's images after two augmentors; None stands for the identity matrix."""
    if later is None or earlier is None:
        return earlier if later is None else later
    return torch.mm(later, earlier)
