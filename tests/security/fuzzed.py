"""Every file that hardray reads, as an intact one and a function that reads whatever is put in its place."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from hard_ray.config.loader import load_config, validate
from hard_ray.config.safe_yaml import dump_yaml, parse_yaml
from hard_ray.data.generated_set import open_generated
from hard_ray.data.sources.build import build_index
from hard_ray.data.sources.idx import read_idx
from hard_ray.data.views import UnreadableImageError, decode
from hard_ray.distillation.checkpoints import STATE_FILE, CheckpointStore, Counters, Weights
from hard_ray.errors import HardrayError
from hard_ray.networks.checkpoint import read_checkpoint

Read = Callable[[bytes], None]
"""Reads bytes, or raises one of `REFUSALS`."""
REFUSALS = (HardrayError, UnreadableImageError)
Target = Callable[[Path], tuple[bytes, Read]]
"""Makes, in an empty folder, an intact file's bytes and what reads others."""


def config_text(_: Path) -> tuple[bytes, Read]:
    def read(data: bytes) -> None:
        layer = parse_yaml(data.decode("utf-8", "replace"), "mine.yaml")
        if isinstance(layer, dict):
            validate([layer], source="mine.yaml")

    return dump_yaml(load_config(preset="digits")).encode(), read


def picture_bytes(kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert("P" if kind == "GIF" else "RGB").save(stream, kind)
    return stream.getvalue()


def picture(kind: str, _: Path) -> tuple[bytes, Read]:
    def read(data: bytes) -> None:
        assert decode(data, in_chans=3).mode == "RGB"

    return picture_bytes(kind), read


def idx(folder: Path) -> tuple[bytes, Read]:
    head = b"\0\0\x08\x03" + b"".join(length.to_bytes(4, "big") for length in (3, 4, 4))
    return head + bytes(48), partial(read_idx_file, folder / "images-idx3-ubyte")


def packed_idx(folder: Path) -> tuple[bytes, Read]:
    """The compressed file, damaged."""
    return gzip.compress(idx(folder)[0]), partial(read_idx_file, folder / "images-idx3-ubyte.gz")


def idx_packed_afterwards(folder: Path) -> tuple[bytes, Read]:
    """A damaged file, compressed."""
    intact, read = packed_idx(folder)
    return gzip.decompress(intact), lambda data: read(gzip.compress(data))


def read_idx_file(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert read_idx(path).dtype == np.uint8


def parquet_bytes(labels: list) -> bytes:
    stream = io.BytesIO()
    table = pa.table({"image": [{"bytes": picture_bytes("PNG"), "path": "a"}] * 30, "label": labels * 10})
    pq.write_table(table, stream)
    return stream.getvalue()


def tar_bytes() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number in range(12):
            for suffix, data in (("png", picture_bytes("PNG")), ("cls", str(number % 3).encode())):
                info = tarfile.TarInfo(f"{number:03d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def shard(kind: str, intact: bytes, folder: Path) -> tuple[bytes, Read]:
    path = folder / "train" / {"parquet": "0.parquet", "webdataset": "0.tar"}[kind]
    path.parent.mkdir()
    config = load_config(overrides=[f"data.kind={kind}", f"data.path={folder}", "data.img_size=16"])

    def read(data: bytes) -> None:
        path.write_bytes(data)
        index = build_index(config.data)
        unreadable = None
        for row in index.reader.read(list(range(min(5, len(index.labels))))):
            try:
                decode(row, in_chans=3)
            except UnreadableImageError as error:
                unreadable = error
        if unreadable is not None:
            raise unreadable

    return intact, read


def generated_shard(folder: Path) -> tuple[bytes, Read]:
    index = build_index(load_config(preset="digits").data)
    manifest = {"complete": True, "data_fingerprint": index.fingerprint(), "shards": [{"file": "shard-0.parquet"}]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    path = folder / "shard-0.parquet"
    images = [{"bytes": picture_bytes("PNG"), "path": None}] * 3
    pq.write_table(pa.table({"sample_id": ["3", "0", "7"], "image": images}), path)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        assert 1 <= (open_generated(folder, index).place >= 0).sum() <= 3

    return path.read_bytes(), read


def weights(suffix: str, folder: Path) -> tuple[bytes, Read]:
    path, network = folder / f"w.{suffix}", nn.Linear(3, 2).state_dict()
    stream = io.BytesIO()
    torch.save(network, stream)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        assert all(isinstance(value, torch.Tensor) for value in read_checkpoint(path).weights.values())

    return save(network) if suffix == "safetensors" else stream.getvalue(), read


def checkpoint(name: str, folder: Path) -> tuple[bytes, Read]:
    """One file of a checkpoint, whose digest is right; the others are intact."""
    module = nn.Linear(3, 2)
    parts = Weights({"student": module}, {"student": torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)})
    store = CheckpointStore(folder)
    path = store.save(parts, Counters(step=5, student_steps=5))
    state = json.loads((path / STATE_FILE).read_text())

    def read(data: bytes) -> None:
        if name != STATE_FILE:
            digests = {**state["sha256"], name: hashlib.sha256(data).hexdigest()}
            (path / STATE_FILE).write_text(json.dumps({**state, "sha256": digests}))
        (path / name).write_bytes(data)
        assert store.restore(parts, say=lambda _: None) is not None

    return (path / name).read_bytes(), read


TARGETS: dict[str, Target] = {
    "config": config_text,
    **{f"picture-{kind.lower()}": partial(picture, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")},
    "idx": idx,
    "idx-packed": packed_idx,
    "idx-packed-afterwards": idx_packed_afterwards,
    "parquet-numbers": partial(shard, "parquet", parquet_bytes([0, 1, 2])),
    "parquet-names": partial(shard, "parquet", parquet_bytes(["ant", "bee", "cat"])),
    "webdataset": partial(shard, "webdataset", tar_bytes()),
    "generated": generated_shard,
    "weights-pt": partial(weights, "pt"),
    "weights-safetensors": partial(weights, "safetensors"),
    **{
        f"checkpoint-{name}": partial(checkpoint, name) for name in ("student.safetensors", "optimizers.pt", STATE_FILE)
    },
}
