"""Images under an attack by the gradient of a network's own loss."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from hard_ray.augmentors.base import Gradient
from hard_ray.augmentors.labels import Labels
from hard_ray.config.validation import EvaluationAttack
from hard_ray.maths.attacks import START_DRAWS, attack
from hard_ray.maths.noise import normal
from hard_ray.networks.precision import Precision, widen


def attacked(
    images: NDArray[np.uint8],
    labels: Labels,
    sample_ids: NDArray[np.int64],
    gradient: Gradient,
    config: EvaluationAttack,
    precision: Precision,
) -> Float[Tensor, "batch channels height width"]:
    """The images in [0, 1] after the ascent; random starts are a function of the sample id alone."""
    draws = normal("attack", seed=0, epochs=np.zeros_like(sample_ids), sample_ids=sample_ids, count=START_DRAWS)
    noise = torch.from_numpy(draws).to(precision.device)
    return attack(precision.images(images), noise, lambda pixels: gradient(pixels, labels), config)


def own_gradient(network: nn.Module, precision: Precision) -> Gradient:
    """Make a function of images and labels: the gradient of the network's cross-entropy to the images.

    It works within inference mode, and leaves the gradients of the network's parameters alone.
    """

    def gradient(images: Tensor, labels: Labels) -> Tensor:
        assert isinstance(labels, Tensor)
        with torch.inference_mode(False), torch.enable_grad():
            pixels, truth = images.clone().requires_grad_(), labels.clone()  # what inference mode made has no gradient
            with precision.autocast():
                logits = network(pixels)
            loss = F.cross_entropy(widen(logits), truth, reduction="sum")
            (found,) = precision.gradients(loss, [pixels])
        return found

    return gradient
