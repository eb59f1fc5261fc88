"""`hardray distill --dry-run`: length, resources and memory of a run, from its opened data and built networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hard_ray.config.run import RunConfig
    from hard_ray.networks.network import Network


def plan_lines(config: RunConfig, *, role: str = "student") -> list[tuple[str, str]]:
    """Describe a run that trains a network of this role; raises the HardrayError that it would end with."""
    from hard_ray.config.data import describe
    from hard_ray.config.run import asks_teacher
    from hard_ray.data.account_text import account_lines
    from hard_ray.data.schedule import train_schedule
    from hard_ray.orchestration.cluster.demand import amounts, demand
    from hard_ray.preparation.checks import examine

    index, student, teacher = examine(config, role=role)
    schedule = train_schedule(index, config.data, batch_size=config.optim.batch_size, seed=config.seed)
    updates = config.optim.total_updates(schedule.batches_per_epoch)
    epochs = updates / schedule.batches_per_epoch
    splits = ", ".join(f"{len(rows):,} {name}" for name, rows in index.splits.items())
    resources = demand(config.runtime)
    parts = "; ".join(f"{who}: {amounts(part)}" for who, part in resources.parts.items())
    weights = _mib(student)
    head = f"; with a new head for {len(index.classes)} classes" if getattr(student, "has_new_head", False) else ""
    lines = [
        ("data", f"{describe(config.data)}: {splits} images of {len(index.classes)} classes"),
        *account_lines(index),
        (role, f"{config.student.model}, {_millions(student)} parameters{head}"),
    ]
    has_teacher = config.teacher.has_weights or asks_teacher(config)
    if has_teacher:
        note = "" if config.teacher.has_weights else "; without weights: trained first, by teacher.recipe, and cached"
        lines.append(("teacher", f"{config.teacher.model}, {_millions(teacher)} parameters{note}"))
    lines += [
        ("objective", f"{config.objective.kind}; augmentor {config.augmentor.kind}"),
        ("optimiser", _optimiser(config)),
        ("length", f"{updates:,} {role} updates of {config.optim.batch_size} images = {epochs:.4g} epochs"),
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


def _optimiser(config: RunConfig) -> str:
    optim = config.optim
    parts = [optim.opt, f"lr {optim.lr:g}", f"weight decay {optim.weight_decay:g}", f"schedule {optim.sched}"]
    parts += [f"warm-up {optim.warmup_epochs:g} epochs"] if optim.warmup_epochs else []
    parts += [f"label smoothing {optim.smoothing:g}"] if optim.smoothing else []
    return ", ".join([*parts, f"seed {config.seed}"])


def _millions(network: Network) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:,.2f} M"


def _mib(network: Network) -> float:
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters()) / 2**20


def _estimate(config: RunConfig, student: Network, teacher: Network, updates: int) -> str:
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
    length, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    shown = f"{seconds / length:.0f} {unit} of updates at this machine's speed"
    return f"{shown}; start, controls and augmentor phases come on top"


def _seconds_per_image(config: RunConfig, network: Network) -> float:
    import time

    import torch

    side = config.data.img_size
    images = torch.rand(8, config.data.in_chans, side, side)
    network.eval()
    with torch.inference_mode():
        network(images)
        start = time.perf_counter()
        network(images)
    return (time.perf_counter() - start) / len(images)
