"""`hardray evaluate`: measures a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from ..options import Data, Files, Overrides, Preset, Teacher, listed, load, path_or_url
from ..terminal import console, say, usage_error

if TYPE_CHECKING:
    from hard_ray.config.run import RunConfig


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="A run's folder or URL, a folder in timm's layout, or a timm name."
        ),
    ],
    overrides: Overrides = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=FOLDER]",
            help="Suite to measure; may be repeated. Published sets take their folder: imagenet-c=FOLDER.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder or URL of the results; by default RUN/evaluation.", parser=path_or_url)
    ] = None,
    config: Files = None,
    preset: Preset = None,
    teacher: Teacher = None,
    data: Data = None,
    labelled: Annotated[
        str | None,
        typer.Option(
            metavar="KIND=PATH",
            help="Labelled images instead of the run's own, as image_folder=FOLDER: what a student that was trained "
            "without labels is worth, if its outputs are the classes.",
        ),
    ] = None,
    split: Annotated[Literal["train", "val", "test"] | None, typer.Option(help="Split to measure on.")] = None,
    images: Annotated[
        str, typer.Option(metavar="N|all", help="Images of the split that are changed and measured.")
    ] = "2000",
    severities: Annotated[str, typer.Option(help="Severities of the corruptions, for example 1,3,5.")] = "1,2,3,4,5",
    batch_size: Annotated[int, typer.Option(help="Images per batch of the networks.")] = 256,
    norm: Annotated[Literal["l2", "linf"] | None, typer.Option(help="Norm of the attack's ball.")] = None,
    eps: Annotated[float | None, typer.Option(help="Radius of the attack's ball.")] = None,
    step_size: Annotated[float | None, typer.Option(help="Length of a step of the attack.")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps of the attack.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The run's best student on val instead of its last.")] = False,
    no_teacher: Annotated[bool, typer.Option("--no-teacher", help="Measure the model alone.")] = False,
) -> None:
    """Measure how accurate, robust and well calibrated a model is.

    Its teacher, if there is one, is measured too. Suites that were measured before are not measured again.
    """
    from hard_ray import api
    from hard_ray.config.evaluation import read_suites
    from hard_ray.redaction import masked
    from hard_ray.storage.mirror import shown_path

    attack = {"norm": norm, "eps": eps, "step_size": step_size, "steps": steps}
    options: dict[str, Any] = {
        **(read_suites(suite) if suite else {}),
        "split": split,
        "images": None if images == "all" else (listed(images, "--images") or [None])[0],
        "severities": listed(severities, "--severities"),
        "attack": {name: value for name, value in attack.items() if value is not None},
        "batch_size": batch_size,
    }
    loaded = _config(config, preset, overrides, teacher=teacher, data=data)
    console.print(f"[bold]hardray evaluate[/bold] {escape(masked(model))}", highlight=False, soft_wrap=True)
    result = api.evaluate(
        model,
        output,
        config=loaded,
        overrides=overrides or [],
        options=options,
        best=best,
        labelled=labelled,
        with_teacher=not no_teacher,
        say=say,
    )
    console.print(result_table(result))
    say(f"results  {shown_path(Path(result['folder']))}")


def _config(
    files: list[Path] | None, preset: str | None, overrides: list[str] | None, *, teacher: str | None, data: Path | None
) -> RunConfig | None:
    """The given configuration; None: the run's own, with the overrides."""
    if files or preset or data is not None:
        return load(files, preset, overrides, teacher=teacher, data=data)
    if teacher is not None:
        raise usage_error("--teacher needs --data, --preset or -c; for a run folder give teacher.model=... instead")
    return None


def result_table(result: dict[str, Any]) -> Table:
    """A table with a row for each suite."""
    columns = _columns(result)
    table = Table(box=None, pad_edge=False, title=f"{result['split']} split, percent", title_justify="left")
    table.add_column("suite", style="bold", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for suite, *cells in zip(result["suites"], *columns.values(), strict=True):
        table.add_row(suite, *cells)
    return table


def _columns(result: dict[str, Any]) -> dict[str, list[str]]:
    """The cells of each column; without labels, what needs them has no column."""
    from hard_ray.runs.scores import measure_of

    suites, teacher = result["suites"], result["teacher"]
    images = {"images": [f"{found['n']:,}" for found in suites.values()]}
    if (measure := measure_of(suites)) != "top1":
        return {measure: [_percent(found[measure]) for found in suites.values()], **images}
    beside = {
        "teacher": [_percent(teacher[suite]["top1"] if suite in teacher else None) for suite in suites],
        "agreement": [_percent(found.get("agreement")) for found in suites.values()],
    }
    return {
        "top-1": [_percent(found["top1"]) for found in suites.values()],
        **(beside if teacher else {}),
        "ECE": [_percent(found["ece"]) for found in suites.values()],
        "mCE": [_mce(found) for found in suites.values()],
        **images,
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _mce(found: dict[str, Any]) -> str:
    if "mce" in found:
        return f"{found['mce']:.1f}"
    return f"{found['mce_vs_teacher']:.1f} of the teacher's" if "mce_vs_teacher" in found else "-"
