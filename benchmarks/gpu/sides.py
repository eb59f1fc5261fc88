"""What is compared: hardray's own loop with the teacher in its process, and plain loops that do the same work."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.gpu.workload import Compile, Method, Pair, Workload
from hard_ray.config.run import RunConfig
from hard_ray.data.batch import Batch
from hard_ray.distillation.assembly import batch_sizes, build_learner, build_updater, student_precision
from hard_ray.distillation.bad_images import SharedBadImages
from hard_ray.distillation.checkpoints import CheckpointStore, Counters, Weights
from hard_ray.distillation.controller import Controller
from hard_ray.distillation.loop import Rhythm, Run, StopRequest
from hard_ray.distillation.optimisers import build_optimizer, build_scheduler
from hard_ray.distillation.phases import Learner
from hard_ray.distillation.prefetch import Prefetch
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.maths.metrics import SuiteResult
from hard_ray.networks.network import build_student
from hard_ray.networks.precision import prepare_kernels
from hard_ray.ranks import Ranks
from hard_ray.runs.bad_images import BadImages
from hard_ray.runs.folder import RunFolder

NEVER = 10**9


class Side(Protocol):
    """A loop that can be continued by some updates."""

    def more(self, updates: int) -> tuple[int, int]:
        """Make student updates, with the augmentor's between them; return how many of each were made."""


class Quiet:
    """An observer that draws and keeps nothing."""

    def picture(self, step: int) -> None:
        """Do nothing."""

    def keep_best(self) -> None:
        """Do nothing."""


class Stretches(Run):
    """The loop of a run, some updates at a time, without evaluations and checkpoints."""

    def more(self, updates: int) -> tuple[int, int]:
        """Make student updates, and those of the augmentor that fall between them; return how many of each."""
        counters = self.counters
        before = counters.student_steps, counters.augmentor_steps
        self.rhythm = replace(self.rhythm, total=counters.student_steps + updates)
        with closing(self.batches(counters.step)) as batches:
            prefetch = Prefetch(batches, self.updater, self.bad_images.note, self.controller.learned, self.ahead)
            self._loop(prefetch)
        return counters.student_steps - before[0], counters.augmentor_steps - before[1]


@dataclass(frozen=True, slots=True)
class Hardray:
    """A run of hardray in this process: everything but Ray, Ray Data, MLflow and the disk."""

    config: RunConfig
    pool: LocalPool
    run: Stretches

    @property
    def learner(self) -> Learner:
        """Student, augmentor and optimisers."""
        return self.run.updater.learner

    def more(self, updates: int) -> tuple[int, int]:
        """Make student updates, with the augmentor's between them; return how many of each were made."""
        return self.run.more(updates)


def hardray_side(work: Workload, pair: Pair, method: Method, *overrides: str, how: Compile = False) -> Hardray:
    """The run with random weights of a fixed seed."""
    config = work.config(pair, method, *overrides, how=how)
    device, ranks, runtime = torch.device(work.device), Ranks(), config.runtime
    prepare_kernels(None, deterministic=runtime.deterministic, tf32=runtime.tf32)
    torch.manual_seed(0)
    teacher = build_student(config.student.model_copy(update={"model": pair.teacher}), work.spec, role="the teacher")
    frozen = FrozenNetwork(teacher, dtype=runtime.teacher.dtype or "float32", channels_last=bool(runtime.channels_last))
    if runtime.teacher.compile_mode is not None:
        frozen.compile(runtime.teacher.compile_mode, batch_sizes(config), work.size)
        if frozen.network.compilation is None:
            raise RuntimeError("the teacher cannot be compiled; its log says why")
    pool = LocalPool(frozen)
    learner = seeded_learner(config, work, device)
    optimizers = {"student": learner.optimizer}
    modules = {"student": learner.network}
    folder = RunFolder(work.folder / "run")
    folder.path.mkdir(parents=True, exist_ok=True)
    made = work.batches()

    def batches(first: int) -> Generator[Batch]:
        while True:
            yield made[first % len(made)]
            first += 1

    def evaluate() -> dict[str, SuiteResult]:
        return {}

    run = Stretches(
        folder=folder,
        stop=StopRequest(Path(folder.stop_request)),
        rhythm=Rhythm(total=NEVER, per_epoch=NEVER, log_every=50, validate_every=NEVER, checkpoint_every=NEVER),
        updater=build_updater(config, learner, pool, device=device, ranks=ranks),
        controller=Controller(config.controller, learned=learner.augmentor_optimizer is not None),
        counters=Counters(),
        weights=Weights(modules, optimizers, learner.loss_scale),
        checkpoints=CheckpointStore(folder.checkpoints, 1),
        batches=batches,
        evaluate=evaluate,
        ranks=ranks,
        observer=Quiet(),
        batch_size=work.batch,
        bad_images=SharedBadImages(BadImages(0), ranks, folder.bad_images),
        ahead=runtime.teacher.prefetch,
        scheduler=build_scheduler(learner.optimizer, config.optim, total=NEVER, per_epoch=NEVER),
    )
    return Hardray(config, pool, run)


def seeded_learner(config: RunConfig, work: Workload, device: torch.device) -> Learner:
    """Student, augmentor and their optimisers, with weights of a fixed seed."""
    precision = student_precision(config, device)
    torch.manual_seed(1)
    network = build_student(config.student, work.spec).to(device).to(memory_format=precision.memory_format).train()
    optimizer, mode = build_optimizer(network, config.optim), config.runtime.compile_mode
    if mode is not None:  # nothing is tried: an error of the first update is the cell's
        network.compile_for(mode, sizes=batch_sizes(config), name="the student", attempt=lambda: None)
    torch.manual_seed(2)
    return build_learner(config, network, optimizer, device=device)
