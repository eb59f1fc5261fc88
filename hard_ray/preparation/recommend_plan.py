"""The plan of a recommendation: how many students are trained for how long, so that the budget is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

FEWEST = 50
"""Student updates of the shortest pilot."""
RIPE_SHARE = 0.1
"""Share of the whole training before which a harder view has rarely paid; a choice among shorter pilots is hasty."""
FEWEST_RIPE = 2
"""Candidates that are compared at least, where some are left out so that the others' pilots are long enough."""
MOST_RUNGS = 3
GROWTH = 2
"""Factor of the updates from a rung to the next, to which one in so many candidates goes on."""
HALVING_SHARE = 0.6
"""Share of the time for the rungs; the rest is for other seeds, strengths and temperatures of the best."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that pilots take, as measured."""

    session_s: float
    """From the start of a rung to the first update of its first pilot."""
    pilot_s: float
    """The start, end and measurement of a pilot."""
    update_s: Mapping[str, float]
    """A student update by name of the pilot, with the augmentor updates that go with it."""

    def seconds(self, names: Sequence[str], updates: int) -> float:
        """The time of a rung: the pilots follow each other in one session."""
        return self.session_s + sum(self.pilot_s + updates * self.update_s[name] for name in names)

    def updates(self, names: Sequence[str], seconds: float) -> int:
        """The student updates that fit into a time."""
        return _whole((seconds - self.seconds(names, 0)) / sum(self.update_s[name] for name in names))


@dataclass(frozen=True, slots=True)
class Halving:
    """Rungs of pilots, each with fewer candidates and more updates than the one before."""

    references: tuple[str, ...]
    """They are in every rung."""
    candidates: tuple[str, ...]
    """Those of the first rung."""
    counts: tuple[int, ...]
    """Candidates of each rung."""
    updates: tuple[int, ...]
    """Student updates of each rung's pilots."""
    left_out: tuple[str, ...] = ()
    """References and candidates without a pilot for lack of time."""


def counts_of(candidates: int) -> tuple[int, ...]:
    """Candidates of each rung: one in GROWTH goes on, to the last one alone."""
    counts = [candidates]
    while counts[-1] > 1 and len(counts) < MOST_RUNGS:
        counts.append(max(1, counts[-1] // GROWTH))
    return tuple(counts)


def plan_halving(
    costs: Costs, references: Sequence[str], candidates: Sequence[str], *, seconds: float, total: int
) -> Halving | None:
    """The rungs that fit into the time, with pilots of at most `total` updates; None: not even two pilots fit.

    The first rung is long enough for a choice among its pilots: better fewer rungs, then fewer candidates, and then
    fewer references than a hasty one. Where the time does not allow that, it is the most rungs of all candidates, and
    then the most candidates. A share of the time stays free where that allows a rung.
    """
    fewest, share = min(FEWEST, total), HALVING_SHARE * seconds
    ripe = max(fewest, math.ceil(RIPE_SHARE * total))
    return (
        _of_all(costs, references, candidates, seconds=share, least=ripe, total=total)
        or _of_some(costs, references, candidates, seconds=share, least=ripe, total=total, fewest=FEWEST_RIPE)
        or _of_all(costs, references, candidates, seconds=share, least=fewest, total=total)
        or _of_some(costs, references, candidates, seconds=seconds, least=fewest, total=total, fewest=1)
    )


def _of_all(
    costs: Costs, references: Sequence[str], candidates: Sequence[str], *, seconds: float, least: int, total: int
) -> Halving | None:
    """The most rungs of all candidates whose first has `least` updates or more; None: there is no time for one."""
    counts = counts_of(len(candidates))
    for rungs in range(len(counts), 0, -1):
        longest: int = total // GROWTH ** (rungs - 1)
        first = min(_first(costs, references, candidates, counts[:rungs], seconds), longest)
        if first >= least:
            updates = tuple(first * int(GROWTH**rung) for rung in range(rungs))
            return Halving(tuple(references), tuple(candidates), counts[:rungs], updates)
    return None


def _of_some(
    costs: Costs,
    references: Sequence[str],
    candidates: Sequence[str],
    *,
    seconds: float,
    least: int,
    total: int,
    fewest: int,
) -> Halving | None:
    """One rung of `least` updates or more with as many of the first candidates as possible, `fewest` at least."""
    for kept, tried in _smaller(references, candidates, fewest):
        length = min(costs.updates([*kept, *tried], seconds), total)
        if length >= least:
            left_out = tuple(name for name in (*references, *candidates) if name not in (*kept, *tried))
            return Halving(tuple(kept), tuple(tried), (len(tried),), (length,), left_out)
    return None


def next_updates(costs: Costs, plan: Halving, rung: int, current: Sequence[str], *, seconds: float, total: int) -> int:
    """Updates of a rung after the first, by what the ones before it took; fewer than before: there is no time for it.

    It is as long as planned or, where pilots are faster than they were thought to be, as the same share of the time
    that is left allows.
    """
    left = plan.counts[rung:]
    share = _first(costs, plan.references, current, left, HALVING_SHARE * seconds)
    fits = costs.updates([*plan.references, *current], seconds)
    most: int = total // GROWTH ** (len(left) - 1)
    return min(max(plan.updates[rung], share), fits, most)


def _first(
    costs: Costs, references: Sequence[str], candidates: Sequence[str], counts: Sequence[int], seconds: float
) -> int:
    """Updates of the first rung, if the dearest candidates go on."""
    dearest = sorted(candidates, key=lambda name: -costs.update_s[name])
    rungs = [[*references, *dearest[:count]] for count in counts]
    once = sum(costs.seconds(names, 0) for names in rungs)
    each = sum(float(GROWTH**rung) * costs.update_s[name] for rung, names in enumerate(rungs) for name in names)
    return _whole((seconds - once) / each)


def _whole(updates: float) -> int:
    return math.floor(updates + 1e-6)  # what fits exactly may be a rounding error short


def _smaller(
    references: Sequence[str], candidates: Sequence[str], fewest: int
) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Fewer and fewer pilots: the last candidates have none, and then all references but the first."""
    for kept in (references, references[:1]):
        for count in range(len(candidates), fewest - 1, -1):
            yield kept, candidates[:count]


def needed(costs: Costs, reference: str, candidate: str, *, total: int) -> float:
    """Seconds of the smallest comparison: one reference and one candidate."""
    return costs.seconds([reference, candidate], min(FEWEST, total))


def shown(seconds: float) -> str:
    """A time for messages."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
