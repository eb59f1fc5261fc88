"""The validation of a run: measures networks on suites, on all ranks together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hard_ray.augmentors.labels import Labels, filled
from hard_ray.config.validation import PGD, EvaluationAttack, Suite
from hard_ray.data.batch import Batch
from hard_ray.distillation.messages import Ticket
from hard_ray.distillation.teacher import Answered, TeacherPool, handed, label_gradient, own_answer
from hard_ray.errors import AgreedError
from hard_ray.evaluation.attacked import attacked, own_gradient
from hard_ray.evaluation.cache import EvaluationCache
from hard_ray.evaluation.changes import Change, Unchanged
from hard_ray.evaluation.corruptions import package_version
from hard_ray.evaluation.results import suite_result
from hard_ray.evaluation.suites import Condition, conditions
from hard_ray.maths.metrics import Counts, SuiteResult
from hard_ray.networks.precision import Images, Precision, resting, widen
from hard_ray.ranks import Ranks

CACHE_BYTES = 256 * 2**20
"""Limit for each of images, slowly changed images and teacher answers that stay in memory between evaluations."""


@dataclass(frozen=True, slots=True)
class _LabelledImages:
    """A batch of a split, before or after a change."""

    images: NDArray[np.uint8]
    labels: Tensor
    sample_ids: NDArray[np.int64]


@dataclass(eq=False)
class Evaluator:
    """Measures students, and the teacher beside them, on one split; nothing is read before the first evaluation."""

    batches: Callable[[], Iterator[Batch]]
    """Yields this rank's part of the split from the start."""
    suites: Sequence[Suite]
    _: KW_ONLY
    img_size: int
    """Height and width of the images, in pixels."""
    pool: TeacherPool | None
    """The teacher to compare with, if there is one."""
    precision: Precision
    ranks: Ranks
    sample: NDArray[np.int64] | None = None
    """Sample ids of the images that are changed; None: all."""
    slow_sample: NDArray[np.int64] | None = None
    """Sample ids of the images that get slow changes; None: all."""
    attack_sample: NDArray[np.int64] | None = None
    """Sample ids of the images that are attacked; None: all."""
    severities: Sequence[int] = (3,)
    attack: EvaluationAttack = PGD
    counts: Callable[[], Counts] = Counts
    """What is counted: classes, or embeddings."""
    cache: EvaluationCache | None = None
    """Holds slowly changed images and the teacher's answers between runs."""
    on_bad: Callable[[Sequence[str]], None] = lambda _: None
    """Callback for the names of unreadable images."""
    on_answers: Callable[[Change, NDArray[np.int64], Tensor, Tensor, Tensor | None], None] | None = None
    """Callback for sample ids, labels, logits and, if there is a teacher, its logits on a batch under a change."""
    _batches_in_memory: list[_LabelledImages] | None = field(init=False, default=None)
    _answers: dict[tuple[int, Change | EvaluationAttack], Tensor] = field(init=False, default_factory=dict)
    _changed: dict[tuple[int, Change], _LabelledImages] = field(init=False, default_factory=dict)
    _changed_bytes: int = field(init=False, default=0)
    _first_bad: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        sampled = self.sample is not None
        self.conditions = {
            suite: conditions(
                suite, img_size=self.img_size, sampled=sampled, severities=self.severities, attack=self.attack
            )
            for suite in self.suites
        }
        found = [each for group in self.conditions.values() for each in group]
        self.changes = list(dict.fromkeys(each.change for each in found if each.attack is None))
        self.attacks = list(dict.fromkeys(each.attack for each in found if each.attack is not None))
        self._teacher = self.pool.identity() if self.pool is not None and self.cache is not None else ""

    def evaluate(self, network: nn.Module) -> tuple[dict[str, SuiteResult], dict[str, SuiteResult]]:
        """Measure a network; return its results by suite, and the teacher's (empty without a teacher, or labels).

        Raises AgreedError if none of the images of a suite can be read.
        """
        students, teachers = self._counts(), self._counts()
        with resting(network), torch.inference_mode():
            for number, batch in enumerate(self._batches()):
                for change in self.changes:
                    found = self._under(number, batch, change)
                    if not len(found.images):
                        continue
                    asked = self._ask(number, change, found.images)
                    logits = self._logits(network, found.images)
                    teacher = self._answer(number, change, found.images, asked)
                    students[change].add(logits, found.labels, teacher)
                    if self.on_answers is not None:
                        self.on_answers(change, found.sample_ids, found.labels, logits, teacher)
                    if teacher is not None:
                        teachers[change].add(teacher, found.labels)
                for attack in self.attacks:
                    given = _within(batch, self.attack_sample)
                    if len(given.images):
                        self._attack(network, number, attack, given, (students[attack], teachers[attack]))
        for counts in (*students.values(), *teachers.values()):
            counts.values = self.ranks.sum(counts.values.to(self.precision.device)).cpu()
        self._refuse_unread(students)
        with_teacher = self.pool is not None
        results = self._results(students, with_teacher=with_teacher)
        has_labels = all(result.metrics.top1 is not None for result in results.values())
        return results, self._results(teachers, with_teacher=False) if with_teacher and has_labels else {}

    def _counts(self) -> _Counted:
        counts: _Counted = {change: self.counts() for change in self.changes}
        return counts | {attack: self.counts() for attack in self.attacks}

    def _attack(
        self,
        network: nn.Module,
        number: int,
        attack: EvaluationAttack,
        given: _LabelledImages,
        counts: tuple[Counts, Counts],
    ) -> None:
        """Count images under an attack: each network by its own gradient, agreement on the student's images."""
        student, teacher = counts
        own, labels = own_gradient(network, self.precision), self._attacked_labels(network, given)
        seen = attacked(given.images, labels, given.sample_ids, own, attack, self.precision)
        logits = self._logits(network, seen)
        if self.pool is None:
            student.add(logits, given.labels)
            return
        answer = own_answer(self.pool, self.precision)(seen)
        student.add(logits, given.labels, answer)
        if (given.labels >= 0).all():
            teacher.add(self._attacked_teacher(self.pool, number, attack, given), given.labels)

    def _attacked_labels(self, network: nn.Module, given: _LabelledImages) -> Labels:
        """The labels or, for images without one, the teacher's answers, of which the attack leads away."""
        if (given.labels >= 0).all():
            return given.labels
        if self.pool is None:
            answers = self._logits(network, given.images)
        else:
            answers = own_answer(self.pool, self.precision)(self.precision.images(given.images))
        return filled(given.labels, answers.argmax(dim=1))

    def _attacked_teacher(
        self, pool: TeacherPool, number: int, attack: EvaluationAttack, given: _LabelledImages
    ) -> Tensor:
        """The teacher's answers on images that its own gradient changed, which are the same in every evaluation."""
        if (number, attack) in self._answers:
            return self._answers[number, attack]
        name, decisive = f"{self._teacher} {attack!r}", (given.labels.cpu().numpy(), given.sample_ids)
        logits = self.cache.answer(name, given.images, *decisive) if self.cache else None
        if logits is None:
            gradient = label_gradient(pool, self.precision)
            seen = attacked(given.images, given.labels, given.sample_ids, gradient, attack, self.precision)
            logits = pool.logits(handed(pool, seen)).result()
            if self.cache:
                self.cache.keep_answer(name, given.images, logits, *decisive)
        return self._in_memory(number, attack, logits)

    def _refuse_unread(self, counts: _Counted) -> None:
        """Refuse a suite without images, of which a top-1 of 0 % would say something wrong; on all ranks alike."""
        first = self._first_bad or "on another rank"
        for suite, group in self.conditions.items():
            if not all(counts[_key(each)].values[0] for each in group):
                raise AgreedError(
                    f"suite {suite!r}: none of its images can be read, first {first}; repair the images of the split, "
                    "or name another in data.val_split or data.test_split"
                )

    def _batches(self) -> Iterator[_LabelledImages]:
        if self._batches_in_memory is not None:
            yield from self._batches_in_memory
            return
        read, size = [], 0
        for batch in self.batches():
            self.on_bad(batch.bad)
            if batch.bad and self._first_bad is None:
                self._first_bad = f"{batch.bad[0]} ({batch.reasons.get(batch.bad[0], 'unreadable')})"
            labels = torch.tensor(batch.labels).to(self.precision.device)
            item = _LabelledImages(np.array(batch.images), labels, np.array(batch.sample_ids))
            size += item.images.nbytes
            if size <= CACHE_BYTES:
                read.append(item)
            yield item
        self._batches_in_memory = read if size <= CACHE_BYTES else None

    def _under(self, number: int, batch: _LabelledImages, change: Change) -> _LabelledImages:
        """Apply a change to a batch; a change other than the whole clean images sees the images of its sample alone."""
        if isinstance(change, Unchanged) and change.whole:
            return batch
        if (number, change) in self._changed:
            return self._changed[number, change]
        given = _within(batch, self.slow_sample if change.slow else self.sample)
        made = replace(given, images=self._change(change, given))
        if change.slow and self._changed_bytes + made.images.nbytes <= CACHE_BYTES:
            self._changed_bytes += made.images.nbytes
            self._changed[number, change] = made
        return made

    def _change(self, change: Change, given: _LabelledImages) -> NDArray[np.uint8]:
        if self.cache is None or not change.slow:
            return change(given.images, given.sample_ids)
        return self.cache.changed(change, given.images, given.sample_ids, version=package_version())

    def _logits(self, network: nn.Module, pixels: Images) -> Tensor:
        with self.precision.autocast():
            logits: Tensor = network(self.precision.images(pixels))
        return widen(logits)

    def _ask(self, number: int, change: Change, pixels: NDArray[np.uint8]) -> Ticket[NDArray[np.float32]] | None:
        """Ask the teacher while the student computes, unless its answer is known.

        Its answers in memory come first, then those in the cache between runs.
        """
        if self.pool is None or (number, change) in self._answers:
            return None
        found = self.cache.answer(self._teacher, pixels) if self.cache else None
        return self.pool.logits(pixels) if found is None else Answered(found)

    def _answer(
        self, number: int, change: Change, pixels: NDArray[np.uint8], asked: Ticket[NDArray[np.float32]] | None
    ) -> Tensor | None:
        if asked is None:
            return self._answers.get((number, change))
        logits = asked.result()
        if self.cache:
            self.cache.keep_answer(self._teacher, pixels, logits)
        return self._in_memory(number, change, logits)

    def _in_memory(self, number: int, what: Change | EvaluationAttack, logits: NDArray[np.float32]) -> Tensor:
        """The teacher's answer on the device; it stays there while there is room."""
        answer = torch.tensor(logits).to(self.precision.device)
        if (len(self._answers) + 1) * answer.nbytes <= CACHE_BYTES:
            self._answers[number, what] = answer
        return answer

    def _results(self, counts: _Counted, *, with_teacher: bool) -> dict[str, SuiteResult]:
        return {
            suite: suite_result(group, [counts[_key(each)] for each in group], with_teacher=with_teacher)
            for suite, group in self.conditions.items()
        }


_Counted = dict[Change | EvaluationAttack, Counts]


def _key(condition: Condition) -> Change | EvaluationAttack:
    """What is done to the images; equal ones are measured once."""
    return condition.change if condition.attack is None else condition.attack


def _within(batch: _LabelledImages, sample: NDArray[np.int64] | None) -> _LabelledImages:
    """Select the images of a batch whose ids are in a sample."""
    if sample is None:
        return batch
    rows = np.flatnonzero(np.isin(batch.sample_ids, sample))
    labels = batch.labels[torch.from_numpy(rows).to(batch.labels.device)]
    return _LabelledImages(batch.images[rows], labels, batch.sample_ids[rows])
