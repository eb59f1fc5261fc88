"""The cells of the table: what is measured, in which order, and by when.

The order is that of the questions: when the time is over, the later cells say so.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.gpu import exactness, speed
from benchmarks.gpu.isolated import NO_TIME, Isolated, Outcome, Start, Values
from benchmarks.gpu.plain import Compile
from benchmarks.gpu.workload import METHODS, Workload
from hard_ray.config.runtime import Dtype

COMPILED = True
"""The default mode of torch.compile."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measure in a process of its own."""

    key: tuple[str, ...]
    """Its table, and the first columns of its row."""
    call: Callable[[], Values]
    least_s: float
    """Seconds without which it is not begun."""
    most_s: float
    """Seconds after which it is ended."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how long a measure may take."""

    work: Workload
    hows: tuple[Compile, ...]
    with_ray: bool
    only: str = ""
    """Cells with this in their key."""

    @property
    def seconds(self) -> float:
        """Seconds of the rounds of a cell."""
        return 0.1 if self.work.tiny else 10.0

    def cells(self) -> Iterator[Cell]:
        """The cells, the most important ones first."""
        return (cell for cell in self._all() if self.only in " | ".join(cell.key))

    def _all(self) -> Iterator[Cell]:
        yield from self._speed(False)
        if self.with_ray:
            yield from self._ray()
        yield from self._bits()
        yield from self._gradient(False)
        for how in self.hows:
            yield from self._speed(how)
            yield from self._gradient(how)

    def _speed(self, how: Compile) -> Iterator[Cell]:
        for method in METHODS:
            for pair in self.work.pairs:
                call = functools.partial(speed.measure, self.work, pair, method, how, self.seconds)
                least = 5.0 if self.work.tiny else 20.0 if not how else 30.0
                yield Cell(("speed", pair.title, method, said(how), "in process"), call, least, 150.0)

    def _gradient(self, how: Compile) -> Iterator[Cell]:
        dtypes: set[Dtype] = {"float32", self.work.dtype}
        for pair in self.work.pairs:
            for dtype in sorted(dtypes):
                call = functools.partial(exactness.gradient_difference, self.work, pair, how, dtype)
                yield Cell(("gradient", pair.title, dtype, said(how)), call, 5.0, 120.0)

    def _bits(self) -> Iterator[Cell]:
        for deterministic in (True, False):
            for pair in self.work.pairs:
                for number in ("first", "second"):
                    call = functools.partial(
                        exactness.digest_after, self.work, pair, exactness.BIT_UPDATES, deterministic
                    )
                    yield Cell(("bits", pair.title, "yes" if deterministic else "no", number), call, 5.0, 60.0)

    def _ray(self) -> Iterator[Cell]:
        return iter(())


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
        outcome = Isolated(cell.call, start=start).result(began + min(left, cell.most_s))
        say(f"  {outcome.error or numbers(outcome.values)}   ({time.monotonic() - began:.0f} s)")
        yield cell.key, outcome


def numbers(values: Mapping[str, object]) -> str:
    """Values in one line."""
    texts = (
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {str(value)[:12]}"
        for name, value in values.items()
    )
    return ", ".join(texts)
