"""`hardray recommend`: finds out by short trainings which student to train."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from hard_ray.errors import command_line

from ..dry_run import of_classes
from ..options import (
    Continue,
    Data,
    DryRun,
    Files,
    Overrides,
    Preset,
    Teacher,
    given_output,
    load,
    path_or_url,
    refuse_other,
    shown,
)
from ..tables import print_table
from ..terminal import console, print_heading, print_lines, print_pairs, say, usage_error

if TYPE_CHECKING:
    from hard_ray.config.recommend import RecommendRun
    from hard_ray.config.run import RunConfig
    from hard_ray.orchestration.recommend.driver import Recommendation


def recommend(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="Time for all of it: 90s, 20m or 1.5h.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder, or a URL such as s3://BUCKET/NAME; by default runs/recommend-NAME-TIME.", parser=path_or_url
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Resume the recommendation in this folder or at this URL.", parser=path_or_url)
    ] = None,
    teacher: Teacher = None,
    data: Data = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Suite of the validation split; may be repeated. Their mean top-1, or agreement, decides."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Most images that students are measured on; by default 2000.")
    ] = None,
    dry_run: DryRun = False,
    continues: Continue = False,
) -> None:
    """Recommend an augmentor, a strength and a temperature, by short trainings on your teacher and data.

    Measures the teacher's robustness and the T. stddev of augmentations, and trains students within the budget. A page
    says what to take, what to expect of it, and when not to distil this way.
    """
    from hard_ray import api
    from hard_ray.config.recommend import read_budget, recommend_settings

    if resume is not None:
        if (
            overrides
            or config
            or preset
            or budget
            or output
            or teacher
            or data
            or suite
            or images
            or dry_run
            or continues
        ):
            raise usage_error("--resume takes everything from its folder; give nothing else")
        print_result(api.resume_recommend(resume, say=say))
        return
    if budget is None:
        raise usage_error("give --budget, such as --budget 20m")
    loaded = load(config, preset, overrides, teacher=teacher, data=data)
    settings = recommend_settings(budget_s=read_budget(budget), suites=suite or None, images=images)
    name = loaded.experiment.name or preset or loaded.data.kind
    stamped = Path("runs") / f"recommend-{name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = given_output(output, continues=continues) or stamped
    goes_on = continues and holds_recommendation(loaded, settings, folder)
    if dry_run:
        print_pairs(plan_lines(loaded, settings, folder, goes_on=goes_on))
        return
    print_heading("recommend", shown(folder))
    if goes_on:
        print_result(api.resume_recommend(folder, say=say))
        return
    budget_s, suites = settings.budget_s, settings.suites
    print_result(api.recommend(loaded, folder, budget_s=budget_s, suites=suites, images=settings.images, say=say))


def holds_recommendation(config: RunConfig, settings: RecommendRun, output: Path) -> bool:
    """Whether the folder or URL holds this recommendation; one that has other settings is refused."""
    from hard_ray.config.loader import absolute
    from hard_ray.preparation.recommend_folder import begun_at

    begun = begun_at(output)
    if begun is None:
        return False
    for now, then in zip((absolute(config), settings), begun, strict=True):
        refuse_other(now, then, output, "recommendation")
    return True


def plan_lines(
    config: RunConfig, settings: RecommendRun, folder: Path, *, goes_on: bool = False
) -> list[tuple[str, str]]:
    """Describe and try a recommendation; raises the HardrayError that it would begin with."""
    from hard_ray.config.data import describe
    from hard_ray.config.recommend import DRAWN, fixed_candidates, references, with_teacher
    from hard_ray.config.scoring import DEFAULT_AUGMENTORS
    from hard_ray.data.account_text import account_lines
    from hard_ray.preparation.recommend_checks import check, try_pilots
    from hard_ray.preparation.recommend_folder import RECOMMENDATION
    from hard_ray.preparation.recommend_plan import shown as shown_time
    from hard_ray.runs.place import check_new_output

    if not goes_on:
        check_new_output(folder, RECOMMENDATION)
    index, student, taught = check(config, settings)
    tried = try_pilots(config, settings, index, student, taught)
    asked = with_teacher(config)
    scored = ", ".join(name for name in DEFAULT_AUGMENTORS if name != "identity")
    images = min(settings.images, len(index.rows("val")))
    trained = (
        "" if config.teacher.has_weights else "; without weights: trained first, outside of the budget, and cached"
    )
    notes = [*student.notes, *taught.notes]
    return [
        ("data", f"{describe(config.data)}: {len(index.rows('train')):,} images{of_classes(index)}"),
        *account_lines(index),
        ("student", config.student.model),
        ("teacher", f"{config.teacher.model}{trained}"),
        *(("weights", note) for note in notes),
        ("measured", f"on {images:,} images of the validation split: {', '.join(settings.suites)}"),
        ("scored", f"T. stddev of {scored}"),
        ("pilots", f"{', '.join([*references(asked), *fixed_candidates(asked)])}, and the {DRAWN} of lowest T. stddev"),
        ("budget", shown_time(settings.budget_s)),
        ("output", f"{shown(folder)}{', which holds a recommendation that goes on' if goes_on else ''}"),
        *(("tried", line) for line in tried.lines),
        ("estimated", tried.estimate(settings)),
    ]


def print_result(found: Recommendation) -> None:
    """Print the tables and the conclusion of a recommendation."""
    from hard_ray.reports.recommendation import finished_rungs, gain_table, measured_by, pilot_table
    from hard_ray.runs.scores import MEASURES

    console.print()
    record = found.record
    what = MEASURES[measured_by(record)]
    for rung in reversed(finished_rungs(record)):
        entry = record["rungs"][rung]
        header, body = pilot_table(record, rung)
        print_table(console, f"{rung}: {entry['updates']:,} updates, {what} in %", header, body, bold=(0,))
    header, body = gain_table(record)
    if body:
        print_table(console, "the best candidate and plain KD, gain in points", header, body, bold=(len(body) - 1,))
    print_lines(result_lines(record, found))


def result_lines(record: dict[str, Any], found: Recommendation) -> list[str]:
    """Lines below the tables: what to take, when not to, what was left out, and the files."""
    from hard_ray.storage.mirror import shown_path

    conclusion = record["conclusion"]
    lines = [f"[bold]{escape(conclusion['sentences'][0])}[/bold]", *map(escape, conclusion["sentences"][1:])]
    lines += [f"[yellow]{escape(text)}[/yellow]" for text in conclusion["warnings"]]
    if record["skipped"]:
        lines.append(escape(f"left out for lack of time: {'; '.join(record['skipped'])}"))
    lines.append(f"page     {escape(str(found.page))}")
    lines.append(f"train    {escape(command_line('distill', '-c', shown_path(found.config)))}")
    return lines
