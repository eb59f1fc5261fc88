"""The data of `hardray doctor --data`: what is found in a folder or by a configuration, without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hard_ray.config.data import DataConfig

KINDS = {".tar": "webdataset", ".parquet": "parquet"}
"""The kind of data of a folder that holds files with a suffix, and no image."""


def data_lines(
    given: Path, files: list[Path] | None, preset: str | None, overrides: list[str] | None
) -> list[tuple[str, str]]:
    """The account of a folder, or of a configuration file's data; raises HardrayError if it cannot be used."""
    from hard_ray.config.data import describe
    from hard_ray.data.account_text import account_lines
    from hard_ray.data.sources.build import build_index

    config, note = _config(given, files, preset, overrides)
    return [("data", describe(config)), *([("note", note)] if note else []), *account_lines(build_index(config))]


def _config(
    given: Path, files: list[Path] | None, preset: str | None, overrides: list[str] | None
) -> tuple[DataConfig, str]:
    """The data's configuration; a folder alone is of the kind that its files have, which a note says."""
    from .options import load

    if given.suffix in (".yaml", ".yml") and not given.is_dir():
        return load([*(files or []), given], preset, overrides, trains=False).data, ""
    chosen = list(overrides or [])
    kind = _kind(given) if not (files or preset or any(each.startswith("data.kind=") for each in chosen)) else None
    note = "" if kind is None else f"data.kind is taken to be {kind}, from the names of the files; set it otherwise"
    return load(files, preset, [*([f"data.kind={kind}"] if kind else []), *chosen], data=given, trains=False).data, note


def _kind(folder: Path) -> str | None:
    """The kind that the files below a folder have; None: as it is by default, an image folder."""
    from hard_ray.config.places import address_or_path
    from hard_ray.data.account import Tally
    from hard_ray.data.listing import list_images
    from hard_ray.data.remote_folders import list_root

    tally = Tally()
    if list_images(list_root(address_or_path(folder)), tally):
        return None
    return next((kind for suffix, kind in KINDS.items() if suffix in tally.found), None)
