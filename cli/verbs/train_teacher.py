"""`hardray train-teacher`: a teacher of your own, as a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..options import (
    Data,
    Files,
    GoesOn,
    Output,
    Overrides,
    Preset,
    as_given,
    check_same_run,
    default_output,
    given_output,
    holds_run,
    load,
)
from ..reporter import run_to_end
from ..terminal import console, readable_errors, usage

if TYPE_CHECKING:
    from hard_ray.config.run import RunConfig
    from hard_ray.orchestration.run.driver import RunResult


def train_teacher(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    model: Annotated[str | None, typer.Option("--model", help="Short for teacher.model=...")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Short for teacher.pretrained=true: fine-tune timm's weights.")
    ] = False,
    data: Data = None,
    output: Output = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Continue this run folder.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, and stop.")] = False,
    goes_on: GoesOn = False,
) -> None:
    """Train or fine-tune a teacher on your images.

    By `teacher.recipe`: a teacher without weights from nothing, as `distill` would, and one with weights gently, with a
    new class head where its own was made for other classes. `teacher.recipe.seed` is its seed.
    """
    from hard_ray import api

    with readable_errors():
        if resume is not None:
            if overrides or config or preset or model or pretrained or data or output or dry_run or goes_on:
                raise usage("--resume takes the configuration from the run folder; give nothing beside it")
            done = run_to_end(lambda reporter: api.resume(resume, reporter=reporter), learner="teacher")
            _print(teaching_lines(done, []))
            return
        given = [*(["teacher.pretrained=true"] if pretrained else []), *(overrides or [])]
        loaded = load(config, preset, given, teacher=model, data=data, trains_teacher=True)
        if dry_run:
            _print_plan(loaded)
            return
        folder = given_output(output, goes_on=goes_on) or default_output(loaded, preset)
        console.print(f"[bold]hardray train-teacher[/bold] -> {escape(str(folder))}", highlight=False)
        _print([recipe_line(loaded)])
        if goes_on and holds_run(folder):
            check_same_run(_as_run(loaded), folder)
            done = run_to_end(lambda reporter: api.resume(folder, reporter=reporter), learner="teacher")
        else:
            done = run_to_end(lambda reporter: api.train_teacher(loaded, folder, reporter=reporter), learner="teacher")
        others = [override for override in overrides or [] if not override.startswith(("teacher.", "teacher="))]
        _print(teaching_lines(done, as_given(config, preset, others, teacher=None, data=data)))


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


def _print_plan(config: RunConfig) -> None:
    from ..dry_run import print_plan

    _print([recipe_line(config)])
    print_plan(console, _as_run(config), learner="teacher")


def _as_run(config: RunConfig) -> RunConfig:
    from hard_ray.config.teacher_training import teacher_run

    return teacher_run(config)


def recipe_line(config: RunConfig) -> str:
    """By what the teacher is trained, and how that is changed."""
    teacher, recipe = config.teacher, config.teacher.recipe
    how = "fine-tuned" if teacher.has_weights else "trained from nothing"
    length = f"{recipe.steps:,} updates" if recipe.steps is not None else f"{recipe.epochs or 0:g} epochs"
    warm_up = f", warm-up {recipe.warmup_epochs:g} epochs" if recipe.warmup_epochs else ""
    return (
        f"teacher {teacher.model}: {how} by {recipe.opt}, lr {recipe.lr:g}, weight decay {recipe.weight_decay:g}, "
        f"{length} in batches of {recipe.batch_size}{warm_up}; teacher.recipe.lr=... and its other keys change that"
    )


def teaching_lines(result: RunResult, given: Sequence[str]) -> list[str]:
    """How to teach with what was trained; `given` describes data and all else that is not the teacher's."""
    from hard_ray.files import read_json
    from hard_ray.runs.folder import RunFolder

    folder, trained = RunFolder(result.folder).student, result.config.student
    overrides = [f"teacher.model={read_json(folder / 'config.json')['architecture']}", f"teacher.checkpoint={folder}"]
    overrides += [f"teacher.img_size={trained.img_size}"] if trained.img_size is not None else []
    overrides += [f"teacher.model_kwargs={json.dumps(trained.model_kwargs)}"] if trained.model_kwargs else []
    return [f"teach    {shlex.join(['hardray', 'distill', *given, *overrides])}"]
