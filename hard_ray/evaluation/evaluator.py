"""Measures networks on suites, on every rank together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hard_ray.config.runtime import Suite
from hard_ray.distributed import Ranks
from hard_ray.evaluation.metrics import Counts, Score
from hard_ray.evaluation.suites import Condition, conditions
from hard_ray.precision import Precision, widen
from hard_ray.step import BatchLike, resting
from hard_ray.teacher import TeacherPool, Ticket

CACHE_BYTES = 256 * 2**20
"""Images and teacher answers of a split up to this size stay in memory between evaluations."""


class EvalBatch(BatchLike, Protocol):
    """A batch that names the unreadable images met while it was made."""

    @property
    def bad(self) -> tuple[str, ...]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """A suite's score, and its parts by condition and severity."""

    score: Score
    by: dict[str, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, as `evaluation.json` holds them."""
        values = {key: value for key, value in asdict(self.score).items() if value is not None}
        return values | ({"by": self.by} if len(self.by) > 1 or self._severities() > 1 else {})

    def _severities(self) -> int:
        return max((len(severities) for severities in self.by.values()), default=0)


class Evaluator:
    """Measures students, and the teacher beside them, on one split."""

    def __init__(
        self,
        batches: Callable[[], Iterator[EvalBatch]],
        suites: Sequence[Suite],
        *,
        img_size: int,
        pool: TeacherPool | None,
        precision: Precision,
        ranks: Ranks,
        on_bad: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        """`batches` gives this rank's part of the split, from the start; `on_bad` hears of unreadable images."""
        self.batches = batches
        self.conditions = {suite: conditions(suite, img_size=img_size) for suite in suites}
        self.pool = pool
        self.precision = precision
        self.ranks = ranks
        self.on_bad = on_bad
        self._kept: list[tuple[NDArray[np.uint8], Tensor]] | None = None
        self._answers: dict[tuple[int, Condition], Tensor] = {}

    def evaluate(self, network: nn.Module) -> tuple[dict[str, SuiteResult], dict[str, SuiteResult]]:
        """The network's results by suite, and the teacher's; the latter empty where there is no teacher."""
        every = [condition for group in self.conditions.values() for condition in group]
        students = {condition: Counts() for condition in every}
        teachers = {condition: Counts() for condition in every}
        with resting(network), torch.inference_mode():
            for number, (images, labels) in enumerate(self._images()):
                for condition in every:
                    pixels = condition.apply(images)
                    asked = self._ask(number, condition, pixels)
                    logits = self._logits(network, pixels)
                    teacher = self._answer(number, condition, asked)
                    students[condition].add(logits, labels, teacher)
                    if teacher is not None:
                        teachers[condition].add(teacher, labels)
        for counts in (*students.values(), *teachers.values()):
            self._sum(counts)
        with_teacher = self.pool is not None
        results = self._results(students, with_teacher=with_teacher)
        return results, self._results(teachers, with_teacher=False) if with_teacher else {}

    def _images(self) -> Iterator[tuple[NDArray[np.uint8], Tensor]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept, size = [], 0
        for batch in self.batches():
            self.on_bad(batch.bad)
            item = (np.array(batch.images), torch.tensor(batch.labels).to(self.precision.device))
            size += item[0].nbytes
            if size <= CACHE_BYTES:
                kept.append(item)
            yield item
        self._kept = kept if size <= CACHE_BYTES else None

    def _logits(self, network: nn.Module, pixels: NDArray[np.uint8]) -> Tensor:
        images = torch.tensor(pixels).to(self.precision.device).float() / 255.0
        with self.precision.autocast():
            logits: Tensor = network(images.contiguous(memory_format=self.precision.memory_format))
        return widen(logits)

    def _ask(self, number: int, condition: Condition, pixels: NDArray[np.uint8]) -> Ticket[NDArray[np.float32]] | None:
        """Ask the teacher while the student computes, unless its answer is known."""
        if self.pool is None or (number, condition) in self._answers:
            return None
        return self.pool.logits(pixels)

    def _answer(self, number: int, condition: Condition, asked: Ticket[NDArray[np.float32]] | None) -> Tensor | None:
        if asked is None:
            return self._answers.get((number, condition))
        answer = torch.tensor(asked.result()).to(self.precision.device)
        if (len(self._answers) + 1) * answer.nbytes <= CACHE_BYTES:
            self._answers[number, condition] = answer
        return answer

    def _sum(self, counts: Counts) -> None:
        counts.values = self.ranks.sum(counts.values.to(self.precision.device)).cpu()

    def _results(self, counts: dict[Condition, Counts], *, with_teacher: bool) -> dict[str, SuiteResult]:
        return {
            suite: _suite_result({condition: counts[condition] for condition in group}, with_teacher=with_teacher)
            for suite, group in self.conditions.items()
        }


def _suite_result(counts: dict[Condition, Counts], *, with_teacher: bool) -> SuiteResult:
    total = Counts()
    by: dict[str, dict[str, Counts]] = {}
    for condition, counted in counts.items():
        part = by.setdefault(condition.name, {}).setdefault(condition.severity, Counts())
        part.values += counted.values
        total.values += counted.values
    parts = {
        name: {severity: part.score(with_teacher=False).top1 for severity, part in severities.items()}
        for name, severities in by.items()
    }
    return SuiteResult(total.score(with_teacher=with_teacher), parts)
