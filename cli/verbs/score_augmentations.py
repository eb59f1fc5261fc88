"""`hardray score-augmentations`: augmentations, compared before a student is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from ..options import (
    Data,
    Files,
    Overrides,
    Preset,
    Teacher,
    load,
)
from ..terminal import console, readable_errors, say


def score_augmentations(
    output: Annotated[Path, typer.Option("--output", help="Folder of the scores; an unfinished one goes on.")],
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    teacher: Teacher = None,
    data: Data = None,
    augmentors: Annotated[
        list[str] | None,
        typer.Option(
            "--augmentors",
            metavar="KIND,NAME=YAML,...",
            help="What is scored, such as identity,cutmix,strong={kind: rand_augment, magnitude: 15}; by default all.",
        ),
    ] = None,
    groups: Annotated[int, typer.Option("--groups", help="Groups that the standard deviation is taken over.")] = 80,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images per batch; a group is 5 batches.")] = 64,
    per: Annotated[
        Literal["batch", "image"], typer.Option("--per", help="Draw once for a batch, as the paper, or for each image.")
    ] = "batch",
    losses: Annotated[
        Path | None, typer.Option("--losses", help="JSON file of students' test losses by name, to correlate.")
    ] = None,
) -> None:
    """Score augmentations for distillation, before a student is trained.

    By the teacher alone: the lower its T. stddev, the lower the loss of a student that learns from the augmentation.
    Of the configuration, `data`, `teacher`, `seed` and `runtime` are used.
    """
    from hard_ray import api
    from hard_ray.config.scoring import read_augmentors

    with readable_errors():
        named = None if augmentors is None else read_augmentors(augmentors)
        loaded = load(config, preset, overrides, teacher=teacher, data=data)
        console.print(f"[bold]hardray score-augmentations[/bold] -> {escape(str(output))}", highlight=False)
        result = api.score_augmentations(
            loaded, output, augmentors=named, groups=groups, batch_size=batch_size, per=per, losses=losses, say=say
        )
        console.print(score_table(result))
        for line in score_lines(result, output):
            console.print(line, highlight=False, soft_wrap=True)


def score_table(result: dict[str, Any]) -> Table:
    """Augmentations by T. stddev, the lowest first, and which differences from it are noise."""
    table = Table(title="T. stddev, x 1000, with standard errors", title_justify="left", title_style="bold")
    table.add_column("augmentation")
    table.add_column("T. stddev", justify="right")
    table.add_column("above the lowest", justify="right")
    table.add_column("")
    for place, (name, score) in enumerate(result["scores"].items()):
        value, behind = (
            f"{1000 * score[key]:.3f} ± {1000 * score[error]:.3f}"
            for key, error in (("t_stddev", "standard_error"), ("behind", "behind_error"))
        )
        verdict = "within noise" if place and score["is_tied"] else ""
        table.add_row(escape(name), value, behind if place else "", verdict)
    return table


def score_lines(result: dict[str, Any], folder: Path) -> list[str]:
    """What stands in the table, and where it is."""
    images = 2 * result["iterations"] * result["batch_size"]
    lines = [
        f"over {result['groups']} groups of {images:,} images; the lower, the better to learn from. Within noise: no "
        "further from the lowest than two standard errors of the difference, on the same batches"
    ]
    if "correlation" in result:
        lines.append(f"Pearson correlation with the test losses: {result['correlation']['pearson']:.3f}")
        lines.append(f"picture  {escape(str(folder / 'correlation.png'))}")
    return [*lines, f"picture  {escape(str(folder / 'scores.png'))}", f"scores   {escape(str(folder / 'scores.json'))}"]
