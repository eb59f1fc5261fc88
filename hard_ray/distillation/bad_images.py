"""Unreadable images that the ranks of a run met, exchanged between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hard_ray.ranks import Ranks
from hard_ray.runs.bad_images import BadImages


@dataclass(slots=True)
class SharedBadImages:
    """The budget of unreadable images over all ranks."""

    known: BadImages
    """Images that every rank knows of."""
    ranks: Ranks
    listed_in: Path
    """The file that the first rank lists them in."""
    new: set[str] = field(default_factory=set)
    """Images that only this rank knows of."""

    def note(self, names: Sequence[str], reasons: Mapping[str, str] | None = None) -> None:
        """Collect unreadable images, and why they are, until the ranks exchange them."""
        self.new |= set(names) - self.known.names
        self.known.reasons.update(reasons or {})

    def merge(self) -> None:
        """Exchange unreadable images between the ranks, which all call this; raises AgreedError if too many."""
        own = [(name, self.known.reasons.get(name, "")) for name in sorted(self.new)]
        found = {name: reason for pairs in self.ranks.gather(own) for name, reason in pairs}
        self.new = set()
        if found.keys() <= self.known.names:
            return
        self.known.names |= found.keys()
        self.known.reasons.update(found)
        if self.ranks.is_first:
            self.known.write(self.listed_in)
        if problem := self.known.problem(listed_in=self.listed_in):
            self.ranks.agree(problem)
