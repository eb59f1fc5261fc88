"""Batches in the order of their use, about which the teacher is asked ahead of time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hard_ray.data.batch import Batch
from hard_ray.distillation.phases import Prepared
from hard_ray.distillation.step import Updater


@dataclass(slots=True)
class Prefetch:
    """Prepares batches while earlier ones are still trained on."""

    batches: Iterator[Batch]
    updater: Updater
    note_bad: Callable[[Sequence[str], Mapping[str, str]], None]
    """Receives the names of a batch's unreadable images, and why they are."""
    learned: bool
    """Whether the augmentor has anything to learn."""
    ahead: int = 1
    """Batches that the teacher is asked about before they are used."""
    _asked: deque[Prepared] = field(init=False, default_factory=deque)

    def next(self, *, student_next: bool, left: int) -> Prepared:
        """Prepare the next batch; it is for a student update, with no augmentor update before it, if `student_next`.

        Nothing is asked beyond the `left` student updates that are sure to come.
        """
        # 1. Ask for t(x): clean images stay the same whatever is updated before they are used. So does an
        #    augmented view that is not learned, and `prepare` asks about it at once.
        while len(self._asked) < max(1, min(self.ahead, left)):
            self._asked.append(self._ask())
        prepared = self._asked.popleft()
        # 2. Ask for t(x~) where x~ = g_phi(x) is learned: only if phi rests until the batch is used.
        if student_next:
            self.second_view(prepared)
        return prepared

    def second_view(self, prepared: Prepared) -> None:
        """Ask about the augmented view of a batch, if it is learned: phi rests until the batch is used."""
        if self.learned:
            self.updater.second_view(prepared)

    def _ask(self) -> Prepared:
        start = time.perf_counter()
        batch = next(self.batches)
        self.updater.clock.add("data_wait", start)
        self.note_bad(batch.bad, batch.reasons)
        return self.updater.prepare(batch, second_view=not self.learned)
