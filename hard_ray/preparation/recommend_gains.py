"""What pilots gain over plain KD, by paired differences on the same images, and what follows from it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.files import read_npz, write_bytes

CLEAN_SUITE = "clean"
DRAWS = 1000
"""Resamples of the images, for a standard error."""
ERRORS = 2.0
"""A difference counts from so many standard errors on."""

Values = NDArray[np.float64]
Weights = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SuiteAnswers:
    """A network's answers on a suite; arrays of shape (conditions, images), `ids` of shape (images,)."""

    ids: NDArray[np.int64]
    agrees: NDArray[np.bool_]
    """Whether the class is the teacher's."""
    loss: NDArray[np.float32]
    """Cross-entropy to the label or, without labels, divergence from the teacher; in nats."""
    right: NDArray[np.bool_] | None = None
    """Whether the class is that of the label; None: the images have no labels."""

    @property
    def counted(self) -> NDArray[np.bool_]:
        """What counts for the network: the right answers or, without labels, those that agree with the teacher's."""
        return self.agrees if self.right is None else self.right

    @property
    def shares(self) -> Values:
        """Top-1 or agreement of each image in percent, a mean over conditions: shape (images,)."""
        found: Values = 100.0 * self.counted.mean(axis=0)
        return found

    @property
    def mean(self) -> float:
        """Top-1 or agreement in percent: the mean over conditions and images."""
        return float(self.shares.mean())

    def metrics(self) -> dict[str, float]:
        """The means over conditions and images; top-1 only where images have labels."""
        return {
            **({} if self.right is None else {"top1": self.mean}),
            "agreement": 100.0 * float(self.agrees.mean()),
            "loss": float(self.loss.mean(dtype=np.float64)),
        }


Answers = dict[str, SuiteAnswers]
"""By suite; every suite has the same images for every network."""


def write_answers(path: Path, answers: Answers) -> None:
    """Write answers in one step."""
    stream = io.BytesIO()
    arrays: dict[str, Any] = {
        f"{suite}:{name}": values
        for suite, found in answers.items()
        for name, values in asdict(found).items()
        if values is not None
    }
    np.savez_compressed(stream, **arrays)
    write_bytes(path, stream.getvalue())


def read_answers(path: Path) -> Answers:
    """Read answers; raises ValueError if the file is damaged."""
    stored: dict[str, dict[str, Any]] = {}
    for key, values in read_npz(path).items():
        suite, _, name = key.partition(":")
        stored.setdefault(suite, {})[name] = values
    try:
        return {suite: SuiteAnswers(**arrays) for suite, arrays in stored.items()}
    except TypeError as error:
        raise ValueError(str(error)) from None


def score(answers: Answers) -> float:
    """The mean over suites of top-1 or, without labels, of agreement, in percent: what pilots are ranked by."""
    return float(np.mean([found.mean for found in answers.values()]))


def labelled(answers: Answers) -> bool:
    """Whether the images have labels, so that networks are judged by top-1."""
    return all(found.right is not None for found in answers.values())


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference in points of percent, with its standard error."""

    points: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether it is positive beyond its uncertainty."""
        return self.points > ERRORS * self.error

    def to_json(self) -> dict[str, float]:
        """The numbers as the record holds them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Gains:
    """Differences of two ways of training: of the score, and of each suite."""

    score: Gain
    suites: dict[str, Gain]
    seeds: int
    """Trainings of each way."""
    over_seeds: list[float] = field(default_factory=list)
    """The score's difference by seed."""

    def to_json(self) -> dict[str, Any]:
        """The numbers as the record holds them."""
        return asdict(self)


def gains(ours: Sequence[Answers], theirs: Sequence[Answers]) -> Gains:
    r"""Differences of top-1, or agreement, on the same images, of pairs of trainings that share a seed.

    An image's difference is the mean over conditions and seeds. The standard error over images is that of the
    bootstrap, which draws whole images, as the conditions of an image are not independent. With several seeds, that of
    the mean over seeds is added: :math:`\sqrt{e_\mathrm{images}^2 + e_\mathrm{seeds}^2}`. One seed has no second
    term.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    by_seed = [_differences(one, other) for one, other in zip(ours, theirs, strict=True)]
    mean = {suite: np.mean([each[suite] for each in by_seed], axis=0) for suite in by_seed[0]}
    drawn = _resampled(mean, {suite: found.ids for suite, found in ours[0].items()})
    suites = {suite: _gain([float(each[suite].mean()) for each in by_seed], drawn[suite]) for suite in mean}
    over_seeds = [float(np.mean([values.mean() for values in each.values()])) for each in by_seed]
    total = _gain(over_seeds, np.mean(list(drawn.values()), axis=0))
    return Gains(total, suites, len(by_seed), over_seeds)


def _differences(ours: Answers, theirs: Answers) -> dict[str, Values]:
    return {suite: found.shares - theirs[suite].shares for suite, found in ours.items()}


def _gain(over_seeds: Sequence[float], drawn: Values) -> Gain:
    count = len(over_seeds)
    seeds = float(np.std(over_seeds, ddof=1)) / count**0.5 if count > 1 else 0.0
    return Gain(float(np.mean(over_seeds)), float(np.hypot(drawn.std(), seeds)))


def _resampled(values: Mapping[str, Values], ids: Mapping[str, NDArray[np.int64]]) -> dict[str, Values]:
    """Means of each suite over resampled images, the same draws for all suites: shape (DRAWS,)."""
    everyone, weights = _draws(list(ids.values()))
    found = {}
    for suite, each in values.items():
        share = weights[:, np.searchsorted(everyone, ids[suite])]
        found[suite] = share @ each / np.maximum(share.sum(axis=1), 1)
    return found


def _draws(ids: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], Weights]:
    """All images, sorted, and how often each is in each resample."""
    everyone = np.unique(np.concatenate(ids))
    count = len(everyone)
    return everyone, np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=DRAWS)


def retained(teacher: Answers, student: Answers) -> dict[str, Any] | None:
    """How much of their clean top-1 both networks keep on the other suites, in percent, and the difference.

    The difference is what there is to hand on beyond accuracy. None: there is no clean or no other suite.
    """
    others = [suite for suite in teacher if suite != CLEAN_SUITE]
    if not others or CLEAN_SUITE not in teacher:
        return None
    kept, drawn = [], []
    for network in (teacher, student):
        values = {suite: found.shares for suite, found in network.items()}
        means = {suite: each.mean() for suite, each in values.items()}
        resampled = _resampled(values, {suite: found.ids for suite, found in network.items()})
        kept.append(_kept(means, others))
        drawn.append(_kept(resampled, others))
    difference = Gain(float(kept[0] - kept[1]), float((drawn[0] - drawn[1]).std()))
    return {"teacher": float(kept[0]), "student": float(kept[1]), **difference.to_json()}


def _kept(shares: Mapping[str, Any], others: Sequence[str]) -> Any:
    return 100.0 * np.mean([shares[suite] for suite in others], axis=0) / np.maximum(shares[CLEAN_SUITE], 1e-9)
