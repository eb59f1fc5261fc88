"""Data sets of Hugging Face, from the hub, its cache or a local folder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hard_ray.config.data import HuggingFaceData
from hard_ray.data.account import Account
from hard_ray.data.index import FoundImages, Rows
from hard_ray.data.readers import Picture, encoded, read_file, split_of
from hard_ray.data.split_names import choose_splits, kinds_in
from hard_ray.errors import DataError, readable


@functools.lru_cache(maxsize=4)
def open_hugging_face(name: str, column: str) -> Any:
    """All splits of a Hugging Face data set as Arrow tables, so that `datasets` decodes no column."""
    try:
        import datasets
    except ImportError:
        raise DataError(
            "data.kind huggingface needs the `datasets` package: pip install '.[huggingface]' in a clone of hardray"
        ) from None
    local = Path(name).expanduser()
    try:
        if (local / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(local))
        else:
            found = datasets.load_dataset(str(local) if local.exists() else name)
    except Exception as error:  # the library's own errors, the hub's and fsspec's
        raise DataError(f"data.name {name}: {type(error).__name__}: {error}") from None
    first = next(iter(found.values()))
    if column not in first.features:
        raise DataError(
            f"data.name {name}: has no column {column!r}, but {', '.join(first.features)}; set data.image_column"
        )
    return found.cast_column(column, datasets.Image(decode=False)).with_format("arrow")


@functools.lru_cache(maxsize=4)
def hugging_face_folders(name: str) -> tuple[Path, ...]:
    """Folders that may hold a data set's images: its own, and those that `datasets` downloads to."""
    from datasets.config import DOWNLOADED_DATASETS_PATH, HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    local = Path(name).expanduser()
    caches = (HF_DATASETS_CACHE, DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return tuple(Path(folder).resolve() for folder in ([local] if local.exists() else []) + [*caches])


def find_hugging_face(config: HuggingFaceData) -> FoundImages:
    """Take the splits as they are; a training split alone is a pool of images."""
    found = open_hugging_face(config.name, config.image_column)
    kinds = {name: next(iter(said)) if len(said := kinds_in(name)) == 1 else None for name in sorted(found)}
    choice = choose_splits(config, kinds, where=f"data.name {config.name}")
    if not choice.splits and len(found) > 1:
        raise DataError(
            f"data.name {config.name}: data.train_split {config.train_split!r} is not among "
            f"{', '.join(sorted(found))}; set it to one of them"
        )
    names = choice.splits or {"train": next(iter(found))}
    account = Account(notes=list(choice.notes))
    for name, reason in choice.unused.items():
        account.items.leave_out(reason, name, count=len(found[name]))
    values: list[Any] = []
    splits: dict[str, Rows] = {}
    starts = []
    for split, name in names.items():
        if config.label_column not in found[name].features:
            raise DataError(
                f"data.name {config.name}: has no column {config.label_column!r}, but "
                f"{', '.join(found[name].features)}; set data.label_column"
            )
        starts.append((name, len(values)))
        splits[split] = np.arange(len(values), len(values) + len(found[name]))
        values += found[name][config.label_column][:].to_pylist()
    feature = found[names["train"]].features[config.label_column]
    is_pool = set(names) == {"train"} and len(found) == 1
    reader = HuggingFaceReader(config.name, config.image_column, tuple(starts))
    class_names = getattr(feature, "names", None)
    account.items.found["rows"] = sum(len(part) for part in found.values())
    account.items.used = len(values)
    account.origins.update({split: f"split {name!r}" for split, name in names.items()} if not is_pool else {})
    return FoundImages(
        reader,
        values,
        f"data.name {config.name}",
        class_names,
        {} if is_pool else splits,
        account=account,
        label_from=f"column {config.label_column!r} (data.label_column)",
    )


@dataclass(frozen=True, slots=True)
class HuggingFaceReader:
    """Reads rows of a Hugging Face data set; rows are numbered through all splits, one split after the other."""

    name_: str
    column: str
    splits: tuple[tuple[str, int], ...]
    """Each split's name and first row."""

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The encoded bytes, from the cell or from the file that it names."""
        pictures: list[Picture] = []
        for row in rows:
            split, start = split_of(row, self.splits)
            cell = open_hugging_face(self.name_, self.column)[split][int(row - start)][self.column][0].as_py()
            if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path"):
                pictures.append(_read_below(Path(cell["path"]), hugging_face_folders(self.name_)))
            else:
                pictures.append(encoded(cell))
        return pictures

    def name(self, row: int) -> str:
        """The data set and the row."""
        return f"{self.name_}[{row}]"


def _read_below(path: Path, folders: Sequence[Path]) -> Picture:
    """The bytes of a file that a row names; once links are resolved, it must be below one of the `folders`."""
    try:
        found = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # not a valid path, or a link to itself
        return OSError(readable(error))
    if not any(found.is_relative_to(folder) for folder in folders):
        return OSError(f"the row names {path}, which is not below {' or '.join(map(str, folders))}; copy it there")
    return read_file(found)
