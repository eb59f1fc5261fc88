"""WebDataset: tar files of samples, indexed once so that any member can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hard_ray.config.data import WebDatasetData
from hard_ray.data.index import FoundImages
from hard_ray.data.readers import TarReader
from hard_ray.data.sources.samples import Sample, dots, read_samples
from hard_ray.data.sources.shards import find_shards, rows_of_splits
from hard_ray.data.sources.tar_labels import Label
from hard_ray.data.split_names import refuse_splits_in
from hard_ray.errors import DataError


def find_webdataset(config: WebDatasetData) -> FoundImages:
    """Index the members of every shard; images stay in the files.

    Raises DataError if a sample has several images or no label, or a file is no whole uncompressed tar file.
    """
    shards = find_shards(config, ".tar")
    file, offset, size = [], [], []
    values: list[Label | None] = []
    unlabelled: dict[int, Sample] = {}
    keys: list[str] = []
    for number, path in enumerate(shards.files):
        for sample in read_samples(path, config, shards.account.items):
            if sample.label is None:
                unlabelled[len(values)] = sample
            file.append(number)
            offset.append(sample.image.offset)
            size.append(sample.image.size)
            values.append(sample.label)
            if not shards.splits:
                keys.append(sample.image.key)
    reader = TarReader(
        shards.files, np.array(file, dtype=np.int32), np.array(offset, dtype=np.int64), np.array(size, dtype=np.int64)
    )
    if config.train_split is not False:
        refuse_splits_in(keys, where=f"data.path {config.path}")
    splits = rows_of_splits(shards.splits, reader.file)
    if config.label_key is not None and unlabelled and list(unlabelled) != list(splits.get("test", ())):
        row = next(iter(unlabelled))
        raise DataError(_unlabelled(config, shards.files[file[row]], len(unlabelled), unlabelled[row]))
    field = f", field {config.label_field!r} (data.label_field)" if config.label_field is not None else ""
    return FoundImages(
        reader,
        values,
        str(config.path),
        splits=splits,
        shard=reader.file,
        account=shards.account,
        label_from=f"member .{config.label_member} (data.label_key){field}",
        has_labels=config.label_key is not None,
    )


def _unlabelled(config: WebDatasetData, path: Path, count: int, first: Sample) -> str:
    """The message that images have no label, which only the whole test split may lack."""
    where = f"member {first.image.key!r}.{config.label_member}"
    if config.label_field is not None:
        where, key = f"field {config.label_field!r} in {where}", "data.label_field to the label's field"
    else:
        key = "data.label_key to the label's extension"
    otherwise = ", or data.label_key=null if no image has a label" if config.label_field is None else ""
    return f"{path}: {count:,} images have no {where}; set {key}{otherwise}: {first.why_none}{dots([first.image])}"
