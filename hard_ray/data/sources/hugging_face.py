"""Data sets of Hugging Face, from the hub, its cache or a local folder."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from hard_ray.config.data import HuggingFaceData
from hard_ray.data.account import Account
from hard_ray.data.cells import check_label_type
from hard_ray.data.index import FoundImages, Rows
from hard_ray.data.labels import Labels
from hard_ray.data.readers import Picture, encoded, read_file, split_of
from hard_ray.data.split_names import choose_splits, kinds_in
from hard_ray.errors import DataError, readable

_ROWS_AT_A_TIME = 10_000


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
        if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            found = datasets.load_from_disk(str(local))
        else:
            found = datasets.load_dataset(str(local) if local.exists() else name)
    except Exception as error:  # the library's own errors, the hub's and fsspec's
        raise DataError(
            f"data.name {name}: {type(error).__name__}: {error}; want the name of a data set on the hub, or a folder "
            "that `datasets.load_dataset` accepts"
        ) from None
    if not isinstance(found, datasets.DatasetDict):
        found = datasets.DatasetDict({"train": found})
    for split, part in found.items():
        if column not in part.features:
            raise DataError(
                f"data.name {name}, split {split!r}: has no column {column!r}, but {', '.join(part.features)}; set "
                "data.image_column"
            )
    try:
        return found.cast_column(column, datasets.Image(decode=False)).with_format("arrow")
    except Exception as error:  # Arrow's errors, and those of features that have none of its types
        kind = next(iter(found.values())).features[column]
        raise DataError(
            f"data.name {name}: data.image_column {column!r} holds {kind} ({readable(error)}); want images, or their "
            "bytes; name another column"
        ) from None


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
    parts = {split: _part(found[name], name, config) for split, name in names.items()}
    _refuse_other_classes({names[split]: part.names for split, part in parts.items()}, config)
    starts = dict(zip(names, np.cumsum([0, *(len(found[name]) for name in names.values())]).tolist(), strict=False))
    kept = np.concatenate([starts[split] + part.rows for split, part in parts.items()])
    ends = np.cumsum([0, *(len(part.rows) for part in parts.values())])
    splits: dict[str, Rows] = {split: np.arange(ends[number], ends[number + 1]) for number, split in enumerate(parts)}
    _enter(account, found, {names[split]: part for split, part in parts.items()})
    is_pool = set(names) == {"train"} and len(found) == 1
    reader = HuggingFaceReader(
        config.name,
        config.image_column,
        tuple((name, starts[split]) for split, name in names.items()),
        None if len(kept) == sum(len(found[name]) for name in names.values()) else kept,
    )
    account.origins.update({split: f"split {name!r}" for split, name in names.items()} if not is_pool else {})
    return FoundImages(
        reader,
        Labels.joined([part.labels for part in parts.values()]),
        f"data.name {config.name}",
        parts["train"].names,
        {} if is_pool else splits,
        account=account,
        label_from=f"column {config.label_column!r} (data.label_column)",
        has_labels=config.label_column is not None,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """What the index needs of a split."""

    rows: NDArray[np.int64]
    """Those with an image."""
    labels: Labels
    """Of these rows."""
    names: tuple[str, ...] | None
    """Class names, where the labels are a feature that has them."""
    empty: str = ""
    """The first row without an image."""


def _part(part: Any, split: str, config: HuggingFaceData) -> _Part:
    """Read the labels of a split; raises DataError if a column holds something else than images or labels."""
    where, column = f"data.name {config.name}, split {split!r}", config.label_column
    if column is not None and column not in part.features:
        raise DataError(
            f"{where}: has no column {column!r}, but {', '.join(part.features)}; set data.label_column, or "
            "data.label_column=null if the images have no labels"
        )
    if column is not None:
        kind = part.features.arrow_schema.field(column).type
        check_label_type(kind, where=where, column=column, example=part[:1][column].to_pylist)
    rows = _rows_with_image(part, where, config)
    labels = Labels.none(len(part)) if column is None else Labels.of_arrow(part[column][:])
    missing = np.setdiff1d(np.arange(len(part)), rows)
    names = None if column is None else getattr(part.features[column], "names", None)
    return _Part(
        rows,
        labels.take(rows),
        tuple(names) if names else None,
        f"{where}, row {missing[0]}" if len(missing) else "",
    )


def _rows_with_image(part: Any, where: str, config: HuggingFaceData) -> NDArray[np.int64]:
    """The rows whose cell holds bytes or a path; raises DataError if the first path leads to no file that is read."""
    found, first_path, start = [], None, 0
    for batch in part.select_columns(config.image_column).iter(_ROWS_AT_A_TIME):
        for cells in batch.column(config.image_column).chunks:
            holds_bytes, holds_path = (pc.is_valid(pc.struct_field(cells, field)) for field in ("bytes", "path"))
            found.append(start + np.flatnonzero(pc.or_(holds_bytes, holds_path).to_numpy(zero_copy_only=False)))
            named = np.flatnonzero(pc.and_not(holds_path, holds_bytes).to_numpy(zero_copy_only=False))
            if first_path is None and len(named):
                first_path = start + int(named[0]), cells[int(named[0])]["path"].as_py()
            start += len(cells)
    if first_path is not None:
        row, path = first_path
        picture = _read_below(Path(path), hugging_face_folders(config.name))
        if isinstance(picture, OSError):
            raise DataError(
                f"{where}: data.image_column {config.image_column!r} holds a path without bytes in row {row}, "
                f"{path!r}, and it cannot be read: {picture}; embed the images (`Dataset.map` with their bytes), or "
                "put the files below the folder of data.name"
            )
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])


def _refuse_other_classes(names: Mapping[str, tuple[str, ...] | None], config: HuggingFaceData) -> None:
    """Refuse splits whose label numbers mean different classes."""
    known = {split: own for split, own in names.items() if own}
    for (first, one), (other, own) in pairwise(known.items()):
        if one != own:
            place, pair = next(found for found in enumerate(zip_longest(one, own)) if found[1][0] != found[1][1])
            raise DataError(
                f"data.name {config.name}: data.label_column {config.label_column!r} has the class {place} {pair[0]!r} "
                f"in split {first!r}, and {pair[1]!r} in split {other!r}; want the same classes in every split "
                "(`Dataset.cast_column` with one `ClassLabel`)"
            )


def _enter(account: Account, found: Any, parts: Mapping[str, _Part]) -> None:
    account.items.found["rows"] = sum(len(part) for part in found.values())
    account.items.used = sum(len(part.rows) for part in parts.values())
    for name, part in parts.items():
        if part.empty:
            account.items.leave_out("no image in the cell", part.empty, count=len(found[name]) - len(part.rows))


@dataclass(frozen=True, slots=True)
class HuggingFaceReader:
    """Reads rows of a Hugging Face data set; rows are numbered through all splits, one split after the other."""

    name_: str
    column: str
    splits: tuple[tuple[str, int], ...]
    """Each split's name and first row."""
    kept: NDArray[np.int64] | None = None
    """Where rows are left out: the place of each row among all of the splits."""

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The encoded bytes, from the cell or from the file that it names."""
        pictures: list[Picture] = []
        for place in self._places(rows):
            split, start = split_of(place, self.splits)
            cell = open_hugging_face(self.name_, self.column)[split][place - start][self.column][0].as_py()
            if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path"):
                pictures.append(_read_below(Path(cell["path"]), hugging_face_folders(self.name_)))
            else:
                pictures.append(encoded(cell))
        return pictures

    def name(self, row: int) -> str:
        """The data set, the split and the row in it."""
        (place,) = self._places([row])
        split, start = split_of(place, self.splits)
        return f"{self.name_}[{split}, row {place - start}]"

    def _places(self, rows: Sequence[int]) -> list[int]:
        """Places of rows among all of the splits."""
        return list(rows) if self.kept is None else self.kept[np.asarray(rows, dtype=np.int64)].tolist()


def _read_below(path: Path, folders: Sequence[Path]) -> Picture:
    """The bytes of a file that a row names; once links are resolved, it must be below one of the `folders`."""
    try:
        found = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # not a valid path, or a link to itself
        return OSError(readable(error))
    if not any(found.is_relative_to(folder) for folder in folders):
        return OSError(f"the row names {path}, which is not below {' or '.join(map(str, folders))}; copy it there")
    return read_file(found)
