"""The base class of all configuration blocks, and the types of their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class Config(BaseModel):
    """A frozen block of settings: unknown keys are refused, and docstrings below fields are the help texts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, serialize_by_alias=True
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Let a field that only changes its default inherit the help text of the field that it overrides."""
        bare = [name for name, field in cls.model_fields.items() if field.description is None]
        inherited = {name: _inherited_description(cls, name) for name in bare}
        for name, text in inherited.items():
            cls.model_fields[name].description = text
        if any(inherited.values()):
            cls.model_rebuild(force=True)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, values: Any) -> Any:
        """Refuse a text or a boolean where a number is wanted: pydantic would make 10 of "010", and 1 of true."""
        if not isinstance(values, Mapping):
            return values
        found: list[InitErrorDetails] = []
        for name, field in cls.model_fields.items():
            key = field.alias or name
            problem = _number_problem(values[key], _leaves(field.annotation)) if key in values else None
            if problem is not None:
                said = PydanticCustomError("no_number", "{problem}", {"problem": problem})
                found.append(InitErrorDetails(type=said, loc=(key,), input=values[key]))
        if found:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return values


def _number_problem(value: Any, takes: set[Any]) -> str | None:
    """The reason why a value, or a part of a list, is no number although a field takes numbers alone; None: it fits."""
    is_block = any(issubclass(kind, BaseModel) for kind in takes if isinstance(kind, type))
    if is_block or Any in takes or not takes & {int, float}:
        return None
    for part in _parts(value):
        if isinstance(part, bool) and bool not in takes:
            return f"{str(part).lower()} is no number; write a number"
        if isinstance(part, str) and not takes & {str, Path, part} and _reads_as_number(part):
            return "a text is no number; write it without quotes, underscores and spaces"
    return None


def _parts(value: Any) -> Iterator[Any]:
    """The values in nested lists and mappings."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        yield value
        return
    for part in value:
        yield from _parts(part)


def _leaves(annotation: Any) -> set[Any]:
    """The types of an annotation's values, without those of keys, and the values of its literals."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    arguments = [part for part in get_args(annotation) if part is not Ellipsis]
    if get_origin(annotation) is Annotated:
        arguments = arguments[:1]
    elif get_origin(annotation) is dict:
        arguments = arguments[1:]
    return set().union(*map(_leaves, arguments)) if arguments else {annotation}


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _inherited_description(model: type[BaseModel], name: str) -> str | None:
    fields = (base.model_fields.get(name) for base in model.__mro__[1:] if issubclass(base, BaseModel))
    return next((field.description for field in fields if field is not None and field.description), None)


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share, from 0 to 1."""

Temperature = Annotated[float, Field(gt=0.0)]
"""Divides logits before a softmax."""

Weight = Annotated[float, Field(ge=0.0)]
"""The weight of a loss term."""

Degrees = Annotated[float, Field(ge=0.0, le=180.0)]
"""An angle, in degrees."""

Seconds = Annotated[float, Field(gt=0.0)]
"""A time, in seconds."""

Epochs = Annotated[float, Field(gt=0.0)]
"""Passes over the training split; a fraction is rounded to whole batches."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""The seed of a random generator."""

DISCRIMINATORS = ("kind", "policy")
"""The keys that choose one member of a union of blocks."""
