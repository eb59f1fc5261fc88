"""`hardray score-augmentations`: compares augmentations before a student is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from ..options import Data, Files, Overrides, Preset, Teacher, job_folder, load, path_or_url, shown
from ..terminal import console, print_heading, print_lines, say


def score_augmentations(
    output: Annotated[
        Path, typer.Option(help="Folder or URL of the scores; an unfinished one is continued.", parser=path_or_url)
    ],
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    teacher: Teacher = None,
    data: Data = None,
    augmentors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND,NAME=YAML,...",
            help="Augmentations, such as identity,cutmix,strong={kind: rand_augment, magnitude: 15}; by default all.",
        ),
    ] = None,
    groups: Annotated[int, typer.Option(help="Number of groups for the standard deviation.")] = 80,
    batch_size: Annotated[int, typer.Option(help="Images per batch; a group is 5 batches.")] = 64,
    per: Annotated[
        Literal["batch", "image"], typer.Option(help="Draw once per batch, as in the paper, or once per image.")
    ] = "batch",
    losses: Annotated[
        Path | None,
        typer.Option(
            help="JSON file, or its URL, of students' test losses by augmentation, to correlate with.",
            parser=path_or_url,
        ),
    ] = None,
) -> None:
    """Score augmentations for distillation, before a student is trained.

    Only the teacher is needed: the lower its T. stddev, the lower the loss of a student trained with the augmentation.
    `data`, `teacher`, `seed` and `runtime` of the configuration are used.
    """
    from hard_ray import api
    from hard_ray.config.scoring import read_augmentors

    named = None if augmentors is None else read_augmentors(augmentors)
    loaded = load(config, preset, overrides, teacher=teacher, data=data, trains=False)
    print_heading("score-augmentations", shown(output))
    result = api.score_augmentations(
        loaded, output, augmentors=named, groups=groups, batch_size=batch_size, per=per, losses=losses, say=say
    )
    console.print(score_table(result))
    print_lines(score_lines(result, job_folder(output)))


def score_table(result: dict[str, Any]) -> Table:
    """A table of augmentations, the lowest T. stddev first, that marks differences within noise."""
    table = Table(title="T. stddev, x 1000, with standard errors", title_justify="left", title_style="bold")
    table.add_column("augmentation", overflow="fold")
    table.add_column("T. stddev", justify="right")
    table.add_column("above the lowest", justify="right")
    table.add_column("")
    for rank, (name, score) in enumerate(result["scores"].items()):
        value, behind = (
            f"{1000 * score[key]:.3f} ± {1000 * score[error]:.3f}"
            for key, error in (("t_stddev", "standard_error"), ("behind", "behind_error"))
        )
        verdict = "within noise" if rank and score["is_tied"] else ""
        table.add_row(escape(name), value, behind if rank else "", verdict)
    return table


def score_lines(result: dict[str, Any], folder: Path) -> list[str]:
    """Lines below the table: how to read it, and where the files are."""
    images = 2 * result["iterations"] * result["batch_size"]
    lines = [
        f"over {result['groups']} groups of {images:,} images; lower is better. Within noise: at most two standard "
        "errors of the difference above the lowest, on the same batches"
    ]
    if "correlation" in result:
        lines.append(f"Pearson correlation with the test losses: {result['correlation']['pearson']:.3f}")
        lines.append(f"picture  {escape(str(folder / 'correlation.png'))}")
    return [*lines, f"picture  {escape(str(folder / 'scores.png'))}", f"scores   {escape(str(folder / 'scores.json'))}"]
