"""Unreadable images: the names found so far, and the number that is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hard_ray.config.data import DataConfig
from hard_ray.errors import DataError
from hard_ray.files import write_text


@dataclass(slots=True)
class BadImages:
    """The names of unreadable images, and the budget of `data.max_bad_fraction`."""

    limit: int
    """Unreadable images that are allowed."""
    names: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why images cannot be read, as far as it is known."""

    @classmethod
    def allowed_by(cls, data: DataConfig, images: int) -> BadImages:
        """The budget of a data set of so many images."""
        return cls(int(data.max_bad_fraction * images))

    @property
    def first(self) -> str:
        """The first name in sorted order, for a message, with the reason if it is known."""
        first = min(self.names, default="none")
        return f"{first} ({self.reasons[first]})" if self.reasons.get(first) else first

    def add(self, names: Iterable[str], reasons: Mapping[str, str] | None = None) -> None:
        """Note unreadable images, and why they are; DataError: there are more than allowed."""
        self.names.update(names)
        self.reasons.update(reasons or {})
        if problem := self.problem():
            raise problem

    def problem(self, *, listed_in: Path | None = None) -> DataError | None:
        """The error to raise if there are more than allowed; `listed_in` is a file with all names."""
        if len(self.names) <= self.limit:
            return None
        where = f"; all are listed in {listed_in}" if listed_in is not None else ""
        return DataError(
            f"{len(self.names)} images cannot be read, more than the {self.limit} that data.max_bad_fraction allows; "
            f"repair or remove them, first {self.first}{where}"
        )

    def write(self, path: Path) -> None:
        """Write the names in sorted order, one a line."""
        write_text(path, "".join(f"{name}\n" for name in sorted(self.names)))
