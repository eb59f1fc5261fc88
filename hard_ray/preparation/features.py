"""Features of a tower in the evaluation view, and the shards that they are stored in."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hard_ray.config.networks import NetworkConfig
from hard_ray.config.run import RunConfig
from hard_ray.data.checked_shard import ShardHeader, digest_of, shard_name
from hard_ray.data.feature_shard import Features, write_features
from hard_ray.data.index import ImageIndex, Rows, spread_places
from hard_ray.data.pictures import EvalPictures
from hard_ray.errors import DataError, ModelError
from hard_ray.networks.network import ImageSpec, Network
from hard_ray.networks.precision import Precision, to_array
from hard_ray.networks.towers import Tower, build_tower

FORMAT = 1
"""Format of the shards; shards of different formats do not belong together."""
SHARD_IMAGES = 1024
"""Images per file, each of which is made and verified as a whole."""
BATCH = 64
"""Images that go through the tower together; kernels round differently in batches of other sizes."""

TRIED = 4
"""Images that a dry run asks the tower about."""


class FrozenTower:
    """A tower on the GPU if there is one. It computes in float32, whatever precision teachers compute in."""

    def __init__(self, network: Network) -> None:
        self.precision = Precision(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.freeze().to(self.precision.device)

    @classmethod
    def build(cls, config: NetworkConfig, images: ImageSpec) -> FrozenTower:
        """Load a tower; raises ModelError if it cannot be used."""
        return cls(build_tower(config, images).network)

    def features(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Features of pixels of shape (batch, channels, height, width)."""
        with torch.inference_mode():
            found: np.ndarray[Any, np.dtype[np.float32]] = to_array(self.network(self.precision.images(pixels)).float())
        return found


def feature_settings(tower: Tower, index: ImageIndex, rows: Rows, view: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides the features: the tower, the images and their view."""
    digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes())
    for row in rows.tolist():  # a fingerprint of labels does not tell two folders without labels apart
        digest.update(f"{index.reader.name(row)}\n".encode())
    return {
        "format": FORMAT,
        "tower": tower.network.identity(),
        "images": digest.hexdigest(),
        "data_fingerprint": index.fingerprint(),
        "view": view,
        "batch_size": BATCH,
        "shard_images": SHARD_IMAGES,
    }


def make_shard(
    tower: FrozenTower, pictures: EvalPictures, number: int, span: range, *, settings: dict[str, Any], folder: Path
) -> ShardHeader:
    """Compute and write the shard with this number, of the images at the positions `span`."""
    bad: list[str] = []
    parts: list[Features] = []
    for start in range(span.start, span.stop, BATCH):
        columns = pictures(np.arange(start, min(start + BATCH, span.stop)))
        good = np.array([not name for name in columns["bad"]], dtype=bool)
        bad += [str(name) for name in columns["bad"][~good]]
        if good.any():
            parts.append(Features(columns["sample_id"][good], tower.features(columns["image"][good])))
    features = Features.joined(parts)
    header = ShardHeader(
        shard=number,
        first=span[0],
        last=span[-1],
        rows=len(features.sample_ids),
        settings=settings,
        digest=digest_of(settings),
        bad=tuple(bad),
    )
    return write_features(folder / shard_name(number), header, features)


def try_features(tower: Tower, config: RunConfig, index: ImageIndex) -> tuple[int, float]:
    """Read a few training images and ask the tower about them; returns their number, and the seconds for one.

    Raises DataError if none can be read, ModelError if the features are not finite.
    """
    rows = index.rows("train")
    columns = EvalPictures(index.reader, index.labels, config.data, rows)(spread_places(len(rows), TRIED))
    good = np.array([not name for name in columns["bad"]], dtype=bool)
    if not good.any():
        raise DataError(f"{columns['bad'][0]} cannot be read ({columns['why'][0]}), nor any other that was tried")
    frozen = FrozenTower(tower.network)
    frozen.features(columns["image"][good])  # the first call includes what is done once
    began = time.perf_counter()
    found = frozen.features(columns["image"][good])
    seconds = (time.perf_counter() - began) / len(found)
    if not np.isfinite(found).all():
        raise ModelError(
            f"teacher.model {tower.name} gives features that are not finite; want finite ones; give others"
        )
    return len(found), seconds
