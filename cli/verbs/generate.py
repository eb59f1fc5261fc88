"""`hardray generate`: makes a set of adversarial images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from hard_ray.errors import command_line

from ..options import Data, Files, Overrides, Preset, Teacher, as_given, job_folder, load, path_or_url, shown
from ..terminal import print_heading, print_lines, say


def generate(
    output: Annotated[
        Path, typer.Option(help="Folder or URL of the set; an unfinished one is continued.", parser=path_or_url)
    ],
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    teacher: Teacher = None,
    data: Data = None,
    method: Annotated[Literal["dad"], typer.Option(help="Method of generation.")] = "dad",
    autoencoder: Annotated[
        str | None,
        typer.Option(help="Autoencoder that discretises the images: a folder or its URL, or hf-hub:org/name."),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None, typer.Option(help="Split whose images are attacked.")
    ] = None,
    shard_size: Annotated[int | None, typer.Option(help="Images per file.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images attacked together.")] = None,
    norm: Annotated[Literal["l2", "linf"] | None, typer.Option(help="Norm of the ball around an image.")] = None,
    eps: Annotated[float | None, typer.Option(help="Radius of the ball.")] = None,
    step_size: Annotated[float | None, typer.Option(help="Length of a step.")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of ascent steps.")] = None,
    random_start: Annotated[float | None, typer.Option(help="Probability of a random start within the ball.")] = None,
) -> None:
    """Make a set of adversarial images to train with.

    `data`, `teacher`, `runtime` and `seed` of the configuration are used. The defaults are the paper's.
    """
    from hard_ray import api

    given = {
        "method": method,
        "autoencoder": autoencoder,
        "split": split,
        "shard_size": shard_size,
        "batch_size": batch_size,
        "norm": norm,
        "eps": eps,
        "step_size": step_size,
        "steps": steps,
        "random_start": random_start,
    }
    options = {name: value for name, value in given.items() if value is not None}
    loaded = load(config, preset, overrides, teacher=teacher, data=data, trains=False)
    print_heading("generate", shown(output))
    manifest = api.generate(loaded, options, output, say=say)
    again = as_given(config, preset, overrides, teacher=teacher, data=data)
    print_lines(generation_lines(manifest, job_folder(output), again))


def generation_lines(manifest: dict[str, Any], folder: Path, given: Sequence[str]) -> list[str]:
    """Lines about a generated set, and the command that trains with it; `given` are the words of its configuration."""
    from hard_ray.config.layers import override
    from hard_ray.storage.mirror import shown_path

    settings, place = manifest["settings"], shown_path(folder)
    lines = [
        f"[bold]{manifest['images']:,} images[/bold] in {len(manifest['shards'])} shards",
        f"distance {manifest['distance']:.4f} on average before the second discretisation "
        f"({settings['norm']}, at most {settings['eps']:g})",
        *teacher_lines(manifest),
        f"set      {escape(place)}",
        f"picture  {escape(str(folder / 'gallery.png'))}",
    ]
    if manifest["bad_images"]:
        lines.append(
            f"left out {len(manifest['bad_images'])} unreadable images: {escape(str(folder / 'bad_images.txt'))}"
        )
    if manifest["split"] == "train":
        training = ["objective.kind=dad", "augmentor.kind=generated", override("augmentor.path", place)]
        lines.append(f"train    {escape(command_line('distill', *given, *training))}")
    return lines


def teacher_lines(manifest: dict[str, Any]) -> list[str]:
    """What the teacher answers at each stage: of images with labels how often it is right, of others what it keeps."""
    lines, top1, kept = [], manifest.get("top1"), manifest.get("agreement")
    if top1 is not None:
        lines.append(
            f"teacher  {top1['clean']:.1f} % right on clean images, {top1['reconstructed']:.1f} % on reconstructed "
            f"ones, {top1['generated']:.1f} % on generated ones"
        )
    if kept is not None:
        lines.append(
            "attacked the teacher's own answer, as the images have no labels; it keeps that answer on "
            f"{kept['reconstructed']:.1f} % of reconstructed images, {kept['generated']:.1f} % of generated ones"
        )
    return lines
