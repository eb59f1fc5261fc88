"""What augmentors draw, in units that a reader thinks in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unit:
    """A readable name and unit, and the way from the augmentor's own numbers to it."""

    name: str
    unit: str = ""
    convert: Callable[[Values], Values] = lambda values: values
    """Never decreases, so that bounds stay bounds."""

    @property
    def label(self) -> str:
        """Name and unit, as an axis bears them."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


UNITS = {
    "shift_x": Unit("shift to the right", "share of the side", lambda half_sides: half_sides / 2),
    "shift_y": Unit("shift down", "share of the side", lambda half_sides: half_sides / 2),
    "rotation": Unit("rotation", "degrees", np.degrees),
    "log_scale": Unit("scale", "factor", np.exp),
    "shear": Unit("shear", "degrees", lambda slope: np.degrees(np.arctan(slope))),
    "own_share": Unit("share of the own image"),
    "mask_contrast": Unit("contrast of the mask", "standard deviation"),
    "latent_change": Unit("change of the latent", "standard deviations"),
    "pixel_change": Unit("change of the pixels", "root mean square"),
}
"""By the last part of the names in `Augmentor.samples`."""


def unit_of(name: str) -> Unit:
    """The unit of a drawn value; an unknown one stays as it is.

    Args:
        name: as the augmentor gives it; in a sequence it begins with the part that draws it.
    """
    part, _, last = name.rpartition(".")
    known = UNITS.get(last)
    if known is None:
        return Unit(name)
    return known if not part else Unit(f"{part}: {known.name}", known.unit, known.convert)


def bounds_in_unit(name: str, bounds: tuple[float, float]) -> tuple[float, float]:
    """The range of a drawn value in its readable unit."""
    low, high = unit_of(name).convert(np.array(bounds, dtype=np.float64)).tolist()
    return low, high
