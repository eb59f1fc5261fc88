"""Layers of configuration: files and overrides, merged from left to right."""

from __future__ import annotations

import codecs
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hard_ray.config.base import DISCRIMINATORS
from hard_ray.config.core_schema import without_leading_zeros
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.errors import ConfigError
from hard_ray.redaction import masked
from hard_ray.storage.address import Remote, is_url

Layer = dict[str, Any]

ALTERNATIVES = {"epochs": "steps", "steps": "epochs"}
"""Keys that exclude each other: setting one in a later layer unsets the other."""


MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Encodings of YAML files by the byte-order mark that they begin with."""


def read_layer(path: Path, *, saved: bool = False) -> Layer:
    """Read one configuration file, which may be at a URL.

    Args:
        path: the file; messages name a URL without its options.
        saved: whether hardray wrote it, perhaps a version that quoted fewer texts.

    Raises:
        ConfigError: it cannot be read, or is no mapping.
        StorageError: there is none at the URL, or the URL cannot be used.
    """
    here, source = _here(path), shown_file(path)
    try:
        content = here.read_bytes()
        text = content.decode(next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text; save it as UTF-8"
        raise ConfigError([f"cannot read the file: {reason}"], source) from None
    layer = parse_yaml(text, source, reading="saved" if saved else "strict")
    if layer is None:
        return {}
    if not isinstance(layer, dict):
        raise ConfigError([f"want blocks such as `data:`, got a {type(layer).__name__}"], source)
    return layer


def shown_file(path: Path) -> str:
    """A file, or its URL without options, for messages."""
    return Remote.parse(path).shown if is_url(path) else str(path)


def _here(path: Path) -> Path:
    """The file on this machine."""
    if not is_url(path):
        return path
    from hard_ray.storage.fetched import fetch_file  # imports NumPy

    return fetch_file(Remote.parse(path))


def parse_overrides(overrides: Iterable[str]) -> Layer:
    """Turn `dotted.key=value` texts into one layer; values are YAML."""
    values: list[tuple[str, str, Any]] = []
    problems = []
    for override in overrides:
        dotted, sep, _ = override.partition("=")
        if not sep or not all(dotted.strip().split(".")):
            problems.append(f"{masked(repr(override))}: want dotted.key=value, for example optim.lr=0.1")
            continue
        values.append((override, dotted.strip(), _value_of(override)))
    layer, conflicts = _nested(values)
    if problems or conflicts:
        raise ConfigError([*problems, *conflicts], "the overrides")
    return layer


def _value_of(override: str) -> Any:
    """The value of one override; ConfigError: it is not YAML."""
    dotted, _, text = override.partition("=")
    source = f"the override {masked(repr(override))}"
    try:
        return parse_yaml(text, source)
    except ConfigError as error:
        if without_leading_zeros(text.strip()) is None:
            raise
        quoted = shlex.quote(f'{dotted.strip()}="{text.strip()}"')
        raise ConfigError([f"{error.problems[0]}; in a shell, the text is {quoted}"], source) from None


def override(key: str, value: object) -> str:
    """A text as an override that YAML reads back as the same text."""
    text = str(value)
    try:
        is_plain = parse_yaml(text, key) == text
    except ConfigError:
        is_plain = False
    return f"{key}={text if is_plain else json.dumps(text)}"


def dotted_values(values: Mapping[str, Any], prefix: str = "", *, empty_blocks: bool = False) -> dict[str, Any]:
    """Flatten blocks to values by dotted key after `prefix`; empty ones are `{}` with `empty_blocks`, else left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and (value or not empty_blocks):
            found |= dotted_values(value, f"{prefix}{key}.", empty_blocks=empty_blocks)
        else:
            found[f"{prefix}{key}"] = value
    return found


def layer_of(values: Mapping[str, Any], source: str) -> Layer:
    """Nest values by dotted key; ConfigError: one key is a prefix of another; the message names `source`."""
    layer, conflicts = _nested((key, key, value) for key, value in values.items())
    if conflicts:
        raise ConfigError(conflicts, source)
    return layer


def _nested(values: Iterable[tuple[str, str, Any]]) -> tuple[Layer, list[str]]:
    """Nest triples of source text, dotted key and value; also list the texts that contradict earlier ones."""
    layer: Layer = {}
    conflicts = []
    for text, dotted, value in values:
        *blocks, last = dotted.split(".")
        block = layer
        for key in blocks:
            block = block.setdefault(key, {})
            if not isinstance(block, dict):
                conflicts.append(f"{masked(repr(text))}: {key} was already given a value")
                break
        else:
            block[last] = value
    return layer, conflicts


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> Layer:
    """Lay `layer` over `base`: a new kind replaces its block; setting one of two ALTERNATIVES unsets the other."""
    if any(key in layer and layer[key] != base.get(key) for key in DISCRIMINATORS):
        return dict(layer)
    merged = dict(base)
    for key, value in layer.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        other = ALTERNATIVES.get(key)
        if other in base and other not in layer and value is not None:
            merged[str(other)] = None
    return merged
