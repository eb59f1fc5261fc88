"""Safe reading of YAML 1.2 with a limited size, and writing with `kind` first."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, Literal

import yaml
from pydantic import BaseModel

from hard_ray.config.base import DISCRIMINATORS
from hard_ray.config.core_schema import (
    BOOL,
    FLOAT,
    INT,
    MERGE,
    PREFIX,
    STR,
    CautiousResolver,
    CoreResolver,
    legacy_tag,
    number,
    truth,
    without_leading_zeros,
)
from hard_ray.errors import ConfigError
from hard_ray.redaction import masked

MOST_VALUES = 100_000
"""Largest number of values in a YAML text, with repetitions by aliases."""


class _BoundedLoader(CoreResolver, yaml.SafeLoader):
    """PyYAML's safe loader with the core schema and a limit on values, against alias bombs."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the root node, after its values were counted."""
        found: yaml.Node | None = super().get_single_node()
        if self.yaml_version is not None and self.yaml_version < (1, 2):
            raise yaml.YAMLError("the directive %YAML 1.1, and this is read as YAML 1.2; remove the line")
        if found is not None:
            _count(found, {})
        return found

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a node's value; text that does not fit its tag raises a YAML error instead of a Python one."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
            kind = node.tag.removeprefix(PREFIX)
            raise yaml.constructor.ConstructorError(
                None, None, f"this value cannot be read as {kind}", node.start_mark
            ) from None

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return the value of a number as the core schema has it."""
        return number(self.construct_scalar(node), node.tag)

    def refuse_tag(self, node: yaml.Node) -> None:
        """Raise a ConstructorError: JSON has no such type."""
        tag = node.tag.replace(PREFIX, "!!")
        problem = f"the tag {tag} is none of YAML 1.2's core schema; leave it out, and quote a text"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def construct_truth(self, node: yaml.ScalarNode) -> bool:
        """Return the value of a boolean as the core schema has it."""
        return truth(self.construct_scalar(node))


for _tag in (INT, FLOAT):
    _BoundedLoader.add_constructor(_tag, _BoundedLoader.construct_number)
_BoundedLoader.add_constructor(BOOL, _BoundedLoader.construct_truth)
for _foreign in (None, *(f"{PREFIX}{name}" for name in ("timestamp", "binary", "set", "omap", "pairs"))):
    _BoundedLoader.add_constructor(_foreign, _BoundedLoader.refuse_tag)


class _RefusedError(yaml.constructor.ConstructorError):
    """YAML that is valid, and read in two ways."""


class _Loader(_BoundedLoader):
    """Refuses what reads as something else than was meant: repeated keys, and numbers with leading zeros."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; ConstructorError: a key stands twice."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = "<<" if key_node.tag == MERGE else self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):  # the others are refused below
                if key in seen:
                    problem = f"duplicate key {key!r}; keep one of them"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return the value of a number; ConstructorError: it has a leading zero."""
        wanted = without_leading_zeros(node.value)
        if wanted is not None:
            problem = f'{node.value} has a leading zero: quote it ("{node.value}") for a text, or write {wanted}'
            raise _RefusedError(None, None, problem, node.start_mark)
        return super().construct_number(node)


for _tag in (INT, FLOAT):
    _Loader.add_constructor(_tag, _Loader.construct_number)


class _SavedLoader(_Loader):
    """Reads what hardray wrote, also its versions that left texts such as 1e-1 and 008 without quotes."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: tuple[bool, bool]) -> str:
        """The tag of a node; a plain scalar that YAML 1.1 reads as a text is one."""
        is_plain = kind is yaml.ScalarNode and implicit[0]
        return STR if is_plain and legacy_tag(value or "") == STR else super().resolve(kind, value, implicit)


class _Dumper(CautiousResolver, yaml.SafeDumper):
    """Writes texts so that readers of both versions of YAML read texts, and repeated values without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Whether a value is written again where it is repeated: always."""
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """A text; line breaks of Unicode need double quotes, because PyYAML folds them within single ones."""
        return self.represent_scalar(STR, text, style='"' if _BREAKS.search(text) else None)


_BREAKS = re.compile("[\x85\u2028\u2029]")
_Dumper.add_representer(str, _Dumper.represent_text)


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


Reading = Literal["strict", "saved", "tolerant"]
"""How a text is read: as the user's, as one that hardray saved, or with repeated keys and leading zeros."""

_LOADERS = {"strict": _Loader, "saved": _SavedLoader, "tolerant": _BoundedLoader}


def parse_yaml(text: str, source: str, *, reading: Reading = "strict") -> Any:
    """Read YAML 1.2's core schema; ConfigError: the text, named `source`, is not YAML; the message has the line."""
    try:
        return yaml.load(text, Loader=_LOADERS[reading])  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        what = "" if isinstance(error, _RefusedError) else "not valid YAML: "
        raise ConfigError([f"{what}{_yaml_problem(error)}"], source) from None


def _yaml_problem(error: Exception) -> str:
    """The problem and its place, without the text there, which may contain a password."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return masked(" ".join(str(error).split()))
    parts = ((error.context, error.context_mark), (error.problem, error.problem_mark))
    remedy = "; indent with spaces" if "'\\t'" in (error.problem or "") else ""
    return masked(": ".join(f"{text}{_place(mark)}" for text, mark in parts if text)) + remedy


def _place(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"


def dump_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML that loads back to an equal object."""
    values = _kind_first(config.model_dump(mode="json"))
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _kind_first(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: key not in DISCRIMINATORS)
    return {key: _kind_first(value[key]) for key in keys}
