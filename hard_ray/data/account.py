"""The account of a data set: what was found, what is used, and what was left out and why.

The finders of `sources/` fill it; the dry run, `doctor --data` and `summary.json` print it. Nothing is left out or
guessed without an entry here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class LeftOut:
    """Files, members or rows that are not used, for one reason."""

    count: int
    example: str
    """The first of them."""


@dataclass(slots=True)
class Tally:
    """One listing: everything that was found in it is used, or left out for a reason."""

    found: Counter[str] = field(default_factory=Counter)
    """By suffix, in lower case (`.jpg`), or by column for rows."""
    used: int = 0
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    """By reason."""
    by_content: Counter[str] = field(default_factory=Counter)
    """Images by suffix that only their content told."""

    def find(self, suffix: str, *, count: int = 1) -> None:
        """Count what was found, by suffix; files without one as `no suffix`."""
        self.found[suffix or "no suffix"] += count

    def leave_out(self, reason: str, example: str, *, count: int = 1) -> None:
        """Count what is not used; the first example of a reason is kept."""
        shown = example.encode("utf-8", "backslashreplace").decode()  # a file's name may be no text
        entry = self.left_out.setdefault(reason, LeftOut(0, shown))
        entry.count += count

    @property
    def seen(self) -> str:
        """What was found, for a message that nothing of it can be used: ` (it holds 3 .txt)`."""
        shown = ", ".join(f"{count:,} {suffix}" for suffix, count in self.found.most_common(5))
        return f" (it holds {shown})" if shown else ""

    def add(self, other: Tally) -> None:
        """Add another listing of the same kind, which follows this one."""
        self.found.update(other.found)
        self.used += other.used
        self.by_content.update(other.by_content)
        for reason, entry in other.left_out.items():
            self.leave_out(reason, entry.example, count=entry.count)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        left_out = {reason: {"count": each.count, "example": each.example} for reason, each in self.left_out.items()}
        return {
            "found": dict(self.found),
            "used": self.used,
            "left_out": left_out,
            "by_content": dict(self.by_content),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """The inverse of `to_json`."""
        left_out = {reason: LeftOut(**entry) for reason, entry in values["left_out"].items()}
        return cls(Counter(values["found"]), values["used"], left_out, Counter(values["by_content"]))

    @property
    def adds_up(self) -> bool:
        """Whether everything found is used or left out."""
        return self.found.total() == self.used + sum(entry.count for entry in self.left_out.values())


@dataclass(slots=True)
class Account:
    """What the finder of a source saw and decided."""

    files: Tally = field(default_factory=Tally)
    """The files below the folder."""
    items: Tally = field(default_factory=Tally)
    """The members of tar files, or the rows of Parquet files."""
    origins: dict[str, str] = field(default_factory=dict)
    """Where each split comes from: a folder, files, or the seed that split it off."""
    notes: list[str] = field(default_factory=list)
    """Guesses and peculiarities, a sentence each."""
    said: list[str] = field(default_factory=list)
    """How the index was made at this start, a sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, without what concerns this start alone."""
        tallies = {"files": self.files.to_json(), "items": self.items.to_json()}
        return {**tallies, "origins": self.origins, "notes": self.notes}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Account:
        """The inverse of `to_json`."""
        files, items = (Tally.from_json(values[name]) for name in ("files", "items"))
        return cls(files, items, dict(values["origins"]), list(values["notes"]))
