"""The gradient through the pool against one graph in float32, and the bits of two runs."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.gpu.sides import Hardray, hardray_side
from benchmarks.gpu.workload import STUDENT_STEPS, Compile, Pair, Workload
from hard_ray.augmentors.base import AugmentationInput
from hard_ray.config.runtime import Dtype
from hard_ray.distillation.phases import Prepared
from hard_ray.networks.precision import resting

IMAGES = 16
"""Images of the gradient's batch."""


def gradient_difference(work: Workload, pair: Pair, how: Compile, dtype: Dtype) -> dict[str, float]:
    """Largest difference of the augmentor's gradient by the pool from that of one float32 graph, over its largest.

    `images`: the gradient to the augmented images; `augmentor`: to the augmentor's parameters.
    """
    count = min(IMAGES, work.batch)
    keys = [f"runtime.amp_dtype={dtype}", f"runtime.teacher.dtype={dtype}", f"optim.batch_size={count}"]
    side = hardray_side(work, pair, "HARD", *keys, "runtime.tf32=false", how=how)
    batch, rows = work.batches()[0], slice(0, count)
    batch = replace(
        batch,
        images=batch.images[rows],
        labels=batch.labels[rows],
        sample_ids=batch.sample_ids[rows],
        epochs=batch.epochs[rows],
    )
    prepared = side.run.updater.prepare(batch, second_view=False)
    through_pool = pool_gradient(side, prepared)
    expected = graph_gradient(side, prepared.given)
    return {
        name: largest_difference(found, wanted)
        for name, found, wanted in zip(("images", "augmentor"), through_pool, expected, strict=True)
    }


def pool_gradient(side: Hardray, prepared: Prepared) -> tuple[Tensor, Tensor]:
    """The gradient as hardray's augmentor phase makes it: through the pool's request, in the run's precision."""
    phase = side.run.updater.augmentor_phase()
    attempt, answer = phase.attempt(prepared)
    teacher = torch.tensor(answer.logits).to(phase.precision.device)
    _, ((made, grad),) = phase.join_paths(attempt, teacher, answer)
    return grad, flat(torch.autograd.grad(made, list(phase.augmentor.parameters()), grad))


def graph_gradient(side: Hardray, given: AugmentationInput) -> tuple[Tensor, Tensor]:
    """The same gradient by one graph through augmentor and both networks, eager and in float32."""
    learner, objective = side.learner, side.run.updater.augmentation
    assert learner.augmentor is not None
    assert objective is not None
    images, teacher = learner.augmentor.augment(given).images, side.pool.teacher.network
    with torch.compiler.set_stance("force_eager"):
        with resting(learner.network):
            student = learner.network(images)
        with torch.no_grad():
            clean = teacher(given.images)
        loss = objective(teacher(images), {"student": student, "clean": clean}).sum()
    parameters = list(learner.augmentor.parameters())
    to_images, *to_augmentor = torch.autograd.grad(loss, [images, *parameters])
    return to_images, flat(to_augmentor)


def flat(tensors: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """All values in one row."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def largest_difference(found: Tensor, wanted: Tensor) -> float:
    """Max |found - wanted| / max |wanted|."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def digest_after(work: Workload, pair: Pair, updates: int, deterministic: bool) -> dict[str, str]:
    """SHA-256 of the weights of student and augmentor after some updates of HARD, from the same beginning."""
    side = hardray_side(work, pair, "HARD", f"runtime.deterministic={str(deterministic).lower()}")
    side.more(updates)
    assert side.learner.augmentor is not None
    digest = hashlib.sha256()
    for module in (side.learner.network, side.learner.augmentor):
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return {"sha256": digest.hexdigest()}


BIT_UPDATES = 2 * STUDENT_STEPS + 1
