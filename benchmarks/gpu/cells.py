"""The cells of the table: what is measured, in which order, and by when.

The order is that of the questions: when the time is over, the later cells say so.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.gpu import exactness, speed, with_ray
from benchmarks.gpu.isolated import NO_TIME, Isolated, Outcome, Start, Values
from benchmarks.gpu.with_ray import Place
from benchmarks.gpu.workload import Compile, Method, Pair, Workload
from hard_ray.config.runtime import Dtype


@dataclass(frozen=True, slots=True)
class Cell:
    """One measure in a process of its own."""

    key: tuple[str, ...]
    """Its table, and the first columns of its row."""
    call: Callable[[float], Values]
    """Measures, by the time (of time.monotonic()) that it is given."""
    least_s: float
    """Seconds without which it is not begun."""
    most_s: float
    """Seconds after which it is ended."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how long a measure may take."""

    work: Workload
    start: Start
    hows: tuple[Compile, ...] = ()
    """Modes of torch.compile that are measured beside eager networks."""
    with_ray: bool = False
    cards: int = 0
    at_once: int = 1
    """Networks that may be compiled at the same time."""
    only: str = ""
    """Cells with this in their key."""

    @property
    def seconds(self) -> float:
        """Seconds of the rounds of a cell."""
        return 0.1 if self.work.tiny else 8.0

    @property
    def most_s(self) -> float:
        """Seconds after which a cell is ended; none where a busy CPU stands in for a card."""
        return math.inf if self.work.device == "cpu" else 150.0

    def cells(self) -> Iterator[Cell]:
        """The cells that are wanted."""
        return (cell for cell in self.every() if self.only in " | ".join(cell.key))

    def every(self) -> Iterator[Cell]:
        """Every cell, the most important ones first."""
        first, second = self.work.pairs
        yield from self._speed(False, "KD", "HARD", "CutMix")
        yield from self._ray(first, "KD")
        yield from self._gradient(False)
        for how in self.hows:
            yield from self._warm_up(how)
            yield from self._speed(how, "KD", "HARD")
            yield from self._gradient(how)
        yield from self._bits()
        for how in self.hows:
            yield from self._speed(how, "CutMix")
        yield from self._ray(first, "HARD")
        yield from self._ray(second, "KD")

    def _speed(self, how: Compile, *methods: Method) -> Iterator[Cell]:
        for method in methods:
            for pair in self.work.pairs:
                call = functools.partial(speed.measure, self.work, pair, method, how, self.seconds)
                least = 5.0 if self.work.tiny else 25.0 if how else 15.0
                yield Cell(("speed", pair.title, method, said(how), "in process"), call, least, self.most_s)

    def _warm_up(self, how: Compile) -> Iterator[Cell]:
        if not self.work.tiny:
            methods: tuple[Method, ...] = ("HARD", "KD", "CutMix")
            call = functools.partial(speed.warm_up_together, self.work, methods, how, self.at_once, self.start)
            yield Cell(("compilation", said(how)), call, 60.0, self.most_s)

    def _gradient(self, how: Compile) -> Iterator[Cell]:
        dtypes: set[Dtype] = {"float32", self.work.dtype}
        for pair in self.work.pairs:
            for dtype in sorted(dtypes):
                call = functools.partial(exactness.gradient_difference, self.work, pair, how, dtype)
                yield Cell(
                    ("gradient", pair.title, dtype, said(how)), functools.partial(at_ease, call), 5.0, self.most_s
                )

    def _bits(self) -> Iterator[Cell]:
        for deterministic in (True, False):
            for pair in self.work.pairs:
                digest = functools.partial(
                    exactness.digest_after, self.work, pair, exactness.BIT_UPDATES, deterministic
                )
                for number in ("first", "second"):
                    key = ("bits", pair.title, "yes" if deterministic else "no", number)
                    yield Cell(key, functools.partial(at_ease, digest), 5.0, self.most_s)

    def _ray(self, pair: Pair, method: Method) -> Iterator[Cell]:
        places: list[Place] = ["pool, same card", "pool, own card"]
        for place in places[: max(1, self.cards)] if self.with_ray else []:
            call = functools.partial(with_ray.measure, self.work, pair, method, False, place, self.start)
            yield Cell(("speed", pair.title, method, "no", place), call, 50.0, self.most_s)


def at_ease(call: Callable[[], Values], until: float) -> Values:
    """A measure that is short, whatever the time."""
    del until
    return call()


def said(how: Compile) -> str:
    """How the networks are compiled, as the table says it."""
    return how if isinstance(how, str) else "yes" if how else "no"


def measured(
    cells: Iterable[Cell], until: float, *, start: Start, say: Callable[[str], None]
) -> Iterator[tuple[tuple[str, ...], Outcome]]:
    """Measure one cell after the other; one that does not fit before `until`, of time.monotonic(), is left out."""
    for cell in cells:
        left = until - time.monotonic()
        if left < cell.least_s:
            yield cell.key, Outcome({}, NO_TIME)
            continue
        say(f"{' | '.join(cell.key)} ...")
        began = time.monotonic()
        end = began + min(left, cell.most_s)
        outcome = Isolated(functools.partial(cell.call, end), start=start).result(end)
        say(f"  {outcome.error or numbers(outcome.values)}   ({time.monotonic() - began:.0f} s)")
        yield cell.key, outcome


def numbers(values: Mapping[str, object]) -> str:
    """Values in one line."""
    texts = (
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {str(value)[:12]}"
        for name, value in values.items()
    )
    return ", ".join(texts)
