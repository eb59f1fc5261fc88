"""Adversarial images against the teacher, made while the student trains."""

from __future__ import annotations

import torch
from torch import Tensor

from hard_ray.augmentors.base import AugmentationInput, Holding
from hard_ray.augmentors.labels import filled
from hard_ray.config.augmentor import AdversarialAugmentor
from hard_ray.maths.attacks import START_DRAWS, attack
from hard_ray.networks.autoencoders.base import Autoencoder


class Adversarial(Holding):
    """Ascends the teacher's cross-entropy to the labels, or to its own answer, with or without discretisation.

    Each step of ascent asks the teacher pool once for a gradient. No gradient flows through the augmentor.

    Source: DAD, arXiv:2311.01441: Q(x), ascent, Q again. The paper makes its images before training, as
    `hardray generate` does.
    """

    noise_dim = START_DRAWS

    def __init__(self, config: AdversarialAugmentor, autoencoder: Autoencoder | None = None) -> None:
        """`autoencoder` discretises, and is not trained."""
        super().__init__(*([] if autoencoder is None else [autoencoder.eval().requires_grad_(False)]))
        self.config = config

    @torch.no_grad()
    def forward(self, batch: AugmentationInput) -> Tensor:
        """The attacked images; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        labels, gradient = batch.labels, batch.gradient
        if labels is None or gradient is None:
            raise RuntimeError("adversarial images need labels and a teacher to ask for gradients")
        if batch.answer is not None:  # without a label, the teacher's own answer is attacked
            labels = filled(labels, batch.answer(batch.images).argmax(dim=1))
        found = attack(  # x_rec = Q(x), then k steps of ascent within the ball around x_rec
            self._discretised(batch.images),
            batch.noise,
            lambda images: gradient(images, labels),
            self.config,
            strength=self.config.strength,
        )
        return self._discretised(found)  # x_dad = Q(x)

    def _discretised(self, images: Tensor) -> Tensor:
        """Q: encode, quantise and decode; without an autoencoder, the identity."""
        if not self.held:
            return images
        (coder,) = self.held
        assert isinstance(coder, Autoencoder)
        return coder.reconstruct(images).clamp(0.0, 1.0)
