"""`hardray distill`: a student learns from a teacher."""

from __future__ import annotations

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
    Teacher,
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


def distill(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    output: Output = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Continue this run folder.")] = None,
    teacher: Teacher = None,
    data: Data = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, and stop.")] = False,
    goes_on: GoesOn = False,
) -> None:
    """Train a student on a teacher's answers.

    With learned hard augmentations: images on which student and teacher disagree.
    """
    from hard_ray import api

    with readable_errors():
        if resume is not None:
            if overrides or config or preset or output or teacher or data or dry_run or goes_on:
                raise usage("--resume takes the configuration from the run folder; give nothing beside it")
            run_to_end(lambda reporter: api.resume(resume, reporter=reporter))
            return
        loaded = load(config, preset, overrides, teacher=teacher, data=data)
        if dry_run:
            _print_plan(loaded)
            return
        folder = given_output(output, goes_on=goes_on) or default_output(loaded, preset)
        console.print(f"[bold]hardray distill[/bold] -> {escape(str(folder))}", highlight=False)
        if goes_on and holds_run(folder):
            check_same_run(loaded, folder)
            run_to_end(lambda reporter: api.resume(folder, reporter=reporter))
            return
        run_to_end(lambda reporter: api.distill(loaded, folder, reporter=reporter))


def _print_plan(config: RunConfig) -> None:
    from ..dry_run import print_plan

    print_plan(console, config)
