"""WebDataset: tar files of samples, indexed once so that any member can be read."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import numpy as np

from hard_ray.config.data import WebDatasetData
from hard_ray.data.index import FoundImages
from hard_ray.data.layout import IMAGE_SUFFIXES
from hard_ray.data.readers import TarReader
from hard_ray.data.sources.shards import find_shards, rows_of_splits
from hard_ray.errors import DataError


def find_webdataset(config: WebDatasetData) -> FoundImages:
    """Index the members of every shard; images stay in the files."""
    shards = find_shards(config, ".tar")
    files = shards.files
    file, offset, size, values = [], [], [], []
    for number, path in enumerate(files):
        for member, label in _samples(path, config):
            file.append(number)
            offset.append(member.offset_data)
            size.append(member.size)
            values.append(label)
    reader = TarReader(
        files, np.array(file, dtype=np.int32), np.array(offset, dtype=np.int64), np.array(size, dtype=np.int64)
    )
    splits = rows_of_splits(shards.splits, reader.file)
    return FoundImages(reader, values, str(config.path), splits=splits, shard=reader.file, account=shards.account)


def _samples(path: Path, config: WebDatasetData) -> list[tuple[tarfile.TarInfo, int | str]]:
    """The image member and the label of each sample; the members that share a key are one sample."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int | str] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key, _, suffix = member.name.rpartition("/")[2].partition(".")
                key = f"{member.name.rpartition('/')[0]}/{key}"
                if not member.isfile():
                    continue
                if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                    images[key] = member
                elif suffix == config.label_key:
                    stream = archive.extractfile(member)
                    text = stream.read(1024).decode("utf-8", "replace").strip() if stream else ""
                    labels[key] = int(text) if re.fullmatch(r"-?\d{1,9}", text) else text
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: cannot be read as an uncompressed tar file ({error})") from None
    unlabelled = [key for key in images if key not in labels]
    if unlabelled:
        raise DataError(
            f"{path}: {len(unlabelled)} images have no member {unlabelled[0]!r}.{config.label_key}; "
            "set data.label_key to the label's extension"
        )
    return [(member, labels[key]) for key, member in images.items()]
