"""`hardray distill --dry-run`: what a run would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from hard_ray.config.run import RunConfig


def print_plan(console: Console, config: RunConfig, *, role: str = "student") -> None:
    """Open the data, build the networks, and print the length, resources and memory of the run."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for heading, text in plan_lines(config, role=role):
        table.add_row(heading, escape(text))
    console.print(table)


def plan_lines(config: RunConfig, *, role: str = "student") -> list[tuple[str, str]]:
    """The plan, as pairs of a heading and a text; `role` is that of the trained network, student or teacher.

    Raises:
        HardrayError: the run would fail; the text says why.
    """
    from hard_ray.config.data import describe
    from hard_ray.config.run import asks_teacher
    from hard_ray.data.schedule import train_schedule
    from hard_ray.orchestration.cluster.demand import amounts, demand
    from hard_ray.preparation.checks import examine

    index, student, teacher = examine(config, role=role)
    schedule = train_schedule(index, config.data, batch_size=config.optim.batch_size, seed=config.seed)
    per_epoch = schedule.batches_per_epoch
    updates = config.optim.total_updates(per_epoch)
    splits = ", ".join(f"{len(rows):,} {name}" for name, rows in index.splits.items())
    resources = demand(config.runtime)
    parts = "; ".join(f"{who}: {amounts(part)}" for who, part in resources.parts.items())
    weights = _mib(student)
    lines = [
        ("data", f"{describe(config.data)}: {splits} images of {len(index.classes)} classes"),
        (role, f"{config.student.model}, {_millions(student)} parameters{_head_note(student, len(index.classes))}"),
    ]
    has_teacher = config.teacher.has_weights or asks_teacher(config)
    if has_teacher:
        lines.append(("teacher", f"{config.teacher.model}, {_millions(teacher)} parameters{_teacher_note(config)}"))
    lines += [
        ("objective", f"{config.objective.kind}; augmentor {config.augmentor.kind}"),
        ("optimiser", _optimiser(config)),
        (
            "length",
            f"{updates:,} {role} updates of {config.optim.batch_size} images = {updates / per_epoch:.4g} epochs",
        ),
    ]
    if config.experiment.controls:
        lines.append(("controls", f"{', '.join(config.experiment.controls)}: as many updates each"))
    lines += [
        ("reserved", parts),
        (
            "memory",
            f"{role}, gradients and optimiser about {4 * weights:,.0f} MiB a worker; "
            + (f"teacher {_mib(teacher):,.0f} MiB a replica; " if has_teacher else "")
            + "activations come on top",
        ),
        ("checkpoints", f"about {3 * weights:,.0f} MiB each, the newest {config.checkpoints.keep} are kept"),
        ("estimated", _estimate(config, student, teacher, updates)),
    ]
    return lines


def _head_note(network: object, classes: int) -> str:
    return f"; with a new head for {classes} classes" if getattr(network, "has_new_head", False) else ""


def _optimiser(config: RunConfig) -> str:
    optim = config.optim
    parts = [optim.opt, f"lr {optim.lr:g}", f"weight decay {optim.weight_decay:g}", f"schedule {optim.sched}"]
    parts += [f"warm-up {optim.warmup_epochs:g} epochs"] if optim.warmup_epochs else []
    parts += [f"label smoothing {optim.smoothing:g}"] if optim.smoothing else []
    return ", ".join([*parts, f"seed {config.seed}"])


def _teacher_note(config: RunConfig) -> str:
    return "" if config.teacher.has_weights else "; without weights: trained first, by teacher.recipe, and cached"


def _millions(network: object) -> str:
    from torch import nn

    assert isinstance(network, nn.Module)
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:,.2f} M"


def _mib(network: object) -> float:
    from torch import nn

    assert isinstance(network, nn.Module)
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters()) / 2**20


def _estimate(config: RunConfig, student: object, teacher: object, updates: int) -> str:
    """Time of the student's updates, extrapolated from one timed forward pass of each network on this machine.

    A student update is a forward and a backward pass, about three forward passes, over each view; the teacher
    computes one forward pass for each view. With a pool, both run side by side.
    """
    views = 1 if config.augmentor.kind == "identity" else 2
    asks = config.objective.kind != "cross_entropy"
    size = config.optim.batch_size
    learning = 3 * views * size * _seconds_per_image(config, student) / config.runtime.num_workers
    teaching = views * size * _seconds_per_image(config, teacher) / config.runtime.teacher.replicas if asks else 0.0
    together = max(learning, teaching) if config.runtime.teacher.placement == "pool" else learning + teaching
    seconds = together * updates
    shown = (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )
    return f"{shown} of updates at this machine's speed; start, controls and augmentor phases come on top"


def _seconds_per_image(config: RunConfig, network: object) -> float:
    import time

    import torch
    from torch import nn

    assert isinstance(network, nn.Module)
    side = config.data.img_size
    images = torch.rand(8, config.data.in_chans, side, side)
    network.eval()
    with torch.inference_mode():
        network(images)
        start = time.perf_counter()
        network(images)
    return (time.perf_counter() - start) / len(images)
