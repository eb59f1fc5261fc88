"""The conclusion of a recommendation: which student to train, what to expect, and when not to distil this way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from hard_ray.config.recommend import KD, LABELS
from hard_ray.preparation.recommend_gains import ERRORS, Answers, Gains, gains, retained

Trainings = Mapping[str, Sequence[Answers]]
"""Answers by name of the pilot, one for each seed: plain KD and the best candidate have the same seeds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a recommendation ends with."""

    name: str
    """The recommended pilot."""
    best: str | None
    """The candidate of the longest rung with the highest score; None: no candidate has a finished pilot."""
    gain: Gains | None
    """Of the best candidate over plain KD."""
    top1: dict[str, dict[str, float]]
    """Of plain KD and the best candidate, by suite: means over the seeds of the gain, in percent."""
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
            "top1": self.top1,
            "values": self.values,
            "sentences": self.sentences,
            "warnings": self.warnings,
        }


def judge(
    trainings: Trainings,
    *,
    best: str | None,
    teacher: Answers,
    tried: Mapping[str, tuple[Mapping[str, Any], Answers]],
) -> Verdict:
    """Conclude from the pilots of the longest rung.

    Args:
        trainings: the references and the best candidate, of equal length.
        best: its name.
        teacher: the teacher's answers.
        tried: other values of the recommended pilot, by their name, with the answers of their pilots.
    """
    gain = None if best is None else gains(trainings[best], trainings[KD])
    top1 = {each: _top1(trainings[each]) for each in (KD, best) if each is not None}
    name = best if best is not None and gain is not None and gain.score.is_clear else KD
    values = _better(tried, trainings[name][0])
    sentences = [_taken(name, best, gain), *_expected(gain), *_values_text(tried, values, trainings[name][0])]
    return Verdict(name, best, gain, top1, values, sentences, [*_warnings(trainings, teacher, name, best)])


def _top1(seeds: Sequence[Answers]) -> dict[str, float]:
    return {suite: fmean(each[suite].metrics()["top1"] for each in seeds) for suite in seeds[0]}


def _better(tried: Mapping[str, tuple[Mapping[str, Any], Answers]], own: Answers) -> dict[str, Any]:
    """For each key the value whose pilot is clearly better than with the own one, and best."""
    found: dict[str, tuple[float, Any]] = {}
    for values, answers in tried.values():
        gain = gains([answers], [own]).score
        for key, value in values.items():
            if gain.is_clear and gain.points > found.get(key, (0.0, None))[0]:
                found[key] = (gain.points, value)
    return {key: value for key, (_, value) in found.items()}


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


def _values_text(
    tried: Mapping[str, tuple[Mapping[str, Any], Answers]], values: Mapping[str, Any], own: Answers
) -> list[str]:
    if not tried:
        return ["Strength and temperature are those of the pilot: no others were tried."]
    each = []
    for name, (_, answers) in tried.items():
        gain = gains([answers], [own]).score
        each.append(f"{name} {gain.points:+.2f} ± {ERRORS * gain.error:.2f}")
    chosen = ", ".join(f"{key}={value:g}" for key, value in values.items())
    verdict = f"take {chosen}" if chosen else "none is better beyond the uncertainty, so keep the pilot's"
    together = "; they were tried one at a time" if len(values) > 1 else ""
    return [f"Against the pilot's own values: {', '.join(each)}; {verdict}{together}."]


def _warnings(trainings: Trainings, teacher: Answers, name: str, best: str | None) -> list[str]:
    found = []
    kd = trainings[KD][0]
    if name == KD and best is not None:
        found.append(
            "No second view is worth its time here: at this length, none gains more than the measurement can tell."
        )
    if LABELS in trainings:
        gain = gains([trainings[name][0]], [trainings[LABELS][0]]).score
        if not gain.is_clear:
            found.append(
                f"Training on labels alone is as good: {'plain KD' if name == KD else name} gains {gain.points:+.2f} "
                f"± {ERRORS * gain.error:.2f} points over it. Then a teacher is not worth its time, or the pilots are "
                "too short to tell."
            )
    kept = retained(teacher, kd)
    if kept is not None and kept["points"] <= ERRORS * kept["error"]:
        found.append(
            f"The teacher is hardly more robust than the student: it keeps {kept['teacher']:.1f} % of its clean top-1 "
            f"on changed images, a student of plain KD {kept['student']:.1f} % (difference {kept['points']:+.1f} ± "
            f"{ERRORS * kept['error']:.1f}). There is little robustness to hand on; take a more robust teacher."
        )
    return found
