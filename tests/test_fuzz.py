"""Whatever stands in a file, it is read or refused with a message: HARDRAY_FUZZ_CASES=10000 for the long run."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from hard_ray.config.loader import dump_yaml, known_keys, load_config, parse_yaml, validate
from hard_ray.config.run import RunConfig
from hard_ray.data.generated import open_generated
from hard_ray.data.idx import read_idx
from hard_ray.data.sources import build_index
from hard_ray.data.views import UnreadableImageError, decode
from hard_ray.errors import ConfigError, DataError, HardrayError, ModelError, RunFolderError
from hard_ray.networks.checkpoints import read_weights
from hard_ray.state import CheckpointStore, Progress, Weights

CASES = int(os.environ.get("HARDRAY_FUZZ_CASES", "100"))
fuzz = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=CASES <= 100)
pytestmark = pytest.mark.timeout(3000)

KEYS = sorted(known_keys(RunConfig))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["kd", "hard", "affine"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some changed, cut off or doubled."""

    def change(edits: list[tuple[int, int]], cut: int, tail: bytes) -> bytes:
        found = bytearray(data)
        for place, value in edits:
            found[place % len(found)] = value
        return bytes(found[: cut % (len(found) + 1)] if cut else found) + tail

    edits = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=12)
    return st.builds(change, edits, st.one_of(st.just(0), st.integers(0, 2**20)), st.binary(max_size=20))


@fuzz
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_any_value_at_any_key_is_taken_or_refused(values: dict):
    overrides = [f"{key}={value if isinstance(value, str) else dump(value)}" for key, value in values.items()]
    with suppress(ConfigError):
        config = load_config(preset="digits", overrides=overrides)
        assert validate([parse_yaml(dump_yaml(config), "again")], source="again") == config


def dump(value: object) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10_000).replace("\n...\n", "").strip()


MUTATED_CONFIG = mutated(dump_yaml(load_config(preset="digits")).encode()).map(
    lambda data: data.decode("utf-8", "replace")
)


@fuzz
@given(st.one_of(st.text(max_size=200), MUTATED_CONFIG))
def test_any_text_is_a_configuration_or_refused(text: str):
    with suppress(ConfigError):
        layer = parse_yaml(text, "mine.yaml")
        if isinstance(layer, dict):
            validate([layer], source="mine.yaml")


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert("P" if kind == "GIF" else "RGB").save(stream, kind)
    return stream.getvalue()


PICTURES = {kind: picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}


@fuzz
@given(st.one_of(st.binary(max_size=64), *map(mutated, PICTURES.values())))
def test_any_bytes_are_a_picture_or_unreadable(data: bytes):
    with suppress(UnreadableImageError):
        assert decode(data, in_chans=3).mode == "RGB"


def idx_bytes(shape: tuple[int, ...]) -> bytes:
    head = b"\0\0\x08" + bytes([len(shape)]) + b"".join(length.to_bytes(4, "big") for length in shape)
    return head + bytes(int(np.prod(shape)))


@fuzz
@given(mutated(idx_bytes((3, 4, 4))), st.booleans(), st.booleans())
def test_any_idx_file_is_read_or_refused(tmp_path_factory, data: bytes, packed: bool, broken: bool):
    path = tmp_path_factory.getbasetemp() / f"fuzz-idx{'.gz' if packed or broken else ''}"
    path.write_bytes(gzip.compress(data) if packed and not broken else data)
    with suppress(DataError):
        assert read_idx(path).dtype == np.uint8


def parquet_bytes(labels: list) -> bytes:
    stream = io.BytesIO()
    table = pa.table({"image": [{"bytes": PICTURES["PNG"], "path": "a"}] * 30, "label": labels * 10})
    pq.write_table(table, stream)
    return stream.getvalue()


