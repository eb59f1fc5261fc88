"""Columns of tables that hold images and labels: the types that are read, and what is in a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from hard_ray.errors import DataError

_SHOWN = 60
"""Letters of a value in a message."""


Example = Callable[[], Any]
"""Reads a value of a column for a message."""


def check_image_type(kind: pa.DataType, *, where: str, column: str, example: Example) -> None:
    """Raise DataError unless cells of this type can hold an encoded image.

    They can if they are bytes, lists of bytes, or structs with such a field `bytes`, as the `datasets` library writes.
    """
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_struct(kind):
        names = [field.name for field in kind]
        found = f"structs of {', '.join(names)}"
        if "bytes" in names:
            kind = kind.field("bytes").type
            found = f"structs whose field `bytes` is {kind}"
            if types.is_null(kind):
                return
    else:
        found = f"{kind}" if _holds_bytes(kind) else f"{kind}{_shown(example)}"
    if _holds_bytes(kind):
        return
    raise DataError(
        f"{where}: data.image_column {column!r} holds {found}; want encoded images (PNG, JPEG, ...) as binary, or a "
        f"struct with the field `bytes`; {_image_remedy(kind)}"
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return bool(types.is_uint8(kind.value_type) or types.is_int8(kind.value_type))
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _image_remedy(kind: pa.DataType) -> str:
    if _is_text(kind):
        return "decode base64 or read the files that it names, and write their bytes, or name another column"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "encode the pixels, one image a row, or name another column"
    return "name another column"


def check_label_type(kind: pa.DataType, *, where: str, column: str, example: Example) -> str:
    """The kind of labels, `numbers` or `names`, or `none` if all are missing; raises DataError for any other."""
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_integer(kind):
        return "numbers"
    if _is_text(kind):
        return "names"
    if types.is_null(kind):
        return "none"
    raise DataError(
        f"{where}: data.label_column {column!r} holds {kind}{_shown(example)}, which is neither a class number below "
        f"1,000,000 nor a class name; {_label_remedy(kind)}"
    )


def _label_remedy(kind: pa.DataType) -> str:
    if types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind):
        return "write it as integers from 0, or name another column"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "an image has one label here, so write that one, or name another column"
    if _holds_bytes(kind):
        return "write it as text, or name another column"
    return "name another column"


def _shown(example: Example) -> str:
    text = repr(example())
    return f" (as {text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'})"


def bytes_of(cell: Any) -> bytes | None:
    """The encoded image in a cell; None if there is none."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes")
    if isinstance(cell, list):  # Arrow gives lists of numbers for lists of bytes
        return np.array(cell, dtype=np.int16).astype(np.uint8).tobytes() if None not in cell else None
    return cell if isinstance(cell, bytes) else None


def path_of(cell: Any) -> str | None:
    """The path in a cell that has no image beside it; None if there is none."""
    if isinstance(cell, Mapping) and cell.get("bytes") is None:
        return cell.get("path") or None
    return None
