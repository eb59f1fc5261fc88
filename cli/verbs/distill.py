"""`hardray distill`: trains a student."""

from __future__ import annotations

from ..dry_run import print_plan
from ..options import (
    Continue,
    Data,
    DryRun,
    Files,
    Output,
    Overrides,
    Preset,
    Resume,
    Teacher,
    check_same_run,
    default_output,
    given_output,
    holds_run,
    load,
)
from ..reporter import run_to_end
from ..terminal import console, print_heading, readable_errors, usage_error


def distill(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    output: Output = None,
    resume: Resume = None,
    teacher: Teacher = None,
    data: Data = None,
    dry_run: DryRun = False,
    continues: Continue = False,
) -> None:
    """Train a student on a teacher's answers.

    The augmentor learns hard augmentations: images on which student and teacher disagree.
    """
    from hard_ray import api

    with readable_errors():
        if resume is not None:
            if overrides or config or preset or output or teacher or data or dry_run or continues:
                raise usage_error("--resume takes the configuration from the run folder; give nothing else")
            run_to_end(lambda reporter: api.resume(resume, reporter=reporter))
            return
        loaded = load(config, preset, overrides, teacher=teacher, data=data)
        if dry_run:
            print_plan(console, loaded)
            return
        folder = given_output(output, continues=continues) or default_output(loaded, preset)
        print_heading("distill", folder)
        if continues and holds_run(folder):
            check_same_run(loaded, folder)
            run_to_end(lambda reporter: api.resume(folder, reporter=reporter))
            return
        run_to_end(lambda reporter: api.distill(loaded, folder, reporter=reporter))
