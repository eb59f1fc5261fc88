"""`hardray export`: exports a student."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..options import path_or_url
from ..terminal import print_lines

if TYPE_CHECKING:
    from hard_ray.export.student import Exported


def export(
    run: Annotated[
        Path, typer.Argument(help="A run folder or its URL, or a folder in timm's layout.", parser=path_or_url)
    ],
    to: Annotated[Path, typer.Option(help="Folder of the export: a new one, or an earlier export.")],
    best: Annotated[bool, typer.Option("--best", help="The run's best student on val instead of its last.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx too, checked with onnxruntime.")] = False,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Write model.pt2 too, checked.")] = False,
) -> None:
    """Export a student: weights and settings that timm loads, and a model card.

    ONNX and pt2 files take a batch of any size, of images in [0, 1], and normalise it themselves.
    """
    from hard_ray import api

    made = api.export(run, to, best=best, onnx=onnx, torch_export=torch_export)
    print_lines(export_lines(made))


def export_lines(made: Exported) -> list[str]:
    """Lines about an export: what was written, and how closely the files match the network."""
    from hard_ray.export.student_card import knows_labels

    saved = made.model
    weights = "best on the validation split" if saved.is_best else "after the last update"
    which = f"  {weights}" if saved.record else ""
    what = "classes" if knows_labels(saved) else "outputs, those of its teacher"
    answers = f"{len(saved.images.classes)} {what}" if saved.has_classes else "features, no classes"
    return [
        f"[bold]{escape(saved.network.architecture)}[/bold]  {answers}{which}",
        *(
            f"{check.file:<12} equals the network on {check.images} {check.source}: logits differ by at most "
            f"{check.max_difference:.1e}, and every image gets the same class"
            for check in made.checks
        ),
        f"folder       {escape(str(made.folder))}",
    ]
