"""`hardray predict`: classifies images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..terminal import console, print_error

if TYPE_CHECKING:
    from hard_ray.export.predict import Prediction


def predict(
    model: Annotated[
        str, typer.Argument(help="A run folder or its URL, an export, a folder in timm's layout, or a timm name.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files, or folders of images.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes printed for each image.")] = 5,
    best: Annotated[bool, typer.Option("--best", help="The run's best student on val instead of its last.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each image, one per line.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 64,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; unset: OMP_NUM_THREADS, else one for each core.")
    ] = None,
) -> None:
    """Classify images with a model.

    An image that cannot be read is reported and skipped; the exit code is then 1.
    """
    from hard_ray import api

    unreadable = 0
    for found in api.predict(model, images, top=top, best=best, batch_size=batch_size, threads=threads):
        unreadable += found.problem is not None
        _print(found, as_json=as_json)
    if unreadable:
        raise typer.Exit(1)


def _print(found: Prediction, *, as_json: bool) -> None:
    if found.problem is not None:
        print_error(f"{found.image}: {found.problem}")
    if as_json:
        console.out(json.dumps(_facts(found), ensure_ascii=False), highlight=False)
    elif found.problem is None:
        console.print(escape(str(found.image)), style="bold", highlight=False, soft_wrap=True)
        for guess in found.top:
            console.print(f"  {100 * guess.probability:5.1f} %  {escape(guess.name)}", highlight=False, soft_wrap=True)


def _facts(found: Prediction) -> dict[str, object]:
    if found.problem is not None:
        return {"image": str(found.image), "error": found.problem}
    top = [{"class": each.name, "output": each.output, "probability": each.probability} for each in found.top]
    return {"image": str(found.image), "top": top}
