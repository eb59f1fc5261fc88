"""Check a folder in timm's layout before timm reads it."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from hard_ray.errors import ModelError
from hard_ray.files import read_json
from hard_ray.networks.file_kinds import SUFFIXES, file_kind, folder_kind

PREFERRED = ("model.safetensors", "pytorch_model.bin")
"""The files that timm reads where they are there, in this order; otherwise it takes another file of weights."""
_WANTED = "want a folder in timm's layout: config.json with `architecture`, and model.safetensors"


def check_timm_folder(folder: Path, where: str) -> None:
    """Raise a ModelError, which says what is there and what to do, unless timm can read the folder that `where` is."""
    if not folder.is_dir():
        raise ModelError(f"{where} {folder}: there is no such folder; {_WANTED}; look at the path")
    config = folder / "config.json"
    if not config.is_file():
        kind = folder_kind(folder)
        raise ModelError(f"{where} {folder}: {kind.problem}, without config.json; {_WANTED}; {kind.remedy}")
    _check_config(config, where)
    files = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES]
    if not files:
        raise ModelError(f"{where} {folder}: holds no weights; {_WANTED}; put the weights beside config.json")
    preferred = [path for path in files if path.name in PREFERRED]
    for path in preferred[:1] or files:
        kind = file_kind(path)
        if kind.problem:
            raise ModelError(f"{where} {path}: {kind.problem}; {_WANTED}; {kind.remedy}")


def _check_config(path: Path, where: str) -> None:
    if path.read_bytes().startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ModelError(
            f"{where} {path}: begins with a byte-order mark, which timm does not read; {_WANTED}; save config.json as "
            "UTF-8 without one"
        )
    try:
        settings: Any = read_json(path)
    except (OSError, ValueError) as error:
        remedy = "copy it again, or write the folder again with timm.models.save_for_hf"
        raise ModelError(f"{where} {path}: cannot be read as JSON ({error}); {_WANTED}; {remedy}") from None
    if isinstance(settings, dict) and isinstance(settings.get("architecture"), str):
        return
    other = isinstance(settings, dict) and (settings.get("architectures") or settings.get("model_type"))
    found = f"is of another library ({other})" if other else "names no `architecture`"
    raise ModelError(
        f"{where} {path}: {found}; {_WANTED}; convert the weights with `hardray import-teacher`, or name another folder"
    )
