"""What every configuration block has in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """A frozen fact about a run: unknown keys are refused, docstrings are the help texts."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """A field that only changes its default keeps the help text of the field above it."""
        bare = [name for name, field in cls.model_fields.items() if field.description is None]
        above = {name: _description_above(cls, name) for name in bare}
        for name, text in above.items():
            cls.model_fields[name].description = text
        if any(above.values()):
            cls.model_rebuild(force=True)


def _description_above(model: type[BaseModel], name: str) -> str | None:
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
"""A number of passes over the training split; fractions count in batches."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Decides every random draw that names it."""


DISCRIMINATORS = ("kind", "policy")
