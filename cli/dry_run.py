"""`--dry-run`: length, resources and memory of a run, whose first updates are made in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from hard_ray.config.run import RunConfig
    from hard_ray.data.index import ImageIndex
    from hard_ray.networks.network import Network
    from hard_ray.preparation.trial import Trial


def plan_lines(
    config: RunConfig, output: Path, *, role: str = "student", resumes: bool = False
) -> list[tuple[str, str]]:
    """Describe and try a run that trains a network of this role; raises the HardrayError that it would end with.

    With `resumes`, the output folder holds the run already.
    """
    from hard_ray.config.data import describe, describe_pixels
    from hard_ray.config.loader import absolute
    from hard_ray.config.mix import describe_mix
    from hard_ray.data.account_text import account_lines
    from hard_ray.preparation.checks import augmentor_notes, examine, training_notes
    from hard_ray.preparation.room import check_output, run_bytes
    from hard_ray.preparation.trial import try_run

    described, config = config, absolute(config)
    index, student, teacher = examine(config, role=role)
    room = check_output(output, run_bytes(config, student, teacher), resumes=resumes)
    trial, tried = try_run(config, index, student, teacher, role=role)
    splits = ", ".join(f"{len(rows):,} {name}" for name, rows in index.splits.items())
    updates, length = _length(config, index, role)
    return [
        ("data", f"{describe(described.data)}: {splits} images{of_classes(index)}"),
        ("pixels", describe_pixels(config.data)),
        *account_lines(index),
        *_augment_lines(config),
        *_network_lines(config, student, teacher, len(index.classes), role),
        *([] if config.data.mix is None else [("mixed", describe_mix(config.data.mix))]),
        ("objective", f"{config.objective.kind}; augmentor {config.augmentor.kind}"),
        *(("augmentor", note) for note in augmentor_notes(config)),
        ("optimiser", _optimiser(config)),
        *(("optimiser", note) for note in training_notes(config, student)),
        ("length", length),
        *_resource_lines(config, student, teacher, role),
        *_machine(config, student, teacher),
        ("output", room),
        *(("tried", line) for line in tried),
        ("estimated", _estimate(config, trial, updates)),
    ]


def of_classes(index: ImageIndex) -> str:
    """What the networks answer, for the line about the images."""
    count = len(index.classes)
    if not count:
        return " without labels"
    return f" of {count} classes" if index.has_labels else f" without labels; the teacher has {count} answers"


def tried_lines(config: RunConfig) -> list[tuple[str, str]]:
    """Try a run, such as a trial of a search, whose plan is described elsewhere; raises what `plan_lines` does."""
    from hard_ray.config.loader import absolute
    from hard_ray.preparation.checks import examine
    from hard_ray.preparation.trial import try_run

    config = absolute(config)
    index, student, teacher = examine(config)
    _, tried = try_run(config, index, student, teacher)
    notes = [*student.notes, *teacher.notes]
    return [*(("weights", note) for note in notes), *(("tried", line) for line in tried)]


def _augment_lines(config: RunConfig) -> list[tuple[str, str]]:
    """What is done to training images after crop and flip, if anything, and to those of a generated set."""
    from hard_ray.config.augmentor import GeneratedAugmentor, parts_of
    from hard_ray.config.view import describe_augment

    augment = config.data.augment
    if augment is None:
        return []
    has_set = any(isinstance(part, GeneratedAugmentor) for part in parts_of(config.augmentor))
    also = "; a generated image gets its original's, with the same draws" if has_set else ""
    return [("augment", describe_augment(augment) + also)]


def _asks_teacher(config: RunConfig) -> bool:
    from hard_ray.config.run import asks_teacher

    return config.teacher.has_weights or asks_teacher(config)


def _network_lines(
    config: RunConfig, student: Network, teacher: Network, classes: int, role: str
) -> list[tuple[str, str]]:
    head = f"; with a new head for {classes} classes" if student.has_new_head else ""
    if student.dimension is not None:
        head = f"; its last layer projects to the teacher's embedding of {student.dimension:,} values"
    lines = [(role, f"{config.student.model}, {_millions(student)} parameters{head}")]
    lines += [("weights", note) for note in student.notes]
    if _asks_teacher(config):
        note = "" if config.teacher.has_weights else "; without weights: trained first, by teacher.recipe, and cached"
        lines.append(("teacher", f"{config.teacher.model}, {_millions(teacher)} parameters{note}"))
        lines += [("weights", note) for note in teacher.notes]
    return [*lines, *_token_lines(student)]


def _token_lines(student: Network) -> list[tuple[str, str]]:
    """The grids of tokens, and what they add to an answer of the teacher; nothing without tokens."""
    if student.tokens is None:
        return []
    found, layout = student.tokens.map, student.tokens.layout
    return [
        (
            "tokens",
            f"the teacher's are {layout.rows} x {layout.columns} of {layout.width:,} values; the student's map of "
            f"{found.rows} x {found.columns} is resized to them and projected by a layer of its own; an answer has "
            f"{4 * layout.size:,} bytes an image, and {4 * layout.dimension:,} without tokens",
        )
    ]


def _length(config: RunConfig, index: ImageIndex, role: str) -> tuple[int, str]:
    """The number of updates, and the sentence about it."""
    from hard_ray.data.schedule import train_schedule

    size = config.optim.batch_size
    per_epoch = train_schedule(index, config.data, batch_size=size, seed=config.seed).batches_per_epoch
    updates = config.optim.total_updates(per_epoch)
    return updates, f"{updates:,} {role} updates of {size} images = {updates / per_epoch:.4g} epochs"


def _resource_lines(config: RunConfig, student: Network, teacher: Network, role: str) -> list[tuple[str, str]]:
    """What the run reserves, and how much memory and disk its parts take."""
    from hard_ray.orchestration.cluster.demand import amounts, demand
    from hard_ray.preparation.room import checkpoint_bytes, weight_bytes

    reserved = "; ".join(f"{who}: {amounts(part)}" for who, part in demand(config.runtime).parts.items())
    replica = f"teacher {weight_bytes(teacher) / 2**20:,.0f} MiB a replica; " if _asks_teacher(config) else ""
    worker = f"{role}, gradients and optimiser about {4 * weight_bytes(student) / 2**20:,.0f} MiB a worker"
    checkpoint, controls = checkpoint_bytes(config, student) / 2**20, ", ".join(config.experiment.controls)
    return [
        *([("controls", f"{controls}: as many updates each")] if controls else []),
        ("reserved", reserved),
        ("memory", f"{worker}; {replica}activations come on top"),
        ("checkpoints", f"about {checkpoint:,.0f} MiB each, the newest {config.checkpoints.keep} are kept"),
    ]


def _machine(config: RunConfig, student: Network, teacher: Network) -> list[tuple[str, str]]:
    """The memory that this machine needs with Ray's processes, and whether it has it; nothing for a cluster."""
    from hard_ray.orchestration.cluster.address import address_of
    from hard_ray.orchestration.cluster.hardware import usable_memory_gib
    from hard_ray.orchestration.cluster.memory import memory_plan, shortage

    if address_of(config.runtime) is not None:
        return []
    plan = memory_plan(config, student, teacher)
    text = f"about {plan.total:.1f} GiB of {usable_memory_gib():.1f} before activations: {plan.text}"
    return [("machine", shortage(plan) or text)]


def _optimiser(config: RunConfig) -> str:
    optim = config.optim
    parts = [optim.opt, f"lr {optim.lr:g}", f"weight decay {optim.weight_decay:g}", f"schedule {optim.sched}"]
    parts += [f"warm-up {optim.warmup_epochs:g} epochs"] if optim.warmup_epochs else []
    parts += [f"{optim.lr_cycle_limit} cycles"] if optim.lr_cycle_limit > 1 else []
    parts += [f"layer decay {optim.layer_decay:g}"] if optim.layer_decay is not None else []
    parts += [f"gradients clipped at {optim.clip_grad:g} ({optim.clip_mode})"] if optim.clip_grad is not None else []
    parts += [f"batches in {optim.accumulate} parts"] if optim.accumulate > 1 else []
    parts += [f"label smoothing {optim.smoothing:g}"] if optim.smoothing else []
    return ", ".join([*parts, f"seed {config.seed}"])


def _millions(network: Network) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:,.2f} M"


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
