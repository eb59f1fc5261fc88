"""Generated sets: discrete adversarial images against the teacher, and the shards that they are stored in.

It has no cluster of its own: the images, the autoencoder and the teacher are arguments.
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

from hard_ray.augmentors.labels import Labels, filled
from hard_ray.config.generation import GenerationConfig
from hard_ray.data.checked_shard import ShardHeader, digest_of, shard_name
from hard_ray.data.generated_shard import ShardRows, write_shard
from hard_ray.data.index import NO_LABEL
from hard_ray.distillation.messages import Ticket
from hard_ray.distillation.teacher import TeacherPool, label_gradient
from hard_ray.maths.attacks import START_DRAWS, attack, distance
from hard_ray.maths.noise import normal
from hard_ray.networks.autoencoders.base import Autoencoder
from hard_ray.networks.precision import Precision, to_pixels

FORMAT = 1
"""Format of the shards; shards of different formats do not belong to one set."""

Pictures = Callable[[NDArray[np.int64]], dict[str, NDArray[Any]]]
"""Maps positions in the split to columns: `image`, `label`, `sample_id`, and `bad` with names of unreadable images."""


@dataclass(frozen=True, slots=True)
class Originals:
    """The readable images of a batch, in the evaluation view."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sample_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AttackStatistics:
    """Sums over images: the distance of the attack, and the teacher's hits at each stage."""

    images: int = 0
    distance: float = 0.0
    """From x_rec to the end of the ascent, before the second Q, in the ball's norm."""
    clean: int = 0
    """Originals x with a label that the teacher classifies correctly."""
    reconstructed: int = 0
    """Reconstructions x_rec that it classifies correctly."""
    generated: int = 0
    """Generated images x_dad that it classifies correctly."""
    unlabelled: int = 0
    """Images without a label."""
    kept_reconstructed: int = 0
    """Reconstructions of these for which the teacher gives the same answer as for x."""
    kept_generated: int = 0
    """Generated images of these for which it does."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> AttackStatistics:
        """Read the statistics in the header of a shard."""
        return cls(**stored)

    def __add__(self, other: AttackStatistics) -> AttackStatistics:
        return AttackStatistics(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def to_json(self) -> dict[str, Any]:
        """The statistics for the header of a shard; those of unlabelled images only if there are any."""
        values = asdict(self)
        of_unlabelled = ("unlabelled", "kept_reconstructed", "kept_generated")
        return {key: value for key, value in values.items() if self.unlabelled or key not in of_unlabelled}

    def means(self) -> dict[str, Any]:
        """Mean distance, and in percent top-1 of images with labels, agreement with the answer for x of the others."""
        labelled, found = self.images - self.unlabelled, {"distance": self.distance / max(1, self.images)}
        parts: dict[str, dict[str, float]] = {}
        if labelled or not self.unlabelled:
            names = ("clean", "reconstructed", "generated")
            parts["top1"] = {name: 100.0 * getattr(self, name) / max(1, labelled) for name in names}
        if self.unlabelled:
            kept = {"reconstructed": self.kept_reconstructed, "generated": self.kept_generated}
            parts["agreement"] = {name: 100.0 * count / self.unlabelled for name, count in kept.items()}
        return {**found, **parts}


@dataclass(frozen=True, slots=True)
class Made:
    """A batch of generated images, with the teacher's answers on their way."""

    originals: Originals
    images: NDArray[np.uint8]
    distance: float
    clean: Ticket[NDArray[np.float32]]
    reconstructed: Ticket[NDArray[np.float32]]
    logits: Ticket[NDArray[np.float32]]

    def statistics(self) -> AttackStatistics:
        """Wait for the teacher's answers and count its hits."""
        labels = self.originals.labels
        without = labels == NO_LABEL
        answers = [ticket.result().argmax(axis=1) for ticket in (self.clean, self.reconstructed, self.logits)]
        clean, reconstructed, generated = (int((answer == labels).sum()) for answer in answers)
        kept = [int((without & (answer == answers[0])).sum()) for answer in answers[1:]]
        return AttackStatistics(
            len(self.images), self.distance, clean, reconstructed, generated, int(without.sum()), kept[0], kept[1]
        )


