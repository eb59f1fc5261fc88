"""WebDataset: tar files of samples, indexed once so that any member can be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from hard_ray.config.data import WebDatasetData
from hard_ray.data.account import Tally
from hard_ray.data.index import FoundImages, SplitName
from hard_ray.data.labels import Labels
from hard_ray.data.readers import TarReader
from hard_ray.data.remote_folders import ShardFile
from hard_ray.data.sources.parts import Part, Spread, read_parts
from hard_ray.data.sources.samples import Sample, dots, read_samples
from hard_ray.data.sources.shards import find_shards, rows_of_splits
from hard_ray.data.sources.tar_headers import plain_samples
from hard_ray.data.split_names import refuse_mixed_splits, splits_said_by_all
from hard_ray.errors import DataError
from hard_ray.storage.cache import ObjectCache


def find_webdataset(config: WebDatasetData, spread: Spread, cache: ObjectCache) -> FoundImages:
    """Index the members of every shard; images stay in the files.

    Raises DataError if a sample has several images or no label, or a file is no whole uncompressed tar file.
    """
    shards = find_shards(config, ".tar", cache)
    keys = ("kind", "label_key", "label_field", "image_key")
    settings = {key: getattr(config, key) for key in keys}
    parts = read_parts(shards.files, partial(_read, config=config), settings, shards.account, spread)
    for part in parts:
        shards.account.items.add(part.tally)
    sizes = [len(part.labels) for part in parts]
    file_of_row = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)
    offset, size = (_joined(part.columns[name] for part in parts) for name in ("offset", "size"))
    reader = TarReader(shards.files, file_of_row, offset, size)
    if config.train_split is not False and not shards.splits:
        refuse_mixed_splits(_splits_of_names(parts), where=f"data.path {config.path}")
    splits = rows_of_splits(shards.splits, file_of_row)
    labels = Labels.joined([part.labels for part in parts])
    if config.label_key is not None:
        starts = _starts(sizes)
        without = _joined(start + part.columns["without"] for start, part in zip(starts, parts, strict=True))
        if len(without) and not np.array_equal(without, splits.get("test", ())):
            number = next(number for number, part in enumerate(parts) if len(part.columns["without"]))
            raise DataError(_unlabelled(config, shards.files[number], len(without), parts[number].facts["without"]))
    field = f", field {config.label_field!r} (data.label_field)" if config.label_field is not None else ""
    return FoundImages(
        reader,
        labels,
        str(config.path),
        splits=splits,
        shard=file_of_row,
        account=shards.account,
        label_from=f"member .{config.label_member} (data.label_key){field}",
        has_labels=config.label_key is not None,
    )


def _joined(columns: Iterable[Any]) -> Any:
    return np.concatenate([np.zeros(0, dtype=np.int64), *columns])


def _starts(sizes: list[int]) -> list[int]:
    """The first row of each shard."""
    return list(accumulate([0, *sizes]))[:-1]


def _splits_of_names(parts: list[Part]) -> set[SplitName]:
    """The splits that the names of all images say; none if one of them says no split."""
    said: list[set[SplitName]] = [set(part.facts["splits"]) for part in parts if len(part.labels)]
    return set().union(*said) if all(said) else set()


def _read(path: ShardFile, config: WebDatasetData) -> Part:
    """The samples of a shard."""
    plain = plain_samples(path, config)
    if plain is not None:
        columns = {"offset": plain.offset, "size": plain.size, "without": np.zeros(0, dtype=np.int64)}
        facts: dict[str, Any] = {
            "splits": sorted(splits_said_by_all(key.as_py() for key in plain.keys)),
            "without": None,
        }
        return Part(plain.labels, columns, facts, plain.tally)
    tally = Tally()
    samples = read_samples(path, config, tally)
    without = [number for number, sample in enumerate(samples) if sample.label is None]
    offset, size = ([getattr(sample.image, name) for sample in samples] for name in ("offset", "size"))
    columns = {
        name: np.array(values, dtype=np.int64)
        for name, values in (("offset", offset), ("size", size), ("without", without))
    }
    facts = {
        "splits": sorted(splits_said_by_all(sample.image.key for sample in samples)),
        "without": None if not without else _why_without(samples[without[0]], config),
    }
    return Part(Labels.of([sample.label for sample in samples]), columns, facts, tally)


def _why_without(first: Sample, config: WebDatasetData) -> dict[str, str]:
    """What a message says of the first sample without a label: its member, and what is there instead."""
    member = f"member {first.image.key!r}.{config.label_member}"
    return {"member": member, "instead": f"{first.why_none}{dots([first.image])}"}


def _unlabelled(config: WebDatasetData, path: ShardFile, count: int, first: Mapping[str, str]) -> str:
    """The message that images have no label, which only the whole test split may lack."""
    where = first["member"]
    if config.label_field is not None:
        where, key = f"field {config.label_field!r} in {where}", "data.label_field to the label's field"
    else:
        key = "data.label_key to the label's extension"
    otherwise = ", or data.label_key=null if no image has a label" if config.label_field is None else ""
    return f"{path}: {count:,} images have no {where}; set {key}{otherwise}: {first['instead']}"
