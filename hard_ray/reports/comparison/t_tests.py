"""Whether two ways of training differ by more than their seeds: t-tests on one number for each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

CONFIDENCE = 0.95
FEW = 10
"""Seeds below which a t-test leans on its assumption."""

Sample = Sequence[tuple[int, float]]
"""Seed and value of each run."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The second sample's mean minus the first's, and what a t-test says of it."""

    test: Literal["paired", "welch"]
    n: tuple[int, int]
    """Values of each sample that were used; of a paired test the number of pairs, twice."""
    difference: float
    low: float | None
    """Lower end of the 95 % confidence interval; None where nothing scatters, and nothing can be tested."""
    high: float | None
    p: float | None
    """Two-sided."""


def compare_means(first: Sample, second: Sample) -> Difference | None:
    """A paired t-test over the seeds that both have, or Welch's where they share fewer than two.

    Values of other seeds take no part in a paired test. None where a sample has fewer than two values.

    Source: Student 1908, and Welch 1947, Biometrika 34, by scipy's `ttest_rel` and `ttest_ind(equal_var=False)`.
    """
    if min(len(first), len(second)) < 2:
        return None
    pairs = _pairs(first, second)
    if len(pairs) >= 2:
        return _paired(pairs)
    return _welch([value for _, value in first], [value for _, value in second])


def _pairs(first: Sample, second: Sample) -> list[tuple[float, float]]:
    """The values of the seeds that both have; none where a seed stands twice, because it has no one partner."""
    one, other = dict(first), dict(second)
    if len(one) < len(first) or len(other) < len(second):
        return []
    return [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]


def _paired(pairs: Sequence[tuple[float, float]]) -> Difference:
    from scipy.stats import ttest_rel

    one, other = ([pair[place] for pair in pairs] for place in (0, 1))
    n, difference = len(pairs), _mean(other) - _mean(one)
    if not _scatters([b - a for a, b in pairs]):
        return Difference("paired", (n, n), difference, None, None, None)
    return _told("paired", (n, n), difference, ttest_rel(other, one))


def _welch(one: Sequence[float], other: Sequence[float]) -> Difference:
    from scipy.stats import ttest_ind

    n, difference = (len(one), len(other)), _mean(other) - _mean(one)
    if not (_scatters(one) or _scatters(other)):
        return Difference("welch", n, difference, None, None, None)
    return _told("welch", n, difference, ttest_ind(other, one, equal_var=False))


def _told(test: Literal["paired", "welch"], n: tuple[int, int], difference: float, found: Any) -> Difference:
    interval = found.confidence_interval(CONFIDENCE)
    return Difference(test, n, difference, float(interval.low), float(interval.high), float(found.pvalue))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _scatters(values: Sequence[float]) -> bool:
    """Whether there is more than the rounding of equal numbers."""
    return max(values) - min(values) > 1e-9 * max(1.0, *map(abs, values))


def cautions(found: Sequence[Difference]) -> list[str]:
    """What a reader should know before believing such tests, in plain English."""
    if not found:
        return []
    lines = []
    fewest = min(min(difference.n) for difference in found)
    if fewest < FEW:
        lines.append(
            f"With as few as {fewest} seeds a t-test rests on the assumption that results scatter normally over seeds, "
            "which so few cannot show. Take a small p as a hint, and more seeds as the proof; a large p does not say "
            "that two ways are equally good, only that these seeds do not tell them apart."
        )
    tested = sum(difference.p is not None for difference in found)
    if tested > 1:
        lines.append(
            f"Of {tested} tests between ways that do not differ at all, about {tested / 20:.2g} would still have p "
            "below 0.05: the p are not corrected for their number."
        )
    if tested < len(found):
        lines.append("Where no p is given, the difference is the same for every seed, and there is nothing to test.")
    return lines