def tar_bytes() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number in range(12):
            for suffix, data in (("png", PICTURES["PNG"]), ("cls", str(number % 3).encode())):
                info = tarfile.TarInfo(f"{number:03d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


SHARDS = {
    "numbers": ("parquet", ".parquet", parquet_bytes([0, 1, 2])),
    "names": ("parquet", ".parquet", parquet_bytes(["ant", "bee", "cat"])),
    "tar": ("webdataset", ".tar", tar_bytes()),
}


@pytest.mark.parametrize("shards", list(SHARDS))
def test_any_shard_is_read_or_refused(tmp_path: Path, shards: str):
    kind, suffix, intact = SHARDS[shards]
    shard = tmp_path / "train" / f"0{suffix}"
    shard.parent.mkdir()

    @fuzz
    @given(mutated(intact))
    def check(data: bytes) -> None:
        shard.write_bytes(data)
        with suppress(HardrayError):
            config = load_config(overrides=[f"data.kind={kind}", f"data.path={tmp_path}", "data.img_size=16"])
            index = build_index(config.data)
            for picture in index.reader.read(list(range(min(5, len(index.labels))))):
                with suppress(UnreadableImageError):
                    decode(picture, in_chans=3)

    check()


def test_a_column_whose_name_is_no_text_is_a_damaged_parquet_file(tmp_path: Path):
    (tmp_path / "train").mkdir()
    named = pa.table({"image": [b""], "label": [0], "marker": [0]})
    pq.write_table(named, tmp_path / "train" / "0.parquet")
    written = (tmp_path / "train" / "0.parquet").read_bytes()
    (tmp_path / "train" / "0.parquet").write_bytes(written.replace(b"marker", b"\x80arker"))
    config = load_config(overrides=["data.kind=parquet", f"data.path={tmp_path}", "data.img_size=16"])
    with pytest.raises(HardrayError, match=r"0\.parquet"):
        build_index(config.data)


def test_any_generated_set_is_opened_or_refused(tmp_path: Path):
    index = build_index(load_config(preset="digits").data)
    manifest = {"complete": True, "data_fingerprint": index.fingerprint(), "shards": [{"file": "shard-0.parquet"}]}
    ids, images = pa.array(["3", "0", "7"]), [{"bytes": PICTURES["PNG"], "path": None}] * 3
    pq.write_table(pa.table({"sample_id": ids, "image": images}), tmp_path / "shard-0.parquet")
    intact = (tmp_path / "shard-0.parquet").read_bytes()

    @fuzz
    @given(mutated(intact), st.dictionaries(st.sampled_from(sorted(manifest)), VALUES, max_size=1))
    def check(data: bytes, told: dict) -> None:
        (tmp_path / "shard-0.parquet").write_bytes(intact if told else data)
        (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **told}))
        with suppress(HardrayError):
            assert (open_generated(tmp_path, index).place >= 0).sum() <= 3

    check()


def test_any_weights_are_read_or_refused(tmp_path: Path):
    from safetensors.torch import save

    stream = io.BytesIO()
    torch.save(nn.Linear(3, 2).state_dict(), stream)
    torch_file, safe_file = stream.getvalue(), save(nn.Linear(3, 2).state_dict())

    @fuzz
    @given(
        st.one_of(mutated(torch_file).map(lambda b: ("pt", b)), mutated(safe_file).map(lambda b: ("safetensors", b)))
    )
    def check(case: tuple[str, bytes]) -> None:
        path = tmp_path / f"w.{case[0]}"
        path.write_bytes(case[1])
        with suppress(ModelError):
            assert all(isinstance(value, torch.Tensor) for value in read_weights(path).values())

    check()


def test_any_checkpoint_is_used_or_passed_over(tmp_path: Path):
    module = nn.Linear(3, 2)
    weights = Weights({"student": module}, {"student": torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)})
    store = CheckpointStore(tmp_path)
    path = store.save(weights, Progress(step=5, student_steps=5))
    files = {file.name: file.read_bytes() for file in path.iterdir()}

    @fuzz
    @given(st.sampled_from(sorted(files)).flatmap(lambda name: mutated(files[name]).map(lambda data: (name, data))))
    def check(case: tuple[str, bytes]) -> None:
        for name, data in files.items():
            (path / name).write_bytes(data)
        (path / case[0]).write_bytes(case[1])
        with suppress(RunFolderError):
            progress = store.restore(weights, say=lambda _: None)
            assert progress is not None

    check()
