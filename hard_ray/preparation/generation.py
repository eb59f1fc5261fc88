"""Generated sets: discrete adversarial images against the teacher, and the shards that they are stored in.

Pictures, the autoencoder and the teacher are handed in, so it runs wherever they are.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hard_ray.config.generation import GenerationConfig
from hard_ray.data.generated_shard import ShardHeader, ShardRows, digest_of, shard_name, write_shard
from hard_ray.distillation.messages import Ticket
from hard_ray.distillation.teacher import TeacherPool, label_gradient
from hard_ray.maths.attacks import START_DRAWS, attack, distance
from hard_ray.maths.noise import normal
from hard_ray.networks.autoencoders.base import Autoencoder
from hard_ray.networks.precision import Precision, to_pixels

FORMAT = 1
"""Of the shards; another number means that shards of both do not belong together."""

Pictures = Callable[[NDArray[np.int64]], dict[str, NDArray[Any]]]
"""From positions in the split to columns: `image`, `label`, `sample_id`, and in `bad` the name of an unreadable one."""


@dataclass(frozen=True, slots=True)
class Originals:
    """Readable images of a batch, in the evaluation view."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sample_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AttackStatistics:
    """What the attack did, added up over images."""

    images: int = 0
    distance: float = 0.0
    """In the ball's norm, from the reconstruction to where the ascent ended, before it was discretised again."""
    clean: int = 0
    """How many the teacher names rightly as they are."""
    reconstructed: int = 0
    """Once they were discretised."""
    generated: int = 0
    """As they are stored."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> AttackStatistics:
        """From what a shard's header holds."""
        return cls(**told)

    def __add__(self, other: AttackStatistics) -> AttackStatistics:
        """Over the images of both."""
        return AttackStatistics(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def means(self) -> dict[str, Any]:
        """The mean distance, and top-1 in percent."""
        count = max(1, self.images)
        names = ("clean", "reconstructed", "generated")
        return {"distance": self.distance / count, "top1": {n: 100.0 * getattr(self, n) / count for n in names}}


@dataclass(frozen=True, slots=True)
class Made:
    """A batch of generated images, about which the teacher has been asked."""

    originals: Originals
    images: NDArray[np.uint8]
    distance: float
    clean: Ticket[NDArray[np.float32]]
    reconstructed: Ticket[NDArray[np.float32]]
    logits: Ticket[NDArray[np.float32]]

    def score(self) -> AttackStatistics:
        """Waits for the teacher's answers."""
        asked = (self.clean, self.reconstructed, self.logits)
        right = ((ticket.result().argmax(axis=1) == self.originals.labels).sum() for ticket in asked)
        return AttackStatistics(len(self.images), self.distance, *map(int, right))


@dataclass(slots=True)
class Dad:
    """Makes discrete adversarial images: x_rec = Q(x), ascent around x_rec, Q again.

    Source: DAD, arXiv:2311.01441, section 3, and its released code: the teacher is attacked, not the student, and
    no gradient flows through Q.
    """

    coder: Autoencoder
    pool: TeacherPool
    config: GenerationConfig
    seed: int
    precision: Precision

    @torch.no_grad()
    def make(self, originals: Originals) -> Made:
        """The generated images of a batch; returns while the teacher still labels them."""
        clean = self.pool.logits(originals.images)
        centre = self.discretised(originals.images)
        reconstructed = self.pool.logits(to_pixels(centre))
        labels = torch.from_numpy(originals.labels)
        gradient = label_gradient(self.pool, self.precision)
        found = attack(centre, self._noise(originals), lambda images: gradient(images, labels), self.config)
        moved = float(distance(found, centre, norm=self.config.norm).double().sum())
        pixels = to_pixels(self._reconstruct(found))
        return Made(originals, pixels, moved, clean, reconstructed, self.pool.logits(pixels))

    @torch.no_grad()
    def discretised(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Q(x), in [0, 1]: what the attack starts from."""
        return self._reconstruct(self.precision.images(pixels))

    def _reconstruct(self, images: Tensor) -> Tensor:
        return self.coder.reconstruct(images).clamp(0.0, 1.0)

    def _noise(self, originals: Originals) -> Tensor:
        ids = originals.sample_ids
        draws = normal("generate", seed=self.seed, epochs=np.zeros_like(ids), sample_ids=ids, count=START_DRAWS)
        return torch.from_numpy(draws).to(self.precision.device)


def spans(images: int, shard_size: int) -> list[range]:
    """The positions that each shard of a split covers."""
    return [range(start, min(start + shard_size, images)) for start in range(0, images, shard_size)]


def make_shard(
    method: Dad, pictures: Pictures, number: int, span: range, *, settings: dict[str, Any], folder: Path
) -> ShardHeader:
    """Make and write the shard with this number.

    Args:
        method: makes the images.
        pictures: gives the split's images by position.
        number: of the shard.
        span: the positions that it covers.
        settings: all that decides the content.
        folder: of the set.

    Raises:
        TeacherError: the teacher cannot answer.
    """
    bad: list[str] = []
    parts: list[ShardRows] = []
    score = AttackStatistics()
    for made in _one_ahead(method.make(each) for each in _batches(pictures, span, method.config.batch_size, bad)):
        score += made.score()
        images = [encode_png(pixels) for pixels in made.images]
        parts.append(ShardRows(made.originals.sample_ids, made.originals.labels, images, made.logits.result()))
    header = ShardHeader(
        shard=number,
        first=span[0],
        last=span[-1],
        rows=score.images,
        settings=settings,
        digest=digest_of(settings),
        bad=tuple(bad),
        score=asdict(score),
    )
    return write_shard(folder / shard_name(number), header, _joined(parts))


def _batches(pictures: Pictures, span: range, size: int, bad: list[str]) -> Iterator[Originals]:
    """The readable images of a shard, batch by batch; names of unreadable ones are added to `bad`."""
    for start in range(span.start, span.stop, size):
        columns = pictures(np.arange(start, min(start + size, span.stop)))
        good = np.array([not name for name in columns["bad"]], dtype=bool)
        bad += [str(name) for name in columns["bad"][~good]]
        if good.any():
            yield Originals(columns["image"][good], columns["label"][good], columns["sample_id"][good])


def _one_ahead(made: Iterable[Made]) -> Iterator[Made]:
    """The same, each after the next one was made: the teacher labels it meanwhile."""
    waiting: Made | None = None
    for each in made:
        if waiting is not None:
            yield waiting
        waiting = each
    if waiting is not None:
        yield waiting


def _joined(parts: list[ShardRows]) -> ShardRows:
    none = np.zeros(0, dtype=np.int64)
    return ShardRows(
        np.concatenate([none, *(part.sample_ids for part in parts)]),
        np.concatenate([none, *(part.labels for part in parts)]),
        [image for part in parts for image in part.images],
        np.concatenate([part.logits for part in parts]) if parts else np.zeros((0, 0), dtype=np.float32),
    )


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels of shape (channels, height, width), without loss."""
    stream = io.BytesIO()
    array = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    Image.fromarray(array).save(stream, format="png")
    return stream.getvalue()
