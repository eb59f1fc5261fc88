"""The measurement of pilots in the driver's process: every network on the same held-out images, image by image."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from hard_ray.config.networks import StudentConfig
from hard_ray.config.run import RunConfig
from hard_ray.config.validation import Suite
from hard_ray.data.index import ImageIndex
from hard_ray.data.pictures import EvalPictures
from hard_ray.data.schedule import train_schedule
from hard_ray.distillation.assembly import student_precision
from hard_ray.distillation.teacher import TeacherPool
from hard_ray.evaluation.cache import EvaluationCache
from hard_ray.evaluation.changes import Change
from hard_ray.evaluation.corruptions import sample_of
from hard_ray.evaluation.suites import Condition, conditions
from hard_ray.evaluation.validator import Evaluator
from hard_ray.files import cache_folder
from hard_ray.maths import losses
from hard_ray.networks.network import ImageSpec, Network, build_student
from hard_ray.networks.precision import Precision
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.stream import Pipeline
from hard_ray.preparation.recommend_gains import Answers, SuiteAnswers
from hard_ray.ranks import Ranks
from hard_ray.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class HeldOutIndex(ImageIndex):
    """An index without test split, whose validation split is the sample that pilots are measured on."""

    whole: str = ""
    """Fingerprint of the whole data set, which generated sets and teachers are of."""

    @override
    def fingerprint(self) -> str:
        return self.whole


def held_out(index: ImageIndex, images: int, *, seed: int) -> HeldOutIndex:
    """The index with at most so many validation images, in order, and without the test split: it chooses nothing."""
    rows = np.sort(sample_of(index.rows("val"), images, seed=seed))
    values = {each.name: getattr(index, each.name) for each in dataclasses.fields(index)}
    splits = {"train": index.rows("train"), "val": rows}
    return HeldOutIndex(**{**values, "splits": splits}, whole=index.fingerprint())


@dataclass(slots=True)
class _Parts:
    """Answers under one change, batch by batch."""

    ids: list[NDArray[np.int64]] = field(default_factory=list)
    student: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    teacher: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def joined(self, which: str) -> dict[str, NDArray[Any]]:
        """The values of one network over all batches."""
        parts: list[dict[str, NDArray[Any]]] = getattr(self, which)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(slots=True)
class Measurement:
    """Measures networks on the same images; made images and the teacher's answers are kept between two of them."""

    evaluator: Evaluator
    _parts: dict[Change, _Parts] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.evaluator.on_answers = self._note

    def of(self, network: nn.Module) -> tuple[Answers, Answers]:
        """The answers of a network, and the teacher's."""
        self._parts = {}
        self.evaluator.evaluate(network)
        return self._answers("student"), self._answers("teacher")

    def _note(
        self, change: Change, ids: NDArray[np.int64], labels: Tensor, logits: Tensor, teacher: Tensor | None
    ) -> None:
        assert teacher is not None
        parts = self._parts.setdefault(change, _Parts())
        parts.ids.append(ids)
        parts.student.append(_judged(logits, labels, teacher))
        parts.teacher.append(_judged(teacher, labels, teacher))

    def _answers(self, which: str) -> Answers:
        return {suite: self._suite(group, which) for suite, group in self.evaluator.conditions.items()}

    def _suite(self, group: Sequence[Condition], which: str) -> SuiteAnswers:
        each = [self._parts[condition.change].joined(which) for condition in group]
        stacked = {name: np.stack([values[name] for values in each]) for name in each[0]}
        return SuiteAnswers(np.concatenate(self._parts[group[0].change].ids), **stacked)

    def by_condition(self, answers: Answers) -> dict[str, dict[str, dict[str, float]]]:
        """Top-1, or agreement without labels, in percent by suite, condition and severity."""
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for suite, group in self.evaluator.conditions.items():
            shares = 100.0 * answers[suite].counted.mean(axis=1)
            for condition, share in zip(group, shares.tolist(), strict=True):
                named = found.setdefault(suite, {}).setdefault(condition.name, {})
                named.setdefault(condition.severity, []).append(share)
        return {suite: {name: _means(by) for name, by in named.items()} for suite, named in found.items()}


def _means(by: Mapping[str, list[float]]) -> dict[str, float]:
    return {severity: float(np.mean(values)) for severity, values in by.items()}


def _judged(logits: Tensor, labels: Tensor, teacher: Tensor) -> dict[str, NDArray[Any]]:
    guess = logits.argmax(dim=1)
    found = {"agrees": guess == teacher.argmax(dim=1)}
    if (labels < 0).any():  # the label -1 says that an image has none
        found["loss"] = losses.divergence(teacher.double(), logits.double(), temperature=1.0).float()
    else:
        found["right"] = guess == labels
        found["loss"] = F.cross_entropy(logits.double(), labels, reduction="none").float()
    return {name: values.cpu().numpy() for name, values in found.items()}


def measurement(
    config: RunConfig,
    index: HeldOutIndex,
    pool: TeacherPool,
    share: DataShare,
    suites: Sequence[Suite],
    *,
    slow_images: int | None,
) -> Measurement:
    """What measures networks in this process; corruptions are measured on `slow_images` of the images."""
    schedule = train_schedule(index, config.data, batch_size=config.optim.batch_size, seed=config.seed)
    pipeline = Pipeline(index, config.data, schedule, share, config.runtime.data_block_mb * 2**20)
    evaluator = Evaluator(
        functools.partial(pipeline.eval_batches, "val", config.validation.batch_size),
        suites,
        img_size=config.data.img_size,
        pool=pool,
        precision=precision_here(config),
        ranks=Ranks(),
        slow_sample=sample_of(index.rows("val"), slow_images, seed=config.data.split_seed),
        severities=config.validation.corruption_severities,
        cache=EvaluationCache(cache_folder() / "evaluations"),
    )
    return Measurement(evaluator)


def corruption_seconds(config: RunConfig, index: ImageIndex, suites: Sequence[Suite]) -> float:
    """Seconds in which one image gets all slow changes of the suites; 0: they have none."""
    rows = index.rows("val")[:2]
    images = EvalPictures(index.reader, index.labels, config.data, rows)(np.arange(len(rows)))["image"]
    size, severities = config.data.img_size, config.validation.corruption_severities
    every = [each for suite in suites for each in conditions(suite, img_size=size, severities=severities)]
    slow = [condition.change for condition in every if condition.change.slow]
    for place in (0, len(rows) - 1):  # the first one loads the package
        began = time.perf_counter()
        for change in slow:
            change(images[place : place + 1], rows[place : place + 1])
    return time.perf_counter() - began if slow else 0.0


def precision_here(config: RunConfig) -> Precision:
    """Type and memory layout of a student's kernels in this process."""
    return student_precision(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def student_of(run: RunFolder, config: RunConfig, images: ImageSpec) -> Network:
    """The finished student of a pilot, in this process."""
    found = StudentConfig(model=f"local-dir:{run.student}", img_size=config.student.img_size)
    network = build_student(found, images)
    return network.to(precision_here(config).device).eval()
