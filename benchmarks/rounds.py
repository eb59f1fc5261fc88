"""Measures that take turns, and the medians of their ratios. Nothing here imports torch or Ray."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def interleaved(
    measures: Mapping[str, Callable[[], float]], rounds: int, say: str = "", *, until: float = math.inf
) -> dict[str, list[float]]:
    """Run each measure once per round, in reverse order in every other round, so that other load affects all alike.

    With `say`, its unit, each is printed as it is there. No round begins after `until`, of time.monotonic(), but the
    first.
    """
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        if number and time.monotonic() >= until:
            break
        for name in list(measures)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(measures[name]())
            if say:
                print(f"    round {number + 1}, {name}: {found[name][-1]:.1f} {say}", flush=True)
    return found


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def median(values: Sequence[float]) -> float:
    """Median."""
    return statistics.median(values)
