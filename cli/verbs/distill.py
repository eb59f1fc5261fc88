"""`hardray distill`: trains a student."""

from __future__ import annotations

from .. import options
from ..dry_run import plan_lines
from ..mlflow_line import mlflow_line
from ..reporter import run_to_end
from ..terminal import print_heading, print_pairs, usage_error


def distill(
    overrides: options.Overrides = None,
    config: options.Files = None,
    preset: options.Preset = None,
    output: options.Output = None,
    resume: options.Resume = None,
    teacher: options.Teacher = None,
    data: options.Data = None,
    dry_run: options.DryRun = False,
    continues: options.Continue = False,
) -> None:
    """Train a student on a teacher's answers.

    The augmentor learns hard augmentations: images on which student and teacher disagree.
    """
    from hard_ray import api

    if resume is not None:
        if overrides or config or preset or output or teacher or data or dry_run or continues:
            raise usage_error("--resume takes the configuration from the run folder; give nothing else")
        run_to_end(lambda reporter: api.resume(resume, reporter=reporter))
        return
    loaded = options.load(config, preset, overrides, teacher=teacher, data=data)
    folder = options.given_output(output, continues=continues) or options.default_output(loaded, preset)
    if dry_run:
        resumes = continues and options.holds_run(loaded, folder)
        print_pairs(
            [
                *plan_lines(loaded, options.planned(folder, resumes=resumes), resumes=resumes),
                mlflow_line(loaded.tracking, output),
            ]
        )
        return
    print_heading("distill", options.shown(folder))
    if continues and options.holds_run(loaded, folder):
        run_to_end(lambda reporter: api.resume(folder, reporter=reporter))
    else:
        run_to_end(lambda reporter: api.distill(loaded, folder, reporter=reporter))