@dataclass(slots=True)
class Dad:
    """Makes discrete adversarial images x_dad = Q(ascent around Q(x)), where Q encodes, quantises and decodes.

    Source: DAD, arXiv:2311.01441, section 3, and its released code: the teacher is attacked, not the student, and
    no gradient flows through Q. The paper knows every label; here an image without one is attacked in the teacher's own
    answer for it.
    """

    coder: Autoencoder
    pool: TeacherPool
    config: GenerationConfig
    seed: int
    precision: Precision

    @torch.no_grad()
    def make(self, originals: Originals) -> Made:
        """Generate the images of a batch; the teacher may still be labelling them on return."""
        clean = self.pool.logits(originals.images)
        # 1. x_rec = Q(x): the centre of the ball, so that what Q loses does not count as a part of the attack.
        centre = self.discretised(originals.images)
        reconstructed = self.pool.logits(to_pixels(centre))
        # 2., 3. Random start, then k steps up the gradient of CE(t(x), y), projected to the ball and to [0, 1].
        #        y is the label or, of an image without one, the teacher's own answer for x.
        labels: Labels = torch.from_numpy(originals.labels)
        if (originals.labels == NO_LABEL).any():
            labels = filled(labels, torch.from_numpy(clean.result().argmax(axis=1)))
        gradient = label_gradient(self.pool, self.precision)
        found = attack(centre, self._noise(originals), lambda images: gradient(images, labels), self.config)
        moved = float(distance(found, centre, norm=self.config.norm).double().sum())
        # 4. x_dad = Q(x), and the teacher's logits of the very pixels that are stored.
        pixels = to_pixels(self._reconstruct(found))
        return Made(originals, pixels, moved, clean, reconstructed, self.pool.logits(pixels))

    @torch.no_grad()
    def discretised(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Q(x) in [0, 1], the centre of the attack."""
        return self._reconstruct(self.precision.images(pixels))

    def _reconstruct(self, images: Tensor) -> Tensor:
        return self.coder.reconstruct(images).clamp(0.0, 1.0)

    def _noise(self, originals: Originals) -> Tensor:
        ids = originals.sample_ids
        draws = normal("generate", seed=self.seed, epochs=np.zeros_like(ids), sample_ids=ids, count=START_DRAWS)
        return torch.from_numpy(draws).to(self.precision.device)


def make_shard(
    method: Dad, pictures: Pictures, number: int, span: range, *, settings: dict[str, Any], folder: Path
) -> ShardHeader:
    """Make and write the shard with this number, of the images at the positions `span` of the split.

    `settings` are everything that decides its content. Raises TeacherError if the teacher cannot answer.
    """
    bad: list[str] = []
    parts: list[ShardRows] = []
    statistics = AttackStatistics()
    for made in _one_ahead(method.make(each) for each in _batches(pictures, span, method.config.batch_size, bad)):
        statistics += made.statistics()
        images = [encode_png(pixels) for pixels in made.images]
        parts.append(ShardRows(made.originals.sample_ids, made.originals.labels, images, made.logits.result()))
    header = ShardHeader(
        shard=number,
        first=span[0],
        last=span[-1],
        rows=statistics.images,
        settings=settings,
        digest=digest_of(settings),
        bad=tuple(bad),
        score=statistics.to_json(),
    )
    return write_shard(folder / shard_name(number), header, _joined(parts))


def _batches(pictures: Pictures, span: range, size: int, bad: list[str]) -> Iterator[Originals]:
    """Yield the readable images of a shard in batches; add the names of unreadable ones to `bad`."""
    for start in range(span.start, span.stop, size):
        columns = pictures(np.arange(start, min(start + size, span.stop)))
        good = np.array([not name for name in columns["bad"]], dtype=bool)
        bad += [str(name) for name in columns["bad"][~good]]
        if good.any():
            yield Originals(columns["image"][good], columns["label"][good], columns["sample_id"][good])


def _one_ahead(made: Iterable[Made]) -> Iterator[Made]:
    """Yield each batch after the next one is made, so that the teacher labels it meanwhile."""
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
    """Encode pixels of shape (channels, height, width) without loss."""
    stream = io.BytesIO()
    array = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    Image.fromarray(array).save(stream, format="png")
    return stream.getvalue()
