"""Plain loops: PyTorch and timm's networks in one process, without a pool, a protocol or NumPy between the networks.

Each does the work of the hardray run that it is compared with: the same networks, batches, precision, compilation and
passes. They are as fast as a user would write them: batches wait in pinned memory, the copy is asynchronous, the
optimiser is fused, and nothing waits for the card.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.workload import STUDENT_STEPS, Compile, Method, Pair, Workload
from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.objective import HardObjective, KdObjective
from hard_ray.config.run import RunConfig
from hard_ray.distillation.assembly import student_precision
from hard_ray.distillation.objectives import AugmentorObjective
from hard_ray.maths import losses
from hard_ray.networks.network import build_student
from hard_ray.networks.precision import resting


def compile_model(model: nn.Module, how: Compile) -> None:
    """Let torch.compile make the kernels of a model as it does by itself, where `how` is not False."""
    if how:
        model.compile(dynamic=False, mode=how if isinstance(how, str) else None)


class Plain:
    """A plain loop that can be continued by some updates."""

    def __init__(
        self,
        work: Workload,
        pair: Pair,
        method: Method,
        how: Compile,
        batches: Iterator[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """`batches` of uint8 images and labels in main memory; None: the work's, in turn."""
        self.config: RunConfig = work.config(pair, method)
        self.device = torch.device(work.device)
        self.precision = student_precision(self.config, self.device)
        self.method = method
        last, spec, base = self.precision.memory_format, work.spec, self.config.student
        torch.manual_seed(0)
        teacher = build_student(base.model_copy(update={"model": pair.teacher}), spec, role="the teacher")
        torch.manual_seed(1)
        student = build_student(base, spec)
        self.teacher = teacher.freeze().to(self.device).to(memory_format=last)
        self.student = student.to(self.device).to(memory_format=last).train()
        compile_model(self.teacher.model, how)
        compile_model(self.student.model, how)
        fused = work.device == "cuda"
        self.optimizer: torch.optim.Optimizer
        if pair.optimiser == "sgd":
            self.optimizer = torch.optim.SGD(self.student.parameters(), 0.01, 0.9, nesterov=True, fused=fused)
        else:
            self.optimizer = torch.optim.AdamW(self.student.parameters(), 0.0001, fused=fused)
        augmentor = build_augmentor(self.config.augmentor, in_chans=3, img_size=work.size) if method == "HARD" else None
        if augmentor is not None:
            self.augmentor = augmentor.to(self.device)
            self.augmentor_optimizer = torch.optim.AdamW(self.augmentor.parameter_groups())
        self.batches = self._pinned(work) if batches is None else batches
        self.random = np.random.default_rng(0)
        self.made = 0

    def _pinned(self, work: Workload) -> Iterator[tuple[Tensor, Tensor]]:
        pairs = [(torch.from_numpy(batch.images), torch.from_numpy(batch.labels)) for batch in work.batches()]
        if self.device.type == "cuda":
            pairs = [(images.pin_memory(), labels.pin_memory()) for images, labels in pairs]
        return cycle(pairs)

    def more(self, updates: int) -> tuple[int, int]:
        """Make student updates, with the augmentor's between them; return how many of each were made."""
        augmentor_updates = 0
        for _ in range(updates):
            if self.method == "HARD" and self.made and self.made % STUDENT_STEPS == 0:
                self.augmentor_update()
                augmentor_updates += 1
            self.student_update()
            self.made += 1
        return updates, augmentor_updates

    def next(self) -> tuple[Tensor, Tensor]:
        """The next images in [0, 1] and their labels, on the card."""
        pixels, labels = next(self.batches)
        images = pixels.to(self.device, non_blocking=True).float() / 255.0
        return images.contiguous(memory_format=self.precision.memory_format), labels.to(self.device, non_blocking=True)

    def student_update(self) -> None:
        """One update of the student."""
        images, labels = self.next()
        second = self.second_view(images)
        with self.precision.autocast():
            with torch.no_grad():
                teacher = [self.teacher(view).float() for view in (images, *second)]
            student = self.student(torch.cat([images, *second]) if second else images).float().chunk(len(teacher))
        objective = self.config.objective
        assert isinstance(objective, HardObjective | KdObjective)
        distances = [
            losses.divergence(t, s, temperature=objective.temperature).mean()
            for t, s in zip(teacher, student, strict=True)
        ]
        loss = torch.stack(distances).sum()
        if isinstance(objective, KdObjective):
            loss = objective.alpha * loss + (1 - objective.alpha) * F.cross_entropy(student[0], labels)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()

    @torch.no_grad()
    def second_view(self, images: Tensor) -> list[Tensor]:
        """The augmented view, if the method has one."""
        match self.method:
            case "KD":
                return []
            case "CutMix":
                return [self.cutmix(images)]
            case "HARD":
                return [self.augmentor.view(self.given(images)).images]

    def given(self, images: Tensor) -> AugmentationInput:
        """A batch with noise for the augmentor."""
        noise = torch.randn(len(images), self.augmentor.noise_dim, device=self.device)
        return AugmentationInput(images, noise)

    def cutmix(self, images: Tensor) -> Tensor:
        """A box of each image replaced by the same box of the image before it (arXiv 1905.04899)."""
        side = images.shape[-1]
        half = side * (1.0 - self.random.beta(1.0, 1.0)) ** 0.5 / 2
        x, y = self.random.integers(0, side, 2)
        top, left = max(0, round(y - half)), max(0, round(x - half))
        down, right = min(side, round(y + half)), min(side, round(x + half))
        mixed = images.clone()
        mixed[:, :, top:down, left:right] = images.roll(1, 0)[:, :, top:down, left:right]
        return mixed

    def augmentor_update(self) -> None:
        """One update of HARD's augmentor, through both networks in one graph."""
        images, _ = self.next()
        objective = self.config.objective
        assert isinstance(objective, HardObjective)
        loss_of = AugmentorObjective(objective.temperature, objective.lambda_s, objective.lambda_t, objective.cap)
        view = self.augmentor.augment(self.given(images)).images
        with self.precision.autocast():
            with torch.no_grad():
                clean = self.teacher(images).float()
            teacher = self.teacher(view).float()
            with resting(self.student):
                student = self.student(view).float()
        loss = loss_of(teacher, {"student": student, "clean": clean}).mean()
        self.augmentor_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=list(self.augmentor.parameters()))
        self.augmentor_optimizer.step()
