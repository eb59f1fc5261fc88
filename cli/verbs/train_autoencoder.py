"""`hardray train-autoencoder`: a small autoencoder, trained on your images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from ..options import Data, Files, Overrides, Preset, job_folder, listed, load, path_or_url, shown
from ..terminal import print_heading, print_lines, say


def train_autoencoder(
    kind: Annotated[
        Literal["kl", "vq", "patch"],
        typer.Option(help="kl: continuous latents; vq: codes of a codebook; patch: components of patches, linear."),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder or URL of the autoencoder; an unfinished one is continued.", parser=path_or_url)
    ],
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    data: Data = None,
    steps: Annotated[int | None, typer.Option(help="Number of updates.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of AdamW.")] = None,
    widths: Annotated[
        str | None,
        typer.Option(help="Channels of each level, for example 16,32,32; n levels reduce the side by 2^(n-1)."),
    ] = None,
    latent_channels: Annotated[int | None, typer.Option(help="Channels of the latent.")] = None,
    factor: Annotated[int | None, typer.Option(help="Pixels along each side of a patch (patch).")] = None,
    codes: Annotated[int | None, typer.Option(help="Size of the codebook (vq, patch).")] = None,
    perceptual: Annotated[float | None, typer.Option(help="Weight of the distance of the teacher's features.")] = None,
) -> None:
    """Train a small autoencoder on your images.

    `data`, `seed` and `runtime` of the configuration are used, and `teacher` for `--perceptual`. diffusers can load kl
    and vq.
    """
    from hard_ray import api

    given = {
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "widths": listed(widths, "--widths"),
        "latent_channels": latent_channels,
        "factor": factor,
        "codes": codes,
        "perceptual": perceptual,
    }
    training = {"kind": kind, **{name: value for name, value in given.items() if value is not None}}
    loaded = load(config, preset, overrides, data=data, trains=False)
    print_heading("train-autoencoder", shown(output))
    result = api.train_autoencoder(loaded, training, output, say=say)
    print_lines(autoencoder_lines(result, job_folder(output)))


def autoencoder_lines(result: dict[str, Any], folder: Path) -> list[str]:
    """Lines about a trained autoencoder: its quality, and how to use it."""
    from hard_ray.config.layers import override
    from hard_ray.storage.mirror import shown_path

    use = override("augmentor.autoencoder.model", shown_path(folder))
    seconds = result["seconds"]["training"]
    return [
        f"[bold]{result['psnr']:.2f} dB[/bold] on {result['images']:,} validation images  "
        f"{result['parameters']:,} parameters, trained for {seconds:.0f} s",
        f"picture  {escape(str(folder / 'reconstructions.png'))}",
        f"use it   augmentor.kind=vae {escape(shlex.quote(use))}",
    ]
