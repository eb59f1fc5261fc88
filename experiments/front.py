"""Which methods are on the front of clean accuracy against accuracy under corruptions, and what HARD's rows reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.results import Result, Spread, spread

FEWEST_SEEDS = 3
"""Seeds below which a difference from plain KD is not judged."""


@dataclass(frozen=True, slots=True)
class Method:
    """What the students of a method reach."""

    name: str
    clean: Spread
    corruptions: Spread
    test_loss: Spread

    @property
    def seeds(self) -> int:
        """Seeds that are measured."""
        return len(self.clean.values)

    def betters(self, other: Method) -> bool:
        """Whether the mean is higher on both axes."""
        return self.clean.mean > other.clean.mean and self.corruptions.mean > other.corruptions.mean


@dataclass(frozen=True, slots=True)
class Front:
    """The methods of a table, and which of them has which part."""

    methods: tuple[Method, ...]
    teacher: Method | None
    kd: str
    """The name of plain KD."""
    hard: tuple[str, ...]
    """The names of HARD's methods that are judged."""
    learned: tuple[str, ...]
    """The names of its other methods."""
    aside: tuple[str, ...]
    """Methods without a teacher: they are drawn, and cannot be on the front."""

    @property
    def best(self) -> list[Method]:
        """The methods that none betters on both axes, from the most clean accuracy to the least."""
        rivals = [method for method in self.methods if method.name not in self.aside]
        found = [method for method in rivals if not any(other.betters(method) for other in rivals)]
        return sorted(found, key=lambda method: -method.clean.mean)

    def bettering(self, method: Method) -> list[Method]:
        """The methods that better a method on both axes."""
        return [other for other in self.methods if other.name not in self.aside and other.betters(method)]


def front_of(table: Mapping[str, Any], results: Mapping[str, Sequence[Result]]) -> Front:
    """The methods of a table that has a `front`, from its results by variant."""
    parts = table["front"]
    students = [_method(name, found, "student") for name, found in results.items()]
    teachers = [_method("teacher", found, "teacher") for found in results.values()]
    return Front(
        tuple(method for method in students if method is not None),
        next((teacher for teacher in teachers if teacher is not None), None),
        parts["kd"],
        tuple(parts["hard"]),
        tuple(parts.get("learned", ())),
        tuple(parts.get("aside", ())),
    )


def _method(name: str, results: Sequence[Result], model: str) -> Method | None:
    spreads = [spread(results, model, column) for column in ("clean", "corruptions", "test loss")]
    clean, corruptions, test_loss = spreads
    if clean is None or corruptions is None or test_loss is None:
        return None
    return Method(name, clean, corruptions, test_loss)


def verdict(front: Front) -> str:
    """A paragraph: who is on the front, what betters HARD's methods on both axes, and how far they are above KD."""
    names = _listed([f"`{method.name}`" for method in front.best])
    sentences = [
        "Mean accuracy over the seeds, with their range. On the front, where no method is better both on clean images "
        f"and under corruptions: {names}."
    ]
    by_name = {method.name: method for method in front.methods}
    hard = [by_name[name] for name in front.hard if name in by_name]
    if not hard:
        sentences.append("HARD's rows have no result yet.")
    for method in hard:
        sentences.append(_standing(method, front.bettering(method), front.hard))
        if front.kd in by_name:
            sentences.append(_against(method, by_name[front.kd]))
    return " ".join(sentences)


def _standing(method: Method, above: Sequence[Method], hard: Sequence[str]) -> str:
    """What betters one of HARD's methods; another form of it, named in `hard`, is told apart from its rivals."""
    rivals = [other for other in above if other.name not in hard]
    if above and not rivals:
        return f"**Only another form of HARD betters `{method.name}` on both axes**: {_points(above)}."
    if not rivals:
        return f"**No method is better than `{method.name}` on both axes**."
    return f"**`{method.name}` ({_point(method)}) is bettered on both axes** by {_points(rivals)}."


def _points(methods: Sequence[Method]) -> str:
    return _listed([f"`{method.name}` ({_point(method)}{_few(method)})" for method in methods])


def _point(method: Method) -> str:
    return f"{method.clean.mean:.1f} and {method.corruptions.mean:.1f}"


def _few(method: Method) -> str:
    """How many seeds it has, where these are too few to decide."""
    return f"; seeds: {method.seeds}, which decides nothing" if method.seeds < FEWEST_SEEDS else ""


def _against(method: Method, kd: Method) -> str:
    """How a method differs from plain KD, and whether by more than the wider of the two ranges over seeds."""
    gains = {
        "clean accuracy": (method.clean.mean - kd.clean.mean, _wider(method.clean, kd.clean), "{:+.1f} points"),
        "accuracy under corruptions": (
            method.corruptions.mean - kd.corruptions.mean,
            _wider(method.corruptions, kd.corruptions),
            "{:+.1f} points",
        ),
        "test loss": (method.test_loss.mean - kd.test_loss.mean, _wider(method.test_loss, kd.test_loss), "{:+.3f}"),
    }
    said = _listed([f"{text.format(gain)} in {name}" for name, (gain, _, text) in gains.items()])
    few = [f"{each.seeds} of `{each.name}`" for each in (method, kd) if each.seeds < FEWEST_SEEDS]
    if few:
        return f"Against plain KD it has {said}; not decided with the seeds there are ({_listed(few)})."
    won = [name for name, (gain, width, _) in gains.items() if (-gain if name == "test loss" else gain) > width]
    lost = [name for name in gains if name not in won]
    ends = "more than the wider of the two ranges over seeds"
    if not lost:
        return f"Against plain KD it has {said}: **better in all three by {ends}**."
    better = f"better by {ends} in {_listed(won)}" if won else "in none of them better by " + ends
    return f"Against plain KD it has {said}: {better}" + (f", **not in {_listed(lost)}**." if won else ".")


def _wider(one: Spread, other: Spread) -> float:
    return max(one.width, other.width)


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
