"""Whatever stands in a file, it is read or refused with a message; `make fuzz` gives each reader 10,000 cases."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hard_ray.config.loader import load_config, validate
from hard_ray.config.problems import known_keys
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml, parse_yaml
from hard_ray.data.generated_set import open_generated
from hard_ray.data.sources.build import build_index
from hard_ray.errors import ConfigError, HardrayError
from tests.security.fuzzed import REFUSALS, TARGETS

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


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_stands_in_a_file_it_is_read_or_refused(tmp_path: Path, name: str):
    intact, read = TARGETS[name](tmp_path)

    @fuzz
    @given(st.one_of(mutated(intact), st.binary(max_size=64), st.text(max_size=200).map(str.encode)))
    def check(data: bytes) -> None:
        with suppress(*REFUSALS):
            read(data)

    read(intact)
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


def test_whatever_a_manifest_says_its_set_is_opened_or_refused(tmp_path: Path):
    TARGETS["generated"](tmp_path)
    index = build_index(load_config(preset="digits").data)
    manifest = json.loads((tmp_path / "manifest.json").read_text())

    @fuzz
    @given(st.dictionaries(st.sampled_from(sorted(manifest)), VALUES, min_size=1, max_size=2))
    def check(told: dict) -> None:
        (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **told}))
        with suppress(HardrayError):
            assert (open_generated(tmp_path, index).place >= 0).sum() <= 3

    check()
