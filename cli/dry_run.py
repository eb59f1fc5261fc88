"""`hardray distill --dry-run`: length, resources and memory of a run, from its opened data and built networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from hard_ray.config.run import RunConfig
    from hard_ray.networks.network import Network
    from hard_ray.preparation.trial import Trial


def plan_lines(
    config: RunConfig, output: Path, *, role: str = "student", resumes: bool = False
) -> list[tuple[str, str]]:
    """Describe and try a run that trains a network of this role; raises the HardrayError that it would end with.

    With `resumes`, the output folder holds the run already.
    """
    from hard_ray.config.data import describe
    from hard_ray.config.run import asks_teacher
    from hard_ray.data.account_text import account_lines
    from hard_ray.data.schedule import train_schedule
    from hard_ray.orchestration.cluster.demand import amounts, demand
    from hard_ray.preparation.checks import examine
    from hard_ray.preparation.room import check_output, checkpoint_bytes, run_bytes
    from hard_ray.preparation.trial import try_run

    index, student, teacher = examine(config, role=role)
    room = check_output(output, run_bytes(config, student, teacher), resumes=resumes)
    trial, tried = try_run(config, index, student, teacher, role=role)
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
    lines += [("weights", note) for note in student.notes]
    has_teacher = config.teacher.has_weights or asks_teacher(config)
    if has_teacher:
        note = "" if config.teacher.has_weights else "; without weights: trained first, by teacher.recipe, and cached"
        lines.append(("teacher", f"{config.teacher.model}, {_millions(teacher)} parameters{note}"))
        lines += [("weights", note) for note in teacher.notes]
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
        (
            "checkpoints",
            f"about {checkpoint_bytes(config, student) / 2**20:,.0f} MiB each, the newest {config.checkpoints.keep} "
            "are kept",
        ),
        ("output", room),
        *(("tried", line) for line in tried),
        ("estimated", _estimate(config, trial, updates)),
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


def _estimate(config: RunConfig, trial: Trial, updates: int) -> str:
    """Time of the student's updates, extrapolated from a tried one on this machine.

    With a pool, the student's side of an update and the teacher's run side by side.
    """
    size = config.optim.batch_size
    learning = size * trial.student_s / config.runtime.num_workers
    teaching = size * trial.teacher_s / config.runtime.teacher.replicas
    together = max(learning, teaching) if config.runtime.teacher.placement == "pool" else learning + teaching
    seconds = together * updates
    length, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    shown = f"{seconds / length:.0f} {unit} of updates at this machine's speed"
    return f"{shown}; start, controls and augmentor phases come on top"
