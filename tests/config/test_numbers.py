"""Scalars are read as YAML 1.2's core schema reads them, wherever they stand, and written so that they come back."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hard_ray.config.base import Config
from hard_ray.config.layers import parse_overrides, read_layer
from hard_ray.config.loader import load_config, validate
from hard_ray.config.safe_yaml import dump_yaml, parse_yaml
from hard_ray.config.scoring import read_augmentors
from hard_ray.config.space import load_space
from hard_ray.errors import ConfigError

CORE = {
    "1e-1": 0.1, "12e03": 12000.0, ".5": 0.5, "1.": 1.0, "+1": 1, "-0": 0, "0": 0, "0.5": 0.5, "1e05": 100000.0,
    "0x1F": 31, "0o17": 15, ".inf": math.inf, "-.INF": -math.inf, "+.Inf": math.inf,
    "~": None, "NULL": None, "": None, "true": True, "FALSE": False,
    "1:30": "1:30", "190:20:30": "190:20:30", "on": "on", "yes": "yes", "off": "off", "No": "No", "y": "y",
    "1_000": "1_000", "0b1": "0b1", "0X1F": "0X1F", "0O17": "0O17", "2026-01-01": "2026-01-01",
    "2026-01-01T10:00:00Z": "2026-01-01T10:00:00Z", "=": "=", "nULL": "nULL", "tRUE": "tRUE", "1e": "1e", "+": "+",
    ".": ".", "-.5": -0.5, "+.inf": math.inf, "inf": "inf", "nan": "nan", "!!str 010": "010", "'010'": "010",
}  # fmt: skip
"""Plain scalars and what section 10.3.2 of YAML 1.2.2 makes of them."""

LEADING = {"010": "10", "0100": "100", "008": "8", "00": "0", "-07": "-7", "+010": "+10", "01.5": "1.5", "00e1": "0e1"}


@pytest.mark.parametrize(("text", "value"), CORE.items())
def test_a_scalar_is_what_the_core_schema_says(text: str, value: object):
    found = parse_yaml(text, "mine.yaml")
    assert (type(found), found) == (type(value), value)
    assert parse_overrides([f"a.b={text}"]) == {"a": {"b": value}}
    assert parse_yaml(f"a: [{text or '~'}, x]", "mine.yaml") == {"a": [value, "x"]}


def test_not_a_number_is_a_number():
    assert all(math.isnan(parse_yaml(text, "mine.yaml")) for text in (".nan", ".NaN", ".NAN"))


@pytest.mark.parametrize(("text", "wanted"), LEADING.items())
@pytest.mark.parametrize("around", ["{}", "a: {}", "a: {{b: [1, {}]}}", "{}: a", "!!int {}"])
def test_a_leading_zero_is_refused_wherever_it_stands(text: str, wanted: str, around: str):
    if around == "!!int {}" and ("." in text or "e" in text):
        return
    with pytest.raises(ConfigError) as caught:
        parse_yaml(around.format(text), "mine.yaml")
    assert f'{text} has a leading zero: quote it ("{text}") for a text, or write {wanted} (line 1' in str(caught.value)


def test_a_leading_zero_is_refused_in_files_overrides_spaces_choices_and_free_dictionaries(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    for text in ("seed: 010", "student: {model_kwargs: {depth: [008]}}"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="leading zero"):
            load_config([path])
    for override in ("seed=010", "seed=008", "student.model_kwargs.depth=010", "student.model_kwargs={a: 010}"):
        with pytest.raises(ConfigError, match="leading zero"):
            load_config(overrides=[override])
    space = "base: {{preset: digits}}\nparameters:\n  seed: {{choice: [{}]}}\n"
    path.write_text(space.format("1, 010"))
    with pytest.raises(ConfigError, match="leading zero"):
        load_space(str(path))
    path.write_text(space.format("1, '010'"))
    with pytest.raises(ConfigError, match=r"parameters.seed: 010 of choice \[1, 010\] is refused: a text is no number"):
        load_space(str(path))
    path.write_text(space.format("1, 1e3, 0x1F"))
    assert load_space(str(path)).space.parameters["seed"].choice == (1, 1000.0, 31)
    with pytest.raises(ConfigError, match="leading zero"):
        read_augmentors(["strong={kind: rand_augment, magnitude: 015}"])


def test_the_words_for_a_shell_keep_the_quotes():
    with pytest.raises(ConfigError) as caught:
        parse_overrides(["experiment.name=007"])
    assert """in a shell, the text is 'experiment.name="007"'""" in str(caught.value)
    assert load_config(overrides=['experiment.name="007"']).experiment.name == "007"


@pytest.mark.parametrize(
    "override",
    ['seed="010"', 'seed="8"', "seed=1_000", 'optim.lr="0.1"', "optim.lr=true", "seed=true", 'student.mean=["0.5"]'],
)
def test_neither_text_nor_truth_is_taken_for_a_number(override: str):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{key}: (a text|true) is no number; write"):
        load_config(overrides=[override])


@pytest.mark.parametrize("text", ["1:30", "0b1", "on", "2026-01-01", "1.5", "1e-1"])
def test_what_is_no_whole_number_is_no_seed(text: str):
    with pytest.raises(ConfigError, match="seed: Input should be a valid integer"):
        load_config(overrides=[f"seed={text}"])


def test_a_whole_number_may_have_an_exponent_and_a_truth_may_be_on():
    config = load_config(overrides=["optim.steps=12e03", "optim.lr=1e-1", "runtime.channels_last=on"])
    assert (config.optim.steps, config.optim.lr, config.runtime.channels_last) == (12000, 0.1, True)


def test_a_number_where_a_text_is_wanted_is_to_be_quoted():
    with pytest.raises(
        ConfigError, match=r"""experiment.name: Input should be a valid string \(got 0.001\); quote it, in a shell as"""
    ):
        load_config(overrides=["experiment.name=1e-3"])


def test_a_merge_works_and_an_explicit_key_wins(tmp_path: Path):
    text = "<<: &common {seed: 3, optim: {lr: 0.2}}\nseed: 4\n"
    assert parse_yaml(text, "mine.yaml") == {"seed": 4, "optim": {"lr": 0.2}}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str):
    path = tmp_path / "mine.yaml"
    mark = "\ufeff" if encoding[-3:] in ("-le", "-be") else ""
    path.write_bytes(f"{mark}experiment: {{name: Straße}}\n".encode(encoding))
    assert read_layer(path) == {"experiment": {"name": "Straße"}}


def test_another_encoding_is_refused_with_the_remedy(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_bytes("experiment: {name: Straße}\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="it is not UTF-8 text; save it as UTF-8"):
        read_layer(path)


TEXTS = st.sampled_from([*CORE, *LEADING, "<<", "0o8", "1.0.0", "- a", "#", "a: b", "null", "1e3", "089", "+.5e3"])


class Free(Config):
    """A block with a free dictionary, as `student` has."""

    kwargs: dict[str, Any]
    """Whatever the user gives."""


VALUES = TEXTS | st.text(max_size=8) | st.integers() | st.floats(-9, 9) | st.booleans() | st.none()
DICTIONARIES = st.dictionaries(TEXTS | st.text(max_size=6), VALUES | st.lists(VALUES, max_size=2), max_size=5)


@given(DICTIONARIES)
@settings(max_examples=300, deadline=None)
def test_what_is_written_reads_back_in_either_version_of_yaml(kwargs: dict):
    text = dump_yaml(Free(kwargs=kwargs))
    for read in (parse_yaml(text, "c"), parse_yaml(text, "c", reading="saved"), yaml.safe_load(text)):
        assert read == {"kwargs": kwargs}


@given(DICTIONARIES)
@settings(max_examples=300, deadline=None)
def test_what_earlier_versions_wrote_reads_back(kwargs: dict):
    written = yaml.safe_dump({"kwargs": kwargs}, sort_keys=False, allow_unicode=True)
    assume(not any(mark in str(kwargs) for mark in ("\\x85", "\\u2028", "\\u2029", "&id")))  # they lost these
    assert parse_yaml(written, "c", reading="saved") == {"kwargs": kwargs}


def test_a_configuration_with_such_texts_reads_back_to_the_same():
    config = load_config(overrides=["student.model_kwargs={a: '1e-1', b: '010', c: 'on', d: 1e-1}"])
    assert validate([parse_yaml(dump_yaml(config), "c")], source="c") == config
    assert config.student.model_kwargs == {"a": "1e-1", "b": "010", "c": "on", "d": 0.1}


def test_a_saved_file_that_was_edited_is_read_with_the_same_care():
    for text in ("seed: 010", "seed: 007"):
        with pytest.raises(ConfigError, match="leading zero"):
            parse_yaml(text, "config.yaml", reading="saved")
    assert parse_yaml("a: [1:30, on, 0x1F]", "config.yaml", reading="saved") == {"a": ["1:30", "on", 31]}
