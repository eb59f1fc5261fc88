"""The base class of all configuration blocks, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


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
