"""The numbers of finished rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.rows import Row

Result = Mapping[str, Any]
"""The content of a result file."""
TITLES = {
    "clean": "clean",
    "adversarial": "PGD",
    "agreement": "agreement with the teacher",
    "seconds": "seconds of training",
}
"""Titles of columns that are not called by their names."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over the seeds that have it."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean."""
        return sum(self.values) / len(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)

    @property
    def width(self) -> float:
        """The distance from the smallest to the largest: the seeds' range."""
        return self.high - self.low

    def text(self, digits: int = 1) -> str:
        """Mean and, where the seeds differ, range."""
        mean, low, high = (f"{value:.{digits}f}" for value in (self.mean, self.low, self.high))
        return mean if self.low == self.high else f"{mean} ({low} to {high})"


def read_results(rows: Sequence[Row]) -> list[Result]:
    """The results of those rows that have one."""
    return [json.loads(row.result.read_text(encoding="utf-8")) for row in rows if row.result.exists()]


def value(result: Result, model: str, column: str) -> float | None:
    """The number of a model in a column of a table; None if the row did not measure it.

    A column is a suite (top-1 in percent), `test loss` (nats), `severity N` (of the corruptions), `agreement` with the
    teacher on clean images, `agreement under corruptions`, `seconds` of training, or `probe SUITE` and `probe knn`:
    top-1 of a linear classifier and of nearest neighbours on the student's features.
    """
    kind, _, rest = column.partition(" ")
    found: Any
    match kind:
        case "test":
            found = result["test_loss"].get(model)
        case "severity":
            found = _at_severity(by_suite(result, model).get("corruptions", {}), rest)
        case "agreement":
            suite = rest.removeprefix("under ") or "clean"
            found = result.get("agreement", {}).get(model, {}).get(suite)
        case "probe":
            found = result.get("probe", {}).get(rest) if model == "student" else None
        case "seconds":
            found = result["costs"].get(model, {}).get("seconds")
        case _:
            found = result["models"].get(model, {}).get(column)
    return None if found is None else float(found)


def spread(results: Sequence[Result], model: str, column: str) -> Spread | None:
    """A column's numbers of a model over results; None if none of them has it."""
    values = tuple(found for result in results if (found := value(result, model, column)) is not None)
    return Spread(values) if values else None


def by_suite(result: Result, model: str) -> Mapping[str, Any]:
    """A model's accuracy by suite, condition and severity."""
    found: Mapping[str, Any] = result["teacher_by"] if model == "teacher" else result["by"].get(model, {})
    return found


def _at_severity(conditions: Mapping[str, Mapping[str, float]], severity: str) -> float | None:
    values = [severities[severity] for severities in conditions.values() if severity in severities]
    return sum(values) / len(values) if values else None
