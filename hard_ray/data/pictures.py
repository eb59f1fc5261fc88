"""From the rows of a schedule to pictures: read, decode and apply the standard view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hard_ray.config.data import DataConfig
from hard_ray.data.augment import augmented
from hard_ray.data.batch import Batch
from hard_ray.data.generated_set import GeneratedImages
from hard_ray.data.index import Rows
from hard_ray.data.readers import Picture, Reader
from hard_ray.data.schedule import JointSchedule, Schedule
from hard_ray.data.views import DRAWS_PER_IMAGE, UnreadableImageError, decode, eval_view, train_crop
from hard_ray.errors import DataError
from hard_ray.maths.noise import uniform

Columns = dict[str, NDArray[Any]]

_MOST_BAD_IN_A_ROW = 100


class _Key(TypedDict):
    """What the draws of a block's images depend on; an image that gives way to another leaves it its draws."""

    seed: int
    epochs: NDArray[np.int64]
    sample_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainPictures:
    """Makes the training views at positions of a schedule, within Ray Data's tasks."""

    reader: Reader
    labels: NDArray[np.int64]
    config: DataConfig
    schedule: Schedule | JointSchedule
    generated: GeneratedImages | None = None

    def __call__(self, positions: NDArray[np.int64]) -> Columns:
        """Make the views; an unreadable image is replaced by the next readable one of the training split."""
        rows, epochs = self.schedule.take(positions)
        draws = uniform("view", seed=self.schedule.seed, epochs=epochs, sample_ids=rows, count=DRAWS_PER_IMAGE)
        crops, taken = [], rows.copy()
        bad, why = [""] * len(rows), [""] * len(rows)
        for position, first in enumerate(self.reader.read(rows.tolist())):
            picture, names, reasons = first, [], []
            for attempt in range(_MOST_BAD_IN_A_ROW):
                try:
                    image = decode(picture, in_chans=self.config.in_chans)
                    break
                except UnreadableImageError as error:
                    names.append(_name(self.reader, taken[position]))
                    reasons.append(one_line(str(error)))
                    taken[position] = self.schedule.after(int(rows[position]), attempt + 1)
                    (picture,) = self.reader.read([int(taken[position])])
            else:
                raise DataError(
                    f"{len(names)} unreadable images in a row, from {names[0]} on, which is {reasons[0]}; repair "
                    "the images, or remove them from the data"
                )
            crops.append(train_crop(image, self.config, draws[position]))
            bad[position], why[position] = "\n".join(names), "\n".join(reasons)
        key: _Key = {"seed": self.schedule.seed, "epochs": epochs, "sample_ids": rows}
        images, splits = augmented(crops, self.config, **key)
        columns: Columns = {
            "image": images,
            "label": self.labels[taken],
            "sample_id": taken,
            "epoch": epochs,
            "bad": np.array(bad, dtype=object),
            "why": np.array(why, dtype=object),
        }
        if splits is not None:
            columns["splits"] = splits
        if self.generated is not None:
            columns["generated"], _ = augmented(self._generated(taken, draws), self.config, **key, with_splits=False)
        return columns

    def _generated(self, sample_ids: NDArray[np.int64], draws: NDArray[np.float64]) -> list[Image.Image]:
        """The generated images, each in the crop that was drawn for its original."""
        assert self.generated is not None
        crops = []
        for sample_id, picture, drawn in zip(sample_ids, self.generated.read(sample_ids), draws, strict=True):
            crops.append(train_crop(_decode_generated(picture, sample_id, self.config), self.config, drawn))
        return crops


@dataclass(frozen=True, slots=True)
class EvalPictures:
    """Makes the evaluation views of a list of rows, within Ray Data's tasks."""

    reader: Reader
    labels: NDArray[np.int64]
    config: DataConfig
    rows: Rows
    generated: GeneratedImages | None = None

    def __call__(self, positions: NDArray[np.int64]) -> Columns:
        """Make the views; an unreadable image becomes black, is named in `bad`, and is dropped by `to_batch`."""
        rows = self.rows[positions]
        views: list[NDArray[np.uint8]] = []
        bad, why = [""] * len(rows), [""] * len(rows)
        for position, picture in enumerate(self.reader.read(rows.tolist())):
            try:
                views.append(eval_view(decode(picture, in_chans=self.config.in_chans), self.config))
            except UnreadableImageError as error:
                side = self.config.img_size
                views.append(np.zeros((self.config.in_chans, side, side), dtype=np.uint8))
                bad[position], why[position] = _name(self.reader, rows[position]), one_line(str(error))
        columns: Columns = {
            "image": np.stack(views),
            "label": self.labels[rows],
            "sample_id": rows,
            "epoch": np.zeros_like(rows),
            "bad": np.array(bad, dtype=object),
            "why": np.array(why, dtype=object),
        }
        return columns if self.generated is None else {**columns, "generated": self._generated(rows, columns["bad"])}

    def _generated(self, rows: Rows, bad: NDArray[np.object_]) -> NDArray[np.uint8]:
        """The generated images; black where the original is unreadable, because it has none."""
        assert self.generated is not None
        side = self.config.img_size
        views = np.zeros((len(rows), self.config.in_chans, side, side), dtype=np.uint8)
        good = np.array([not name for name in bad], dtype=bool)
        for position, picture in zip(np.flatnonzero(good), self.generated.read(rows[good]), strict=True):
            views[position] = eval_view(_decode_generated(picture, rows[position], self.config), self.config)
        return views


def _name(reader: Reader, row: np.int64) -> str:
    """A row's name in one line: names of files may hold any character."""
    return reader.name(int(row)).replace("\n", "\\n")


def one_line(reason: str) -> str:
    """Why a picture cannot be read, in one line."""
    return " ".join(reason.split())


def _decode_generated(picture: Picture, sample_id: np.int64, config: DataConfig) -> Image.Image:
    try:
        return decode(picture, in_chans=config.in_chans)
    except UnreadableImageError as error:
        raise DataError(
            f"the generated image of sample id {sample_id} cannot be read ({error}); delete its shard, and the same "
            "`hardray generate` command makes it again"
        ) from None


Pictures = TrainPictures | EvalPictures


def to_batch(columns: Columns, *, keep_bad: bool) -> Batch:
    """The batch of these columns; with `keep_bad` also the rows whose own image was unreadable."""
    bad = _lines(columns["bad"])
    good = np.ones(len(columns["label"]), dtype=bool) if keep_bad else np.array([not n for n in columns["bad"]])
    return Batch(
        images=columns["image"][good] if bad and not keep_bad else columns["image"],
        labels=columns["label"][good],
        sample_ids=columns["sample_id"][good],
        epochs=columns["epoch"][good],
        bad=bad,
        reasons=dict(zip(bad, _lines(columns["why"]), strict=True)),
        generated=columns["generated"][good] if "generated" in columns else None,
        splits=columns["splits"][good] if "splits" in columns else None,
    )


def _lines(column: NDArray[np.object_]) -> tuple[str, ...]:
    return tuple(line for lines in column if lines for line in str(lines).split("\n"))
