"""`hardray import-teacher`: makes a teacher from a checkpoint of another layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hard_ray.errors import command_line

from ..options import listed
from ..terminal import print_lines

if TYPE_CHECKING:
    from hard_ray.preparation.import_teacher import ImportedTeacher


def import_teacher(
    checkpoint: Annotated[Path, typer.Argument(help="Weights: a safetensors or torch file.")],
    model: Annotated[str, typer.Option(help="The architecture: a timm name, or one of hardray's.")],
    output: Annotated[Path, typer.Option(help="New folder for the teacher.")],
    classes: Annotated[
        Path | None, typer.Option(help="Text file: class names in the order of the outputs, one per line.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Mean per channel of images in [0, 1]: 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel: 0.229,0.224,0.225.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Input size in pixels.")] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Regular expression and its replacement, in every key.")
    ] = None,
) -> None:
    """Make a teacher from a checkpoint that is not timm's.

    Torch files are read without unpickling objects. Keys and shapes that do not fit the architecture are listed.
    """
    from hard_ray import api

    made = api.import_teacher(
        checkpoint,
        output,
        model=model,
        classes=classes,
        mean=listed(mean, "--mean"),
        std=listed(std, "--std"),
        img_size=img_size,
        renames=rename or (),
    )
    print_lines(teacher_lines(made, output))


def teacher_lines(made: ImportedTeacher, folder: Path) -> list[str]:
    """Lines about an imported teacher, and the commands that use it."""
    network, images = made.network, made.images
    from hard_ray.config.layers import override

    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    name = network.architecture
    data = ["--data", "YOUR_IMAGES", f"data.img_size={images.img_size}"]
    data += ["data.in_chans=1"] if images.in_chans == 1 else []
    distill = ["distill", *data, override("teacher.model", name)]
    own, student = override("teacher.checkpoint", folder), "student.model=STUDENT"
    fine_tune = command_line("train-teacher", *data, "--model", name, own, "--output", "runs/teacher")
    tuned = command_line(*distill, "teacher.checkpoint=runs/teacher/student", student)
    return [
        f"[bold]{escape(name)}[/bold]  {parameters:,} parameters  {len(images.classes)} classes  "
        f"mean {_numbers(network.contract.mean)}  std {_numbers(network.contract.std)}",
        f"folder   {escape(str(folder))}",
        *_names_line(made),
        *(f"weights  {escape(note)}" for note in made.notes),
        "",
        "fine-tune it on your images first:",
        f"  {escape(fine_tune)}",
        "then distill from it:",
        f"  {escape(tuned)}",
        "or distill from it as it is:",
        f"  {escape(command_line(*distill, own, student))}",
    ]


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _names_line(made: ImportedTeacher) -> list[str]:
    if made.names is not None:
        return [f"classes  {escape(', '.join(made.names[:10]))}{', ...' if len(made.names) > 10 else ''}"]
    return [
        "[yellow]classes  without names: its outputs are assumed to be in the order of your classes; give "
        "--classes to check that[/yellow]"
    ]
