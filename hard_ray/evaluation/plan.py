"""The work of one suite: the images that are read, the conditions they are put under, and the pieces of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.data import DataConfig, why_unlabelled
from hard_ray.config.evaluation import EvaluationConfig, Published
from hard_ray.config.validation import Suite
from hard_ray.data.index import ImageIndex
from hard_ray.data.pictures import Columns, EvalPictures
from hard_ray.errors import DataError
from hard_ray.evaluation.corruptions import sample_of
from hard_ray.evaluation.published import open_published
from hard_ray.evaluation.suites import Condition, conditions

UNREADABLE = -1
"""In the column of conditions, never of labels: an image that is not measured but carries the names of a piece without
readable images."""
LARGEST_PIECE = 1024
"""Images read together: few enough to show progress and to occupy several processes."""


@dataclass(frozen=True, slots=True)
class SuitePlan:
    """Images and conditions of one suite."""

    suite: str
    sources: tuple[EvalPictures, ...]
    conditions: tuple[Condition, ...]
    piece: int
    """Images read together."""

    @property
    def images(self) -> int:
        """Number of images that the networks see, counted once per condition."""
        return sum(len(self.sources[condition.source].rows) for condition in self.conditions)

    def pieces(self) -> list[tuple[int, int, int]]:
        """List the pieces as (source, start, stop), where start and stop are positions in the source."""
        return [
            (number, start, min(start + self.piece, len(source.rows)))
            for number, source in enumerate(self.sources)
            for start in range(0, len(source.rows), self.piece)
        ]

    def views(self, source: int, start: int, stop: int) -> Iterator[Columns]:
        """Yield the readable images of a piece, decoded once, under each condition of their source."""
        columns = self.sources[source](np.arange(start, stop))
        bad = "\n".join(name for name in columns["bad"] if name)
        good = np.array([not name for name in columns["bad"]], dtype=bool)
        if is_lost := not good.any():
            good[0] = True
        images, labels, rows = columns["image"][good], columns["label"][good], columns["sample_id"][good]
        for number, condition in enumerate(self.conditions):
            if condition.source == source:
                named = np.array([bad, *[""] * (len(rows) - 1)], dtype=object)
                yield {
                    "image": condition.change(images, rows),
                    "label": labels,
                    "sample_id": rows,
                    "condition": np.full(len(rows), UNREADABLE if is_lost else number),
                    "bad": named,
                }


def check_judged(evaluation: EvaluationConfig, index: ImageIndex, data: DataConfig, *, with_teacher: bool) -> None:
    """Check that something says what is right; raises DataError if that were labels, and the images have none."""
    if index.has_labels:
        return
    why = f"{why_unlabelled(data)}, so that the images have no labels"
    if not with_teacher:
        raise DataError(
            f"{why}, and without the teacher there is nothing to judge a model by; leave out --no-teacher, or name "
            "images with labels by --labelled KIND=PATH"
        )
    if evaluation.published:
        raise DataError(
            f"{why} and no classes, and {next(iter(evaluation.published))} is measured by the labels of its own "
            "images; leave it out, or name images with labels of the same classes by --labelled KIND=PATH"
        )


def plan_suite(
    name: str, evaluation: EvaluationConfig, index: ImageIndex, data: DataConfig, *, split: str, block_bytes: float
) -> SuitePlan:
    """Plan the suite `name`, one of `evaluation.names`, on the images of `split`.

    `block_bytes` limits the images read together. Raises DataError if a published set is incomplete or does not fit.
    """
    row_bytes = data.in_chans * data.img_size**2
    piece = max(1, min(LARGEST_PIECE, int(block_bytes // row_bytes)))
    if name in get_args(Published):
        return SuitePlan(name, *_published(cast(Published, name), evaluation, index, data, split), piece)
    rows = index.rows(split)
    if name != "clean":
        rows = np.sort(sample_of(rows, evaluation.images, seed=data.split_seed))
    pictures = EvalPictures(index.reader, index.labels, data, rows)
    return SuitePlan(name, (pictures,), _changes(name, evaluation, data), piece)


def _changes(name: str, evaluation: EvaluationConfig, data: DataConfig) -> tuple[Condition, ...]:
    return conditions(
        cast(Suite, name),
        img_size=data.img_size,
        sampled=True,
        severities=evaluation.severities,
        attack=evaluation.attack,
    )


def _published(
    name: Published, evaluation: EvaluationConfig, index: ImageIndex, data: DataConfig, split: str
) -> tuple[tuple[EvalPictures, ...], tuple[Condition, ...]]:
    """Sources and conditions of a published set; beside a subset of classes, the clean images of the same."""
    if name == "imagenet-c":
        data = data.model_copy(update={"crop_pct": 1.0})  # its images were cropped when they were made
    found = open_published(name, evaluation.published[name], index.classes)
    sources = [EvalPictures(each.reader, each.labels, data, np.arange(len(each.labels))) for each in found]
    measured = [
        Condition(each.condition, each.severity, source=number, outputs=each.outputs)
        for number, each in enumerate(found)
    ]
    for each in found:
        rows = index.rows(split)
        rows = rows[np.isin(index.labels[rows], each.outputs or ())]
        if each.outputs is not None and len(rows):
            labels = _positions(each.outputs, index.labels)
            measured.append(Condition("clean", "0", source=len(sources), outputs=each.outputs, is_aside=True))
            sources.append(EvalPictures(index.reader, labels, data, rows))
    return tuple(sources), tuple(measured)


def _positions(outputs: Sequence[int], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Map labels to positions among the compared outputs; -1 for other classes."""
    place = np.full(max(int(labels.max()), *outputs) + 1, -1)
    place[list(outputs)] = np.arange(len(outputs))
    found: NDArray[np.int64] = place[labels]
    return found
