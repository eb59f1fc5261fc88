"""`hardray probe`: what a model's features are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..options import Data, Files, Overrides, Preset, listed, load, path_or_url
from ..terminal import console, print_lines, say


def probe(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="A run's folder or URL, a folder in timm's layout, or a timm name."
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder or URL of features and results; by default RUN/probe or runs/probe-MODEL.", parser=path_or_url
        ),
    ] = None,
    config: Files = None,
    preset: Preset = None,
    data: Data = None,
    k: Annotated[int | None, typer.Option(help="Neighbours that vote; 20 unless set.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Temperature of the votes; 0.07 unless set.")] = None,
    c: Annotated[
        str | None, typer.Option("--c", help="Values of scikit-learn's C that are tried, as 0.01,1,100.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Most images of a split; unset: all.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The run's best student on val instead of its last.")] = False,
) -> None:
    """Measure a model's features on labelled images.

    The training split's features answer for those of the other splits by k nearest neighbours and by a linear probe.
    The model's own class head is not used, so that students without labels and foundation models can be compared.
    """
    from hard_ray import api
    from hard_ray.redaction import masked

    given = {"k": k, "temperature": temperature, "c": listed(c, "--c"), "images": images}
    options = {name: value for name, value in given.items() if value is not None}
    has_own = bool(config or preset or data is not None)
    loaded = load(config, preset, overrides, teacher=None, data=data, trains=False) if has_own else None
    console.print(f"[bold]hardray probe[/bold] {escape(masked(model))}", highlight=False, soft_wrap=True)
    result = api.probe(model, output, config=loaded, overrides=overrides or [], options=options, best=best, say=say)
    print_lines(probe_lines(result))


def probe_lines(result: dict[str, Any]) -> list[str]:
    """Lines about a probe."""
    from hard_ray.storage.mirror import shown_path

    images, top1 = result["images"], result["top1"]
    lines = [f"[bold]{result['features']:,} features[/bold]  {images['train']:,} training images"]
    for split in top1["knn"]:
        lines.append(
            f"{split:<8} k-NN {top1['knn'][split]:.2f} %  linear {top1['linear'][split]:.2f} %  "
            f"({images[split]:,} images; k {result['knn']['k']}, C {result['linear']['c']:g})"
        )
    lines += [f"note     {escape(note)}" for note in result["notes"]]
    lines.append(f"results  {escape(shown_path(Path(result['folder'])))}")
    return lines
