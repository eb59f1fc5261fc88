"""Labels of tar members: a number or a name as text, or a field of a JSON object."""

from __future__ import annotations

import json
import re
from typing import Any

from hard_ray.config.data import WebDatasetData
from hard_ray.data.labels import Label
from hard_ray.errors import DataError

LARGEST_LABEL = 1024
"""Largest label as text, in bytes."""


def read_label(data: bytes, config: WebDatasetData, where: str) -> tuple[Label | None, str]:
    """The label in a member, or None and what is there instead; raises DataError if the member cannot be read.

    Text that is a whole number is a class number, `3.0` too; a string in JSON is a name, whatever it holds.
    """
    if config.label_member == "json":
        return _field(data, config, where)
    if len(data) > LARGEST_LABEL:
        raise DataError(
            f"{where}: the label has {len(data):,} bytes; want a class number or name of at most {LARGEST_LABEL:,}; "
            "set data.label_key to the label's extension"
        )
    text = _decoded(data, where).strip()
    if "\n" in text:
        raise DataError(
            f"{where}: the label has several lines, first {text.splitlines()[0]!r}; want one class number or name; set "
            "data.label_key to the label's extension"
        )
    return (int(float(text)) if re.fullmatch(r"-?\d{1,9}(\.0*)?", text) else text), f"member {where} is empty"


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{where}: the label begins with {data[:16]!r}, which is no UTF-8 text; write it in UTF-8, or set "
            "data.label_key to the label's extension"
        ) from None


def _field(data: bytes, config: WebDatasetData, where: str) -> tuple[Label | None, str]:
    try:
        value: Any = json.loads(_decoded(data, where))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON ({error}); write it again, or set data.label_key to another") from None
    if config.label_field is None:
        if isinstance(value, dict):
            raise DataError(
                f"{where}: holds the fields {_fields(value)}; set data.label_field to the one with the label"
            )
        return _checked(value, where, "the value")
    for name in config.label_field.split("."):
        if not isinstance(value, dict) or name not in value:
            return None, f"{where} has the fields {_fields(value)} and no {config.label_field!r} (data.label_field)"
        value = value[name]
    return _checked(value, where, f"field {config.label_field!r}")


def _checked(value: Any, where: str, what: str) -> tuple[Label | None, str]:
    """A label from JSON: a whole number or a name; null is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value, f"{what} of {where} is null"
    raise DataError(
        f"{where}: {what} is {str(value)[:60]!r}; want a class number or a class name; set data.label_field to the "
        "field of one"
    )


def _fields(value: Any) -> str:
    return ", ".join(repr(name) for name in list(value)[:10]) if isinstance(value, dict) else f"none, but {value!r:.60}"
