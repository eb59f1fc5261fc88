"""What is done with a student once it is trained: taking it out of its run, and asking it about images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..options import api, console, errors, readable_errors

if TYPE_CHECKING:
    from hard_ray.exporting import Exported
    from hard_ray.predicting import Prediction


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or a folder in timm's layout.")],
    to: Annotated[Path, typer.Option("--to", help="Folder of the export: a new one, or an earlier export.")],
    best: Annotated[
        bool, typer.Option("--best", help="The best on the validation split, instead of the last.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx too, checked with onnxruntime.")] = False,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Write model.pt2 too, checked.")] = False,
) -> None:
    """Take a student out of its run: weights and settings that timm loads, and a model card.

    ONNX and pt2 files take images in [0, 1], of any batch, and normalise them by themselves.
    """
    with readable_errors():
        made = api().export(run, to, best=best, onnx=onnx, torch_export=torch_export)
        for line in export_lines(made):
            console.print(line, highlight=False, soft_wrap=True)


def export_lines(made: Exported) -> list[str]:
    """What was written, and how near the files came."""
    saved = made.model
    weights = "best on the validation split" if saved.is_best else "after the last update"
    which = f"  {weights}" if saved.record else ""
    return [
        f"[bold]{escape(saved.network.architecture)}[/bold]  {len(saved.images.classes)} classes{which}",
        *(
            f"{check.file:<12} equals the network on {check.images} {check.source}: logits differ by at most "
            f"{check.max_difference:.1e}, and every image gets the same class"
            for check in made.checks
        ),
        f"folder       {escape(str(made.folder))}",
    ]


def predict(
    model: Annotated[str, typer.Argument(help="A run folder, an export, a folder in timm's layout, or a timm name.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files, or folders of images.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Classes that are named for each image.")] = 5,
    best: Annotated[bool, typer.Option("--best", help="Of a run the best on the validation split.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each image, a line each.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images that are asked about together.")] = 64,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads; unset: OMP_NUM_THREADS, else one for each core.")
    ] = None,
) -> None:
    """Say what a model sees in images.

    An image that cannot be read is named, and the others are not kept waiting for it; the exit code is then 1.
    """
    with readable_errors():
        unreadable = 0
        for found in api().predict(model, images, top=top, best=best, batch_size=batch_size, threads=threads):
            unreadable += found.problem is not None
            _print(found, as_json=as_json)
        if unreadable:
            raise typer.Exit(1)


def _print(found: Prediction, *, as_json: bool) -> None:
    if found.problem is not None:
        message = f"[bold red]error:[/bold red] {escape(str(found.image))}: {escape(found.problem)}"
        errors.print(message, highlight=False, soft_wrap=True)
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
