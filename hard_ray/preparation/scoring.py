"""Scores of augmentations for distillation from a teacher alone: T. stddev on the same batches."""

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
from hard_ray.distillation.teacher import TeacherPool, label_gradient, own_answer
from hard_ray.errors import ConfigError, suggestion
from hard_ray.files import read_text
from hard_ray.maths.noise import normal
from hard_ray.maths.t_stddev import ITERATIONS, t_stddev
from hard_ray.networks.precision import Precision, to_pixels
from hard_ray.storage.fetched import local_file

AHEAD = 8
"""Requests to the teacher that may wait for an answer."""
FEWEST_LOSSES = 3
"""Two points always lie on a line."""

Answer = Callable[[], Float[Tensor, " classes"]]
"""Waits for the teacher's mean probabilities over a batch and returns them."""
Means = dict[str, list[NDArray[np.float64]]]
"""The teacher's mean probabilities over each group, by name of the view."""


class Scoring:
    """Goes through the batches once and asks the teacher about every view of each.

    All augmentors share the answers on the clean view. A view depends on the batch, the seed and its augmentor alone,
    so the augmentors scored beside it make no difference.
    """

    def __init__(self, augmentors: Mapping[str, Augmentor], pool: TeacherPool, *, seed: int) -> None:
        """`augmentors` are by name and without the identity, whose second view is the clean one."""
        self.augmentors = augmentors
        self.pool = pool
        self.seed = seed
        self.precision = Precision(torch.device("cpu"))
        self._gradient = label_gradient(pool, self.precision)

    def run(self, batches: Iterable[Batch], means: Means, groups: int) -> Iterator[int]:
        """Add groups to `means` until each view has `groups`; yield how many all of them have.

        `batches` begin with the first group that a view lacks; in `means`, a view that was added later is shorter.
        """
        known = {name: len(means.setdefault(name, [])) for name in (CLEAN, *self.augmentors)}
        sums: dict[str, Tensor] = {}
        for number, name, answer in self._answers(batches, known, groups):
            # A group's mean over its iterations; the teacher's answers come in the order of the requests.
            group, place = divmod(number, ITERATIONS)
            sums[name] = answer / ITERATIONS + sums.get(name, 0.0)
            if place == ITERATIONS - 1:
                means[name].append(sums.pop(name).numpy())
                if all(len(means[each]) > group for each in known):
                    yield group + 1

    def _answers(
        self, batches: Iterable[Batch], known: Mapping[str, int], groups: int
    ) -> Iterator[tuple[int, str, Tensor]]:
        """Yield batch number, name of the view and mean answer, in the order of the requests."""
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
        if name == CLEAN:
            ticket = self.pool.logits(batch.images)
            return lambda: mean_probabilities(torch.tensor(ticket.result()))
        augmentor, count = self.augmentors[name], len(batch.images)
        with torch.no_grad():
            images = augmentor.view(self._given(augmentor, batch)).images
        sent = self.pool.logits(to_pixels(images))
        return lambda: mean_probabilities(_kept(augmentor, torch.tensor(sent.result()), count))

    def _given(self, augmentor: Augmentor, batch: Batch) -> AugmentationInput:
        """Build the input with which a run of this seed augments the batch."""
        noise = normal(
            "augmentor", seed=self.seed, epochs=batch.epochs, sample_ids=batch.sample_ids, count=augmentor.noise_dim
        )
        labels = torch.tensor(batch.labels)
        return AugmentationInput(
            self.precision.images(batch.images),
            torch.from_numpy(noise),
            labels,
            gradient=self._gradient,
            answer=None if (labels >= 0).all() else own_answer(self.pool, self.precision),
        )


def _awaited(number: int, name: str, answer: Answer) -> tuple[int, str, Tensor]:
    return number, name, answer()


def _kept(augmentor: Augmentor, logits: Tensor, count: int) -> Tensor:
    """The teacher's logits of the candidates that a student would learn from."""
    if augmentor.selection is None or len(logits) == count:
        return logits
    return logits[picked(augmentor.selection(logits, None), count)]


def mean_probabilities(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, " classes"]:
    """Mean over a batch of the softmax at temperature 1, in double precision."""
    return logits.double().softmax(dim=1).mean(dim=0)


@dataclass(frozen=True, slots=True)
class Score:
    """T. stddev of one augmentation, and its distance to the best one."""

    name: str
    t_stddev: float
    error: float
    """Standard error of `t_stddev`."""
    behind: float
    """Difference to the lowest value."""
    behind_error: float
    """Standard error of `behind`; the batches are the same, so it is smaller than two independent errors would give."""

    @property
    def is_tied(self) -> bool:
        """Whether the difference to the lowest is within two standard errors."""
        return self.behind <= 2 * self.behind_error


def ranking(means: Mapping[str, Iterable[NDArray[np.float64]]], names: Iterable[str], groups: int) -> list[Score]:
    """Rank `names` over their first `groups` groups, lowest T. stddev (the best) first.

    `means` are from `Scoring.run`; a name that they lack has the clean view as its second view.
    """
    vectors = {name: torch.tensor(np.stack(list(rows)[:groups])) for name, rows in means.items()}
    clean = vectors[CLEAN]
    # 1. One vector a group: the mean over both views, x and x'.
    both = {name: (clean + vectors.get(name, clean)) / 2 for name in names}
    # 2. T. stddev: the standard deviation over groups by class, and its mean over classes.
    values = {name: float(t_stddev(found)) for name, found in both.items()}
    # 3. Jackknife on paired differences: all augmentations saw the same images, so the noise of the batches cancels.
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
    """T. stddev without each group in turn."""
    everyone = torch.arange(len(groups))
    return torch.stack([t_stddev(groups[everyone != one]) for one in everyone])


def standard_error(without: Float[Tensor, " groups"]) -> float:
    """Jackknife standard error of a value, from its values without each group.

    Source: Efron and Stein 1981, "The jackknife estimate of variance", equation 1.3.
    """
    count = len(without)
    return float(((without - without.mean()).square().sum() * (count - 1) / count).sqrt())


def pearson(first: Iterable[float], second: Iterable[float]) -> float:
    """Correlation coefficient of pairs; NaN if one side is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(list(first), list(second))[0, 1])


def read_losses(path: Path, names: Collection[str]) -> dict[str, float]:
    """Read students' test losses, by the name of their augmentation, from a JSON file: one object of names and numbers.

    Raises:
        ConfigError: it holds something else, or too few losses of the scored augmentations, `names`.
        StorageError: it is at a URL, which has no such file.
    """
    here = local_file(path)
    try:
        losses = json.loads(read_text(here))
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
