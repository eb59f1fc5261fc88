"""How good augmentations are for distillation, from a teacher alone: their T. stddev on the same batches."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.augmentors.pick import picked
from hard_ray.config.scoring import CLEAN
from hard_ray.data.batch import Batch
from hard_ray.distillation.teacher import TeacherPool, label_gradient
from hard_ray.errors import ConfigError, suggestion
from hard_ray.maths.noise import normal
from hard_ray.maths.t_stddev import ITERATIONS, t_stddev
from hard_ray.networks.precision import Precision, to_pixels

AHEAD = 8
"""Requests that are sent before the answer to the first of them is awaited."""
FEWEST_LOSSES = 3
"""Two points always lie on a line."""

Answer = Callable[[], Float[Tensor, " classes"]]
"""Waits for the teacher's mean probabilities over a batch."""
Means = dict[str, list[NDArray[np.float64]]]
"""For each view, by name, the teacher's mean probabilities over each group."""


class Scoring:
    """Walks over batches once, and asks the teacher about every view of each.

    The clean view is asked about once for all. A view depends on the batch, the seed and its augmentor, so that
    what is scored beside it changes nothing.
    """

    def __init__(self, augmentors: Mapping[str, Augmentor], pool: TeacherPool, *, seed: int) -> None:
        """`augmentors` by name, without the identity, whose second view is the clean one."""
        self.augmentors = augmentors
        self.pool = pool
        self.seed = seed
        self.precision = Precision(torch.device("cpu"))
        self._gradient = label_gradient(pool, self.precision)

    def run(self, batches: Iterable[Batch], means: Means, groups: int) -> Iterator[int]:
        """Add to `means` up to `groups` groups of each view, and yield how many groups all of them have.

        Args:
            batches: from the first group on that a view lacks.
            means: what is known; views have different lengths where one was added later.
            groups: how many each view will have.
        """
        known = {name: len(means.setdefault(name, [])) for name in (CLEAN, *self.augmentors)}
        sums: dict[str, Tensor] = {}
        for number, name, answer in self._answers(batches, known, groups):
            group, place = divmod(number, ITERATIONS)
            sums[name] = answer / ITERATIONS + sums.get(name, 0.0)
            if place == ITERATIONS - 1:
                means[name].append(sums.pop(name).numpy())
                if all(len(means[each]) > group for each in known):
                    yield group + 1

    def _answers(
        self, batches: Iterable[Batch], known: Mapping[str, int], groups: int
    ) -> Iterator[tuple[int, str, Tensor]]:
        """The batch's number, the view's name and the mean answer, in the order in which they are asked for."""
        waiting: deque[tuple[int, str, Answer]] = deque()
        numbers = range(min(known.values()) * ITERATIONS, groups * ITERATIONS)
        for number, batch in zip(numbers, batches, strict=False):
            for name in (name for name, count in known.items() if count <= number // ITERATIONS):
                waiting.append((number, name, self._ask(name, batch)))
                if len(waiting) > AHEAD:
                    yield _awaited(*waiting.popleft())
        while waiting:
            yield _awaited(*waiting.popleft())

    def _ask(self, name: str, batch: Batch) -> Answer:
        """Send one view of a batch to the teacher."""
        if name == CLEAN:
            ticket = self.pool.logits(batch.images)
            return lambda: mean_probabilities(torch.tensor(ticket.result()))
        augmentor, count = self.augmentors[name], len(batch.images)
        with torch.no_grad():
            images = augmentor.view(self._given(augmentor, batch)).images
        sent = self.pool.logits(to_pixels(images))
        return lambda: mean_probabilities(_kept(augmentor, torch.tensor(sent.result()), count))

    def _given(self, augmentor: Augmentor, batch: Batch) -> AugmentationInput:
        """As a run with this seed would augment the batch."""
        noise = normal(
            "augmentor",
            seed=self.seed,
            epochs=batch.epochs,
            sample_ids=batch.sample_ids,
            count=augmentor.noise_dim,
        )
        labels = torch.tensor(batch.labels)
        return AugmentationInput(
            self.precision.images(batch.images), torch.from_numpy(noise), labels, gradient=self._gradient
        )


def _awaited(number: int, name: str, answer: Answer) -> tuple[int, str, Tensor]:
    return number, name, answer()


def _kept(augmentor: Augmentor, logits: Tensor, count: int) -> Tensor:
    """The teacher's answers on the candidates that would be learned from."""
    if augmentor.selection is None or len(logits) == count:
        return logits
    return logits[picked(augmentor.selection(logits, None), count)]


def mean_probabilities(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, " classes"]:
    """The mean over a batch of the softmax at temperature 1, in double precision."""
    return logits.double().softmax(dim=1).mean(dim=0)


# ------------------------------------------------------------------------- scores


@dataclass(frozen=True, slots=True)
class Score:
    """One augmentation among those that it was compared with."""

    name: str
    t_stddev: float
    error: float
    """Standard error of the value."""
    behind: float
    """How far above the lowest value it lies."""
    behind_error: float
    """Standard error of that difference, on the same batches; smaller than those of the values would suggest."""

    @property
    def is_tied(self) -> bool:
        """Whether the difference to the lowest is within two standard errors."""
        return self.behind <= 2 * self.behind_error


def ranking(means: Mapping[str, Iterable[NDArray[np.float64]]], names: Iterable[str], groups: int) -> list[Score]:
    """The scores of `names` over the first `groups` groups, the lowest, which is the best, first.

    Args:
        means: as `Scoring.run` leaves them; a name that is not there has the clean view for its second.
        names: what is ranked.
        groups: how many are taken of each.
    """
    vectors = {name: torch.tensor(np.stack(list(rows)[:groups])) for name, rows in means.items()}
    clean = vectors[CLEAN]
    both = {name: (clean + vectors.get(name, clean)) / 2 for name in names}
    values = {name: float(t_stddev(found)) for name, found in both.items()}
    without = {name: left_out(found) for name, found in both.items()}
    order = sorted(values, key=lambda name: values[name])
    best = order[0]
    return [
        Score(
            name,
            values[name],
            standard_error(without[name]),
            values[name] - values[best],
            standard_error(without[name] - without[best]),
        )
        for name in order
    ]


def left_out(groups: Float[Tensor, "groups classes"]) -> Float[Tensor, " groups"]:
    """T. stddev without each of the groups."""
    everyone = torch.arange(len(groups))
    return torch.stack([t_stddev(groups[everyone != one]) for one in everyone])


def standard_error(without: Float[Tensor, " groups"]) -> float:
    """The jackknife's standard error of a value, from what it is without each of the groups.

    Source: Efron and Stein 1981, "The jackknife estimate of variance", equation 1.3.
    """
    count = len(without)
    return float(((without - without.mean()).square().sum() * (count - 1) / count).sqrt())


def pearson(first: Iterable[float], second: Iterable[float]) -> float:
    """The correlation coefficient of pairs; nan where one side is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(list(first), list(second))[0, 1])


def read_losses(path: Path, names: Collection[str]) -> dict[str, float]:
    """Students' test losses by the name of the augmentation that they learned from, from a JSON file.

    Args:
        path: one object: names and numbers.
        names: what is scored.

    Raises:
        ConfigError: the file holds something else, or too little in common with what is scored.
    """
    try:
        losses = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"cannot be read as JSON: {error}"], str(path)) from None
    if not isinstance(losses, dict) or not all(_is_number(loss) for loss in losses.values()):
        raise ConfigError(['want names and numbers, such as {"identity": 1.1, "cutmix": 1.03}'], str(path))
    problems = [f"{name!r} is not scored; {suggestion(name, sorted(names))}" for name in losses if name not in names]
    if not problems and (len(losses) < FEWEST_LOSSES or len(set(losses.values())) == 1):
        problems = [f"{len(losses)} losses say nothing of a correlation; give {FEWEST_LOSSES} or more that differ"]
    if problems:
        raise ConfigError(problems, str(path))
    return {name: float(loss) for name, loss in losses.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
