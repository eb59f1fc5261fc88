"""The record of a recommendation: all numbers so far, and the seconds that they took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hard_ray.files import write_json
from hard_ray.preparation.recommend_folder import RecommendFolder
from hard_ray.runs.summary import versions


@dataclass(slots=True)
class Record:
    """The values of `recommendation.json`, which later starts go on with."""

    folder: RecommendFolder
    values: dict[str, Any]
    written: Callable[[], None] = lambda: None
    """Called after each write."""
    _before: float = 0.0
    _began: float | None = field(default=None)

    @classmethod
    def read(cls, folder: RecommendFolder) -> Record:
        """The numbers of earlier starts; RunFolderError: the file is damaged."""
        values = folder.read_record()
        return cls(folder, values, _before=float(values["spent_s"]))

    def start_clock(self) -> None:
        """Count the time from now on."""
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds over all starts."""
        return self._before + (0.0 if self._began is None else time.monotonic() - self._began)

    def write(self, **values: Any) -> None:
        """Take over values, and write all of them in one step."""
        self.values |= {**values, "spent_s": self.spent, "versions": versions()}
        write_json(self.folder.record, self.values)
        self.written()

    def skip(self, text: str) -> None:
        """Note what was left out."""
        if text not in self.values["skipped"]:
            self.values["skipped"].append(text)
