"""`hardray train-teacher`: trains or fine-tunes a teacher."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hard_ray.errors import command_line

from .. import options
from ..dry_run import plan_lines
from ..mlflow_line import mlflow_line
from ..reporter import run_to_end
from ..terminal import print_heading, print_pairs, say, usage_error

if TYPE_CHECKING:
    from hard_ray.config.run import RunConfig
    from hard_ray.orchestration.run.driver import RunResult


def train_teacher(
    overrides: options.Overrides = None,
    config: options.Files = None,
    preset: options.Preset = None,
    model: Annotated[str | None, typer.Option(help="Short for teacher.model=...")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Short for teacher.pretrained=true: fine-tune timm's weights.")
    ] = False,
    freeze: Annotated[
        Literal["tower"] | None,
        typer.Option(help="Short for teacher.recipe.freeze=...: `tower` trains the class head alone."),
    ] = None,
    data: options.Data = None,
    output: options.Output = None,
    resume: options.Resume = None,
    dry_run: options.DryRun = False,
    continues: options.Continue = False,
) -> None:
    """Train or fine-tune a teacher on your images.

    `teacher.recipe` says how. A teacher without weights is trained from scratch, as `distill` would. One with weights
    is fine-tuned, with a new class head if its own is for other classes. The seed is `teacher.recipe.seed`.
    """
    from hard_ray import api
    from hard_ray.config.teacher_training import teacher_run

    if resume is not None:
        if overrides or config or preset or model or pretrained or freeze or data or output or dry_run or continues:
            raise usage_error("--resume takes the configuration from the run folder; give nothing else")
        done = run_to_end(lambda reporter: api.resume(resume, reporter=reporter), role="teacher")
        say(teaching_line(done, []))
        return
    given = ["teacher.pretrained=true"] if pretrained else []
    given += [f"teacher.recipe.freeze={freeze}"] if freeze else []
    given += overrides or []
    loaded = options.load(config, preset, given, teacher=model, data=data, trains_teacher=True)
    folder = options.given_output(output, continues=continues) or options.default_output(loaded, preset)
    if dry_run:
        say(recipe_line(loaded))
        run = teacher_run(loaded)
        resumes = continues and options.holds_run(run, folder)
        lines = plan_lines(run, options.planned(folder, resumes=resumes), role="teacher", resumes=resumes)
        print_pairs([*lines, mlflow_line(loaded.tracking, output)])
        return
    print_heading("train-teacher", options.shown(folder))
    say(recipe_line(loaded))
    if continues and options.holds_run(teacher_run(loaded), folder):
        done = run_to_end(lambda reporter: api.resume(folder, reporter=reporter), role="teacher")
    else:
        done = run_to_end(lambda reporter: api.train_teacher(loaded, folder, reporter=reporter), role="teacher")
    others = [override for override in overrides or [] if not override.startswith(("teacher.", "teacher="))]
    say(teaching_line(done, options.as_given(config, preset, others, teacher=None, data=data)))


def recipe_line(config: RunConfig) -> str:
    """The recipe that the teacher is trained by, and how to change it."""
    teacher, recipe = config.teacher, config.teacher.recipe
    how = "fine-tuned" if teacher.has_weights else "trained from scratch"
    how = f"its class head alone {how}" if recipe.freeze else how
    length = f"{recipe.steps:,} updates" if recipe.steps is not None else f"{recipe.epochs or 0:g} epochs"
    warm_up = f", warm-up {recipe.warmup_epochs:g} epochs" if recipe.warmup_epochs else ""
    return (
        f"teacher {teacher.model}: {how} by {recipe.opt}, lr {recipe.lr:g}, weight decay {recipe.weight_decay:g}, "
        f"{length} in batches of {recipe.batch_size}{warm_up}; teacher.recipe.lr=... and its other keys change that"
    )


def teaching_line(result: RunResult, given: Sequence[str]) -> str:
    """The command that distills from the trained teacher; `given` are its words that are not about the teacher."""
    from hard_ray.config.layers import override
    from hard_ray.files import read_json
    from hard_ray.runs.folder import RunFolder
    from hard_ray.storage.mirror import shown_path

    folder, trained = RunFolder(result.folder).student, result.config.student
    overrides = [
        f"teacher.model={read_json(folder / 'config.json')['architecture']}",
        override("teacher.checkpoint", shown_path(folder)),
    ]
    overrides += [f"teacher.img_size={trained.img_size}"] if trained.img_size is not None else []
    overrides += [f"teacher.model_kwargs={json.dumps(trained.model_kwargs)}"] if trained.model_kwargs else []
    return f"teach    {command_line('distill', *given, *overrides)}"
