"""What networks are judged by: top-1, without labels agreement with the teacher, without classes cosine similarity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MEASURES = {"top1": "top-1", "agreement": "agreement with the teacher", "cosine": "cosine similarity to the teacher"}
"""What a network is judged by, in percent: the first that is known; and how tables call it."""


def short(measure: str) -> str:
    """A measure in a word, for axes and the heads of columns."""
    return {"top1": "top-1"}.get(measure, measure)


def measure_of(suites: Mapping[str, Any]) -> str:
    """What an evaluation judges networks by: the first of `MEASURES` that it holds for every suite."""
    return next(name for name in MEASURES if all(name in result for result in suites.values()))


def scores(suites: Mapping[str, Any]) -> dict[str, float]:
    """What networks are judged by, in percent by suite, from an evaluation."""
    measure = measure_of(suites)
    return {suite: result[measure] for suite, result in suites.items()}


def logged_measure(points: Iterable[Mapping[str, Any]]) -> str:
    """What the evaluations of a log judge networks by."""
    measures = {name.rpartition("/")[2] for point in points for name in point}
    return next((measure for measure in MEASURES if measure in measures), "top1")


def logged_scores(
    points: Iterable[Mapping[str, Any]], split: str = "val", *, measure: str | None = None
) -> dict[str, str]:
    """The logged name of a measure on a split by suite; None: of what networks are judged by."""
    points = list(points)
    names = dict.fromkeys(name for point in points for name in point if name.startswith(f"{split}/"))
    measure = measure or logged_measure([names])
    return {suite_of(name): name for name in names if name.endswith(f"/{measure}")}


def suite_of(name: str) -> str:
    """The suite of a logged name: `val/SUITE/top1`, and `val/top1` for clean images."""
    parts = name.split("/")
    return "/".join(parts[1:-1]) or "clean"
