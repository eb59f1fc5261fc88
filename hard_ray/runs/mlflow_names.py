"""Names and values as MLflow takes them, so that no request fails because of one of them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

LONGEST_NAME = 250
"""Characters of the name of a parameter, metric or run that every database of MLflow takes."""
LONGEST_VALUES = (6000, 500, 250)
"""Characters of a parameter's value that MLflow takes: the newest versions, older ones, the oldest."""
LONGEST_TAG = 5000
"""Characters of a tag's value that MLflow takes, also an older one."""


def plain_text(text: str) -> str:
    """Text that can be stored: bytes of a file's name that are no text are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def shortened(text: str, longest: int) -> str:
    """Text of at most so many characters; it says so where it was cut."""
    if len(text) <= longest:
        return text
    end = f"... ({len(text)} characters)"
    return text[: longest - len(end)] + end


def key_of(name: str) -> str:
    """A name for a parameter or metric with the characters that MLflow takes, and none that make it a path."""
    kept = re.sub(r"[^/\w.\- :]", "_", plain_text(name)).strip("/") or "_"
    kept = posixpath.normpath(kept)
    kept = re.sub(r"^(\.\.?)(/|$)", "_\\2", kept)
    return kept if len(kept) <= LONGEST_NAME else f"{kept[: LONGEST_NAME - 9]}_{_digest(name)}"


def unique_keys(values: Mapping[str, str]) -> dict[str, str]:
    """The values by names that MLflow takes; names that would become equal keep apart."""
    found: dict[str, str] = {}
    for name, value in values.items():
        key = key_of(name)
        found[key if key not in found else f"{key[: LONGEST_NAME - 9]}_{_digest(name)}"] = value
    return found


def batches(values: Iterable[tuple[str, str]], *, most: int, most_bytes: int) -> Iterable[list[tuple[str, str]]]:
    """Pairs in lists that are short enough for a request."""
    batch: list[tuple[str, str]] = []
    size = 0
    for key, value in values:
        own = 6 * (len(key) + len(value)) + 50  # a character takes up to six bytes in JSON
        if batch and (len(batch) == most or size + own > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append((key, value))
        size += own
    if batch:
        yield batch


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
