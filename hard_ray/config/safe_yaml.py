"""Safe reading of YAML with a limited size, and writing with `kind` first."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel

from hard_ray.config.base import DISCRIMINATORS
from hard_ray.errors import ConfigError
from hard_ray.redaction import masked

MOST_VALUES = 100_000
"""Largest number of values in a YAML text, with repetitions by aliases."""


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader with a limit on values, against alias bombs."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the root node, after its values were counted."""
        found: yaml.Node | None = super().get_single_node()
        if found is not None:
            _count(found, {})
        return found

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a node's value; text that does not fit its tag raises a YAML error instead of a Python one."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            raise yaml.constructor.ConstructorError(
                None, None, f"this value cannot be read as {kind}", node.start_mark
            ) from None


class _Loader(_BoundedLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(str(key))
        return super().construct_mapping(node, deep=deep)


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Count the values of a node; ComposerError: more than MOST_VALUES, or a node within itself."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise yaml.composer.ComposerError(None, None, "an alias within the node that it repeats", node.start_mark)
        return found
    known[id(node)] = None
    inner = node.value if isinstance(node, yaml.CollectionNode) else ()
    parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
    found = 1 + sum(_count(part, known) for part in parts)
    if found > MOST_VALUES:
        raise yaml.composer.ComposerError(None, None, f"more than {MOST_VALUES:,} values", node.start_mark)
    known[id(node)] = found
    return found


def parse_yaml(text: str, source: str, *, repeated_keys: bool = False) -> Any:
    """Read YAML's safe subset; ConfigError: the text, named `source`, is not YAML; the message has the line."""
    try:
        return yaml.load(text, Loader=_BoundedLoader if repeated_keys else _Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError([f"not valid YAML: {_yaml_problem(error)}"], source) from None


def _yaml_problem(error: Exception) -> str:
    """The problem and its place, without the text there, which may contain a password."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return masked(" ".join(str(error).split()))
    parts = ((error.context, error.context_mark), (error.problem, error.problem_mark))
    return masked(": ".join(f"{text}{_place(mark)}" for text, mark in parts if text))


def _place(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"


def dump_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML that loads back to an equal object."""
    return yaml.safe_dump(_kind_first(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def _kind_first(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: key not in DISCRIMINATORS)
    return {key: _kind_first(value[key]) for key in keys}
