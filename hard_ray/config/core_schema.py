"""The plain scalars of YAML 1.2's core schema: which are null, booleans and numbers, and their values.

PyYAML reads YAML 1.1, in which `010` is 8, `1:30` is 90, `on` is true and `1e-1` is a text. Here every plain scalar is
read as section 10.3.2 of YAML 1.2.2 has it, with one exception: a number with a leading zero is refused, because the
two versions of YAML disagree on it.
"""

from __future__ import annotations

import re

import yaml

PREFIX = "tag:yaml.org,2002:"
NULL, BOOL, INT, FLOAT, STR = (f"{PREFIX}{name}" for name in ("null", "bool", "int", "float", "str"))
MERGE = f"{PREFIX}merge"

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_LEADING_ZEROS = re.compile(r"([-+]?)0+([0-9].*)")

_FORMS = ((NULL, _NULL), (BOOL, _BOOL), (INT, _INT), (FLOAT, _FLOAT))


def tag_of(text: str) -> str:
    """The tag of a plain scalar; `<<` is the key of a merge, as in every reader of YAML that knows it."""
    if text == "<<":
        return MERGE
    return next((tag for tag, form in _FORMS if form.fullmatch(text)), STR)


def without_leading_zeros(text: str) -> str | None:
    """A decimal number without its leading zeros; None: it has none."""
    found = _LEADING_ZEROS.fullmatch(text) if tag_of(text) in (INT, FLOAT) else None
    return f"{found[1]}{found[2]}" if found is not None else None


def number(text: str, tag: str) -> int | float:
    """The value of a scalar with the tag INT or FLOAT; ValueError: the text is no such number."""
    if tag == INT:
        if not _INT.fullmatch(text):
            raise ValueError(text)
        return int(text, 0 if text.startswith(("0o", "0x")) else 10)
    if not (_FLOAT.fullmatch(text) or _INT.fullmatch(text)):
        raise ValueError(text)
    return float(text.replace(".", "", 1) if text.lower().endswith((".inf", ".nan")) else text)


def truth(text: str) -> bool:
    """The value of a scalar with the tag BOOL; ValueError: the text is none."""
    if not _BOOL.fullmatch(text):
        raise ValueError(text)
    return text.lower() == "true"


class CoreResolver(yaml.resolver.Resolver):
    """PyYAML's resolver with the tags of the core schema for plain scalars."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: tuple[bool, bool]) -> str:
        """The tag of a node without an explicit one."""
        if kind is yaml.ScalarNode and implicit[0]:
            return tag_of(value or "")
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]


class CautiousResolver(CoreResolver):
    """Quotes what either version of YAML reads as something else than a text, so that every reader gets the text."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: tuple[bool, bool]) -> str:
        """The tag of a node; of a plain scalar, the first that is not STR of the two versions."""
        found = super().resolve(kind, value, implicit)
        if kind is yaml.ScalarNode and implicit[0] and found == STR:
            return legacy_tag(value or "")
        return found


def legacy_tag(text: str) -> str:
    """The tag of a plain scalar in YAML 1.1, as PyYAML's own writer has it."""
    return str(_LEGACY.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]


_LEGACY = yaml.resolver.Resolver()
