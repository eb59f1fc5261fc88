"""t-tests of whether two ways of training differ by more than the variation over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

CONFIDENCE = 0.95
FEW = 10
"""With fewer seeds, a t-test depends on the assumption of normality."""

Sample = Sequence[tuple[int, float]]
"""Seed and value of each run."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The second sample's mean minus the first's, and its t-test."""

    test: Literal["paired", "welch"]
    n: tuple[int, int]
    """Number of values used from each sample; for a paired test, both are the number of pairs."""
    difference: float
    low: float | None
    """Lower end of the 95 % confidence interval; None: the values do not vary, so there is no test."""
    high: float | None
    p: float | None
    """Two-sided."""


def compare_means(first: Sample, second: Sample) -> Difference | None:
    """Run a paired t-test over the common seeds, or Welch's test if there are fewer than two.

    A paired test ignores values of other seeds. None: a sample has fewer than two values.

    Source: Student 1908, and Welch 1947, Biometrika 34, by scipy's `ttest_rel` and `ttest_ind(equal_var=False)`.
    """
    if min(len(first), len(second)) < 2:
        return None
    pairs = _pairs(first, second)
    if len(pairs) >= 2:
        return _paired(pairs)
    return _welch([value for _, value in first], [value for _, value in second])


def _pairs(first: Sample, second: Sample) -> list[tuple[float, float]]:
    """The values of common seeds; none if a sample has a duplicate seed, which has no unique partner."""
    one, other = dict(first), dict(second)
    if len(one) < len(first) or len(other) < len(second):
        return []
    return [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]


def _paired(pairs: Sequence[tuple[float, float]]) -> Difference:
    from scipy.stats import ttest_rel

    one, other = ([pair[place] for pair in pairs] for place in (0, 1))
    n, difference = len(pairs), _mean(other) - _mean(one)
    if not _varies([b - a for a, b in pairs]):
        return Difference("paired", (n, n), difference, None, None, None)
    return _tested("paired", (n, n), difference, ttest_rel(other, one))


def _welch(one: Sequence[float], other: Sequence[float]) -> Difference:
    from scipy.stats import ttest_ind

    n, difference = (len(one), len(other)), _mean(other) - _mean(one)
    if not (_varies(one) or _varies(other)):
        return Difference("welch", n, difference, None, None, None)
    return _tested("welch", n, difference, ttest_ind(other, one, equal_var=False))


def _tested(test: Literal["paired", "welch"], n: tuple[int, int], difference: float, found: Any) -> Difference:
    interval = found.confidence_interval(CONFIDENCE)
    return Difference(test, n, difference, float(interval.low), float(interval.high), float(found.pvalue))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _varies(values: Sequence[float]) -> bool:
    return max(values) - min(values) > 1e-9 * max(1.0, *map(abs, values))


def cautions(found: Sequence[Difference]) -> list[str]:
    """Caveats about such tests, as sentences for a reader."""
    if not found:
        return []
    lines = []
    fewest = min(min(difference.n) for difference in found)
    if fewest < FEW:
        lines.append(
            f"With as few as {fewest} seeds, a t-test assumes that results are normally distributed over seeds, which "
            "so few cannot show. A small p is a hint that more seeds must confirm; a large p does not mean that two "
            "ways are equally good, only that these seeds do not separate them."
        )
    tested = sum(difference.p is not None for difference in found)
    if tested > 1:
        lines.append(
            f"Of {tested} tests between ways that do not differ, about {tested / 20:.2g} would still have p below "
            "0.05: the values of p are not corrected for multiple tests."
        )
    if tested < len(found):
        lines.append("If no p is given, the difference is the same for every seed, and there is nothing to test.")
    return lines
