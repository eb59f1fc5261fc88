"""Replay of earlier states of a learned augmentor."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hard_ray.augmentors.base import Augmentor
from hard_ray.config.augmentor import AffineAugmentor, LearnedPolicyAugmentor
from hard_ray.maths.noise import seed_of

REPLAY_DRAWS = 2
"""Noise values that decide whether an earlier state draws for an image, and which."""


class Replaying(Augmentor):
    """Keeps earlier states of its network `net`, of which some draw for a share of the student's images.

    A student that learns from the present state alone forgets earlier ones, and the augmentor narrows as the student
    learns. Ours.
    """

    config: AffineAugmentor | LearnedPolicyAugmentor
    net: nn.Module
    past: Tensor
    """Earlier states, shape (history, parameters)."""
    updates: Tensor
    """Augmentor updates so far."""

    def _keep_states(self) -> None:
        """Make room for earlier states; to be called once the network is there."""
        config = self.config
        count = sum(parameter.numel() for parameter in self.net.parameters())
        self.register_buffer("past", torch.zeros(config.history if config.replay > 0 else 0, count))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._count: int | None = None
        self.register_load_state_dict_post_hook(_forget_count)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def remember(self) -> None:
        """Count an update, and keep the network's state every `remember_every` updates."""
        self._count = self._updates() + 1
        self.updates += 1
        kept, rest = divmod(self._count, self.config.remember_every)
        if rest or not len(self.past):
            return
        # fill the history in order, then overwrite places that depend on the count alone: a resumed run does the same
        place = kept - 1 if kept <= len(self.past) else seed_of("augmentor history", kept) % len(self.past)
        self.past[place] = nn.utils.parameters_to_vector(self.net.parameters())

    def _updates(self) -> int:
        """`updates`, which is read from its device once: that would wait for the kernels before."""
        if self._count is None:
            self._count = int(self.updates)
        return self._count

    def _known(self) -> int:
        """How many earlier states there are."""
        return min(self._updates() // self.config.remember_every, len(self.past))

    def _replays(self, noise: Float[Tensor, "batch 2"], known: int) -> tuple[Bool[Tensor, " batch"], Int[Tensor, " b"]]:
        """Whether an earlier state draws for each image, and which of the known ones."""
        whether, which = torch.special.ndtr(noise).unbind(dim=1)
        return whether < self.config.replay, (which * known).long().clamp(max=known - 1)


def _forget_count(augmentor: nn.Module, _: object) -> None:
    assert isinstance(augmentor, Replaying)
    augmentor._count = None
