"""Layers of configuration: files and overrides, merged from left to right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hard_ray.config.base import DISCRIMINATORS
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.errors import ConfigError
from hard_ray.redaction import masked

Layer = dict[str, Any]


ALTERNATIVES = {"epochs": "steps", "steps": "epochs"}


def read_layer(path: Path) -> Layer:
    """Read one configuration file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([f"cannot read the file: {reason}"], str(path)) from None
    layer = parse_yaml(text, str(path))
    if layer is None:
        return {}
    if not isinstance(layer, dict):
        raise ConfigError([f"want blocks such as `data:`, got a {type(layer).__name__}"], str(path))
    return layer


def parse_overrides(overrides: Iterable[str]) -> Layer:
    """Turn `dotted.key=value` texts into one layer; values are YAML."""
    values: list[tuple[str, str, Any]] = []
    problems = []
    for override in overrides:
        dotted, sep, text = override.partition("=")
        if not sep or not all(dotted.strip().split(".")):
            problems.append(f"{masked(repr(override))}: want dotted.key=value, for example optim.lr=0.1")
            continue
        values.append((override, dotted.strip(), parse_yaml(text, f"the override {masked(repr(override))}")))
    layer, conflicts = _nested(values)
    if problems or conflicts:
        raise ConfigError([*problems, *conflicts], "the overrides")
    return layer


def dotted_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested blocks as dotted keys; an empty block has none."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= dotted_values(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def layer_of(values: Mapping[str, Any], source: str) -> Layer:
    """One layer of values by their dotted keys.

    Raises:
        ConfigError: a key is a part of another one; the message names `source`.
    """
    layer, conflicts = _nested((key, key, value) for key, value in values.items())
    if conflicts:
        raise ConfigError(conflicts, source)
    return layer


def _nested(values: Iterable[tuple[str, str, Any]]) -> tuple[Layer, list[str]]:
    """Blocks in blocks, of what was said, a dotted key and a value; and what contradicts what was said before."""
    layer: Layer = {}
    conflicts = []
    for said, dotted, value in values:
        *blocks, last = dotted.split(".")
        block = layer
        for key in blocks:
            block = block.setdefault(key, {})
            if not isinstance(block, dict):
                conflicts.append(f"{masked(repr(said))}: {key} was already given a value")
                break
        else:
            block[last] = value
    return layer, conflicts


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> Layer:
    """`layer` over `base`; a block whose kind changes, and a length given otherwise, are replaced."""
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


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested blocks as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
