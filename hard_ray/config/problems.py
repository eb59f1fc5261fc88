"""Messages for invalid configurations, with the nearest known key."""

from __future__ import annotations

import copy
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hard_ray.config.base import DISCRIMINATORS
from hard_ray.config.layers import Layer
from hard_ray.config.run import RunConfig
from hard_ray.errors import suggestion
from hard_ray.redaction import masked

MOST_SHOWN = 200
"""Characters of a refused value that a message quotes."""


def all_problems(error: ValidationError, merged: Layer) -> list[str]:
    """Every problem of a merged configuration.

    Pydantic compares blocks only once each is valid by itself, so the invalid keys are removed and the rest is
    validated again, until nothing more is found.
    """
    problems: list[str] = []
    remaining = copy.deepcopy(merged)
    for _ in range(len(list(known_keys(RunConfig)))):
        found = error.errors(include_url=False)
        problems += [describe(problem, merged) for problem in found]
        removed = [_remove(remaining, problem["loc"]) for problem in found]
        if not any(removed):
            break
        try:
            RunConfig.model_validate(remaining)
        except ValidationError as next_error:
            error = next_error
        else:
            break
    return list(dict.fromkeys(problems))


def _remove(raw: Any, location: Sequence[str | int]) -> bool:
    """Remove the value at `location`; False if there was none."""
    for key in dotted_location(location, raw).split("."):
        if not isinstance(raw, dict) or key not in raw:
            return False
        if not isinstance(raw[key], dict):
            del raw[key]
            return True
        raw = raw[key]
    return False


def describe(problem: ErrorDetails, raw: Any, model: type[BaseModel] = RunConfig) -> str:
    """One line for one of pydantic's errors: the key, the problem, the value."""
    where = dotted_location(problem["loc"], raw)
    if problem["type"] == "extra_forbidden":
        if where in set(known_keys(model)):
            return f"{where}: unknown key here; another kind of {where.rpartition('.')[0]} has it"
        return f"{where}: unknown key{_nearest_key(where, model)}"
    if problem["type"] == "value_error":
        text = str(problem["msg"]).removeprefix("Value error, ")
        return f"{where}: {text}" if where else text
    if problem["type"] == "union_tag_invalid":
        tag, known = problem["ctx"]["discriminator"].strip("'"), problem["ctx"]["expected_tags"].replace("'", "")
        got = problem["ctx"]["tag"]
        return f"{where}.{tag}: {got!r} is unknown; {suggestion(got, known.split(', '))}"
    if problem["type"] == "missing":
        return f"{where}: is required and has no default"
    return f"{where}: {problem['msg']} (got {_shown(problem['input'])}){_quotes(problem, where)}"


def _quotes(problem: ErrorDetails, where: str) -> str:
    """The remedy where a number stands for a text."""
    is_number = isinstance(problem["input"], bool | int | float) and problem["type"] in ("string_type", "path_type")
    return f"; quote it, in a shell as '{where}=\"...\"'" if is_number else ""


def _shown(value: object) -> str:
    text = masked(repr(value))
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def dotted_location(location: Sequence[str | int], raw: Any) -> str:
    """Pydantic's location as a dotted key: the tags of discriminated unions are not keys and are left out."""
    keys: list[str] = []
    for part in location:
        if isinstance(raw, Mapping) and part not in raw and part in [raw.get(key) for key in DISCRIMINATORS]:
            continue
        keys.append(str(part))
        if isinstance(raw, Mapping):
            raw = raw.get(part)
        elif isinstance(raw, Sequence) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
    return ".".join(keys)


def _nearest_key(dotted: str, model: type[BaseModel]) -> str:
    """`; did you mean ...?`: a similar key of the block, else a key of another block with a similar last word."""
    block, _, last = dotted.rpartition(".")
    known = sorted(set(known_keys(model)))
    siblings = [key for key in known if key.rpartition(".")[0] == block]
    close = difflib.get_close_matches(dotted, siblings, n=1, cutoff=0.7)
    words = difflib.get_close_matches(last, [key.rpartition(".")[2] for key in known], n=1, cutoff=0.8)
    close = close or sorted((key for key in known if key.rpartition(".")[2] in words), key=len)[:1]
    return f"; did you mean {close[0]}?" if close else ""


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of any kind of each block."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        for inner in _models_in(field.annotation):
            yield from known_keys(inner, f"{key}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)
