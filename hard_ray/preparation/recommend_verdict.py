"""The conclusion of a recommendation: which student to train, what to expect, and when not to distil this way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import fmean, stdev
from typing import Any

from hard_ray.config.recommend import KD, LABELS
from hard_ray.preparation.recommend_gains import CLEAN_SUITE, ERRORS, Answers, Gain, Gains, gains, labelled, retained

Trainings = Mapping[str, Sequence[Answers]]
"""Answers by name of the pilot, one for each seed: plain KD and the best candidate have the same seeds."""


SHORT = 0.5
"""Below this share of the teacher's clean top-1 a student has not learned enough to be compared; without labels,
below this share of clean images on which they agree."""


@dataclass(frozen=True, slots=True)
class Tried:
    """Pilots of one student with other values, one changed at a time."""

    of: str
    """The student's name."""
    values: Mapping[str, Mapping[str, Any]]
    """Settings by dotted key, by name of the pilot."""
    answers: Mapping[str, Answers]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a recommendation ends with."""

    name: str
    """The recommended pilot."""
    best: str | None
    """The candidate of the longest rung with the highest score; None: no candidate has a finished pilot."""
    gain: Gains | None
    """Of the best candidate over plain KD."""
    means: dict[str, dict[str, float]]
    """Top-1 or agreement of plain KD and the best candidate, by suite: means over the seeds of the gain, in percent."""
    values: dict[str, Any]
    """Settings by dotted key in which the recommended one differs from its pilot."""
    sentences: list[str]
    """What to take, and what to expect of it."""
    warnings: list[str]
    """Reasons not to distil this way."""

    def to_json(self) -> dict[str, Any]:
        """The conclusion as the record holds it."""
        return {
            "recommended": self.name,
            "best": self.best,
            "gain": None if self.gain is None else self.gain.to_json(),
            "means": self.means,
            "values": self.values,
            "sentences": self.sentences,
            "warnings": self.warnings,
        }


def judge(
    trainings: Trainings,
    *,
    best: str | None,
    teacher: Answers,
    tried: Tried | None,
) -> Verdict:
    """Conclude from the pilots of the longest rung.

    Args:
        trainings: the references and the best candidate, of equal length.
        best: its name.
        teacher: the teacher's answers.
        tried: other values of the best candidate or of plain KD; None: there was no time for any.
    """
    gain = None if best is None else gains(trainings[best], trainings[KD])
    means = {each: _means(trainings[each]) for each in (KD, best) if each is not None}
    name = best if best is not None and gain is not None and gain.score.is_clear else KD
    against = {} if tried is None else _gains_of(tried, trainings[tried.of][0], _spread(gain))
    values = {} if tried is None or tried.of != name else _better(tried, against)
    sentences = [_taken(name, best, gain), *_expected(gain), _values_text(tried, against, values)]
    warnings = _warnings(trainings, teacher, name, best, _spread(gain))
    return Verdict(name, best, gain, means, values, sentences, warnings)


def _spread(gain: Gains | None) -> float:
    """Standard deviation over seeds of a difference of two trainings; 0 where it is not known."""
    return 0.0 if gain is None or gain.seeds < 2 else stdev(gain.over_seeds)


def _of_one_seed(ours: Answers, theirs: Answers, spread: float) -> Gain:
    """A gain that was measured with one seed, with what another seed may change in its error."""
    found = gains([ours], [theirs]).score
    return Gain(found.points, hypot(found.error, spread))


def _gains_of(tried: Tried, own: Answers, spread: float) -> dict[str, Gain]:
    return {name: _of_one_seed(answers, own, spread) for name, answers in tried.answers.items()}


def _means(seeds: Sequence[Answers]) -> dict[str, float]:
    return {suite: fmean(each[suite].mean for each in seeds) for suite in seeds[0]}


def _better(tried: Tried, against: Mapping[str, Gain]) -> dict[str, Any]:
    """For each key the value whose pilot is clearly better than with the own one, and best."""
    found: dict[str, Any] = {}
    for name in sorted(against, key=lambda name: against[name].points):  # the best one comes last
        if against[name].is_clear:
            found |= tried.values[name]
    return found


def _taken(name: str, best: str | None, gain: Gains | None) -> str:
    if best is None or gain is None:
        return "Take plain KD: no candidate has a finished pilot to compare it with."
    points = f"{gain.score.points:+.2f} ± {ERRORS * gain.score.error:.2f} points"
    if name == KD:
        return f"Take plain KD: the best candidate, {best}, is not better beyond the uncertainty ({points})."
    return f"Take {name}: {points} over plain KD, the mean of all suites."


def _expected(gain: Gains | None) -> list[str]:
    if gain is None:
        return []
    by = ", ".join(f"{suite} {each.points:+.2f} ± {ERRORS * each.error:.2f}" for suite, each in gain.suites.items())
    if gain.seeds == 1:
        seeds = "one seed: what another one would change is not in the uncertainty"
    else:
        over = ", ".join(f"{value:+.2f}" for value in gain.over_seeds)
        seeds = f"{gain.seeds} seeds, with {over}; their spread is in the uncertainty"
    return [f"By suite: {by} (two standard errors; {seeds})."]


def _values_text(tried: Tried | None, against: Mapping[str, Gain], values: Mapping[str, Any]) -> str:
    if tried is None or not against:
        return "Strength and temperature are those of the pilot: no others were tried."
    each = ", ".join(f"{name} {gain.points:+.2f} ± {ERRORS * gain.error:.2f}" for name, gain in against.items())
    chosen = ", ".join(f"{key}={value:g}" for key, value in values.items())
    verdict = f"take {chosen}" if chosen else "none is better beyond the uncertainty, so keep its own"
    together = "; they were tried one at a time" if len(values) > 1 else ""
    return f"Other values of {tried.of}, against its own: {each}; {verdict}{together}."


def _warnings(trainings: Trainings, teacher: Answers, name: str, best: str | None, spread: float) -> list[str]:
    found = []
    if name == KD and best is not None:
        found.append(
            "No second view is worth its time here: at this length, none gains more than the measurement can tell."
        )
    if LABELS in trainings:
        gain = _of_one_seed(trainings[name][0], trainings[LABELS][0], spread)
        if not gain.is_clear:
            found.append(
                f"Training on labels alone is as good: {'plain KD' if name == KD else name} gains {gain.points:+.2f} "
                f"± {ERRORS * gain.error:.2f} points over it. Then a teacher is not worth its time, or the pilots are "
                "too short to tell."
            )
    return [*found, *_robustness(teacher, trainings[KD][0])]


def _robustness(teacher: Answers, kd: Answers) -> list[str]:
    """Whether there is robustness to hand on, if the student is far enough to tell.

    Without labels, the teacher's answers are what is right, and nothing says how often it errs.
    """
    if not labelled(kd):
        return _short_of_agreement(kd)
    kept = retained(teacher, kd)
    if kept is None:
        return []
    clean = [network[CLEAN_SUITE].mean for network in (teacher, kd)]
    if clean[1] < SHORT * clean[0]:
        return [
            f"The pilots are too short to be compared with the teacher: plain KD reaches {clean[1]:.1f} % of "
            f"clean images, the teacher {clean[0]:.1f} %. Give a larger --budget."
        ]
    if kept["points"] > ERRORS * kept["error"]:
        return []
    return [
        f"The teacher is hardly more robust than the student: it keeps {kept['teacher']:.1f} % of its clean top-1 "
        f"on changed images, a student of plain KD {kept['student']:.1f} % (difference {kept['points']:+.1f} ± "
        f"{ERRORS * kept['error']:.1f}). There is little robustness to hand on; {_remedy(teacher, kd)}."
    ]


def _short_of_agreement(kd: Answers) -> list[str]:
    clean = kd[CLEAN_SUITE].mean if CLEAN_SUITE in kd else 100.0
    if clean >= SHORT * 100.0:
        return []
    return [
        f"The pilots are short: plain KD agrees with the teacher on {clean:.1f} % of clean images. Give a larger "
        "--budget."
    ]


def _remedy(teacher: Answers, kd: Answers) -> str:
    """What to do about a teacher that is no more robust on all suites together."""
    able = []
    for suite in teacher:
        pair = [{name: network[name] for name in (CLEAN_SUITE, suite)} for network in (teacher, kd)]
        kept = retained(*pair)
        if kept is not None and kept["points"] > ERRORS * kept["error"]:
            able.append(suite)
    if not able:
        return "take a more robust teacher"
    return f"on {' and '.join(able)} alone there is: choose with --suite what counts, or take a more robust teacher"
