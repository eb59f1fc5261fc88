"""`hardray index`: makes the index of a data set beforehand, and prints what it found."""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import Data, Files, Overrides, Preset, load
from ..terminal import console, print_pairs, say


def index(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    data: Data = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster whose tasks read the shards; short for runtime.address=...")
    ] = None,
) -> None:
    """Index a data set once, so that later starts only compare the listing of its files.

    Prints splits and where they come from, classes and their images, sizes, and what was left out and why. The index is
    kept in HARDRAY_CACHE or the user's cache; a shard that changes later is indexed anew, it alone.
    """
    from hard_ray import api

    given = [*([f"runtime.address={address}"] if address else []), *(overrides or [])]
    console.print("[bold]hardray index[/bold]", highlight=False)
    print_pairs(api.index(load(config, preset, given, data=data), say=say))
