"""Runs grouped over seeds: their results, the settings in which groups differ, and tests of the differences."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hard_ray.config.layers import dotted_values
from hard_ray.errors import RunFolderError
from hard_ray.reports.comparison.t_tests import Difference, cautions, compare_means
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.record import RunRecord, read_record, shareable
from hard_ray.runs.scores import MEASURES, logged_scores, short

NAMES_A_RUN = ("seed", "experiment.name")
"""Keys in which runs of one group may differ."""
VIEWS_OF_TRAINING = (
    "crop",
    "crop_padding",
    "scale",
    "ratio",
    "hflip",
    "augment",
    "mix",
    "max_bad_fraction",
    "shuffle_window",
    "download",
    "unlabelled",
    "unlabelled_share",
)
"""Keys of `data` that do not change the measured images."""
SEED_AT_THE_END = re.compile(r"(^|[-_.])(seed|s)?[-_.]?\d+$")


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run, or one control of a run."""

    name: str
    record: RunRecord
    measure: str = "top1"
    """What the comparison compares, one of `hard_ray.runs.scores.MEASURES`."""

    @property
    def suites(self) -> dict[str, dict[str, Any]]:
        """Final results of its student by suite; empty: it has not ended."""
        return self.record.evaluations.get("student", {})

    @property
    def updates(self) -> int:
        """Number of logged updates of student and augmentor."""
        steps = self.record.outcome.get("steps")
        return sum(steps.values()) if steps else self.record.updates

    def values(self) -> dict[str, float]:
        """Every number that is compared: `MEASURE/SUITE`, and beside top-1 `agreement` and `ece` of clean images."""
        measure, suites = self.measure, self.suites
        found = {f"{measure}/{suite}": float(result[measure]) for suite, result in suites.items() if measure in result}
        first = suites.get("clean") or next(iter(suites.values()), {})
        found |= {key: float(first[key]) for key in beside(measure) if key in first}
        seconds = self.record.seconds()["total"]
        if self.updates:
            found |= {"seconds_per_update": seconds / self.updates} if seconds else {}
            found["updates"] = float(self.updates)
        return found

    def measured_on(self) -> dict[str, Any]:
        """The settings that determine the measured images; of a data set's path only the last part counts."""
        config = self.record.config
        data = {
            key: value for key, value in config.data.model_dump(mode="json").items() if key not in VIEWS_OF_TRAINING
        }
        facts = {f"data.{key}": Path(value).name if key == "path" else value for key, value in data.items()}
        if self.record.split is not None:
            facts["split"] = self.record.split
        if "corruptions" in self.suites:
            facts["validate.corruption_severities"] = list(config.validation.corruption_severities)
        if "adversarial" in self.suites:
            facts["validate.attack"] = config.validation.attack.model_dump(mode="json")
        return facts | {f"number of images of suite {suite}": result["n"] for suite, result in self.suites.items()}


def beside(measure: str) -> tuple[str, ...]:
    """What is compared beside a measure, of clean images."""
    return ("agreement", "ece") if measure == "top1" else ()


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over the runs of a group that have it."""

    mean: float
    smallest: float
    largest: float
    n: int


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ only in their seeds."""

    name: str
    runs: tuple[ComparedRun, ...]

    def sample(self, metric: str) -> list[tuple[int, float]]:
        """Seed and value of each run that has the number."""
        found = ((run.record.config.seed, run.values()) for run in self.runs)
        return [(seed, values[metric]) for seed, values in found if metric in values]

    def spread(self, metric: str) -> Spread | None:
        """Mean, smallest and largest; None: no run has the number."""
        values = [value for _, value in self.sample(metric)]
        return Spread(sum(values) / len(values), min(values), max(values), len(values)) if values else None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two groups on one suite: the second's measure minus the first's."""

    first: str
    second: str
    suite: str
    found: Difference


@dataclass(frozen=True, slots=True)
class Comparison:
    """All results of a comparison, without figures."""

    groups: tuple[Group, ...]
    measure: str
    """What is compared: that by which all runs are judged, else the agreement with the teacher."""
    suites: tuple[str, ...]
    """Measured in some run, in the order of the runs."""
    differing: dict[str, tuple[Any, ...]]
    """Values of the groups by dotted key, for keys in which they differ; None: the group has no such key."""
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]
    """Reasons why numbers are not comparable."""
    states: tuple[str, ...]
    """Runs that are not finished, with their progress, and groups of one run."""
    cautions: tuple[str, ...]
    """Caveats about the tests."""

    @property
    def runs(self) -> tuple[ComparedRun, ...]:
        """Every run, group by group."""
        return tuple(run for group in self.groups for run in group.runs)


def read_comparison(paths: Sequence[Path]) -> Comparison:
    """Compare runs from their folders; RunFolderError: fewer than two runs, a duplicate, or a folder without a run."""
    if len(paths) < 2:
        raise RunFolderError(f"a comparison needs at least two runs, got {len(paths)}; name their folders")
    records = [read_record(path) for path in paths]
    folders = [record.folder.path for record in records]
    twice = next((path for path, folder in zip(paths, folders, strict=True) if folders.count(folder) > 1), None)
    if twice is not None:
        raise RunFolderError(f"{twice} is given twice; name each run once")
    measure = _common_measure(records)
    names = _names(records)
    groups = grouped([ComparedRun(name, record, measure) for name, record in zip(names, records, strict=True)])
    suites = tuple(dict.fromkeys(suite for group in groups for run in group.runs for suite in run.suites))
    pairs = tuple(_tested(groups, suites))
    return Comparison(
        groups,
        measure,
        suites,
        differing=differences(groups),
        pairs=pairs,
        warnings=tuple(_warnings(groups)),
        states=tuple(_states(groups)),
        cautions=tuple(cautions([pair.found for pair in pairs])),
    )


def _common_measure(records: Sequence[RunRecord]) -> str:
    """What the runs are judged by; agreement if they are judged by several measures."""
    measures = {record.measure for record in records if record.evaluations or record.of_kind("val")}
    return next(iter(measures), "top1") if len(measures) < 2 else "agreement"


def _names(records: Sequence[RunRecord]) -> list[str]:
    """A unique name for each run: its folder's path if another run has the same name."""
    names = [_name(record) for record in records]
    return [
        name if names.count(name) == 1 else str(record.folder.path) for name, record in zip(names, records, strict=True)
    ]


def _name(record: RunRecord) -> str:
    """The run's name; for a control or a teacher's training, its own folder's after that of its run."""
    path = record.folder.path
    above = path.parent.parent if path.parent.name == "controls" else path.parent
    return f"{above.name}/{path.name}" if RunFolder(above).config.is_file() else record.name


def grouped(runs: Iterable[ComparedRun]) -> tuple[Group, ...]:
    """Group runs whose resolved configurations differ only in seed and name, in the order of their first run."""
    found: dict[str, list[ComparedRun]] = {}
    for run in runs:
        found.setdefault(json.dumps(settings(run.record), sort_keys=True), []).append(run)
    names = [_group_name([run.name for run in members]) for members in found.values()]
    firsts = [members[0].name for members in found.values()]
    unique = [name if names.count(name) == 1 else first for name, first in zip(names, firsts, strict=True)]
    return tuple(Group(name, tuple(members)) for name, members in zip(unique, found.values(), strict=True))


def _group_name(names: Sequence[str]) -> str:
    """The names without their seeds if these are equal: `mnist` for `mnist-s0` and `mnist-s1`."""
    if len(names) == 1:
        return names[0]
    stems = {"/".join(SEED_AT_THE_END.sub("", part) for part in name.split("/")).strip("/") for name in names}
    shared = stems.pop()
    return shared if shared and not stems else f"{names[0]} and {len(names) - 1} more"


def settings(record: RunRecord) -> dict[str, Any]:
    """The resolved configuration by dotted keys, without the keys in which runs of one group differ."""
    found = dotted_values(shareable(record.config).model_dump(mode="json"))
    return {key: value for key, value in found.items() if key not in NAMES_A_RUN}


def differences(groups: Sequence[Group]) -> dict[str, tuple[Any, ...]]:
    """The keys in which groups differ, with the value of each group."""
    every = [settings(group.runs[0].record) for group in groups]
    keys = dict.fromkeys(key for found in every for key in found)
    values = {key: tuple(found.get(key) for found in every) for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _tested(groups: Sequence[Group], suites: Sequence[str]) -> Iterable[Pair]:
    for (first, second), suite in itertools.product(itertools.combinations(groups, 2), suites):
        runs = [*first.runs, *second.runs]
        if runs[0].measure != "top1" and len(teachers(runs)) > 1:
            continue
        contradicted = contradictions(runs)
        if any(not key.startswith("number of images") or key.endswith(f" {suite}") for key in contradicted):
            continue
        metric = f"{first.runs[0].measure}/{suite}"
        found = compare_means(first.sample(metric), second.sample(metric))
        if found is not None:
            yield Pair(first.name, second.name, suite, found)


def contradictions(runs: Sequence[ComparedRun]) -> dict[str, dict[str, list[str]]]:
    """The settings of measurement in which runs differ: by key, the names of the runs with each value."""
    found: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for key, value in run.measured_on().items():
            found.setdefault(key, {}).setdefault(plain(value), []).append(run.name)
    return {key: values for key, values in found.items() if len(values) > 1}


def plain(value: Any) -> str:
    """A value of a configuration as text: JSON, but strings without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _warnings(groups: Sequence[Group]) -> Iterable[str]:
    runs = [run for group in groups for run in group.runs]
    for key, values in contradictions(runs).items():
        found = ", but ".join(f"{value} in {', '.join(names)}" for value, names in values.items())
        yield f"The runs were measured on different images, so their numbers are not comparable: {key} is {found}."
    yield from _warnings_of_measure(runs)
    if len(by_teacher := teachers(runs)) > 1:
        found = "; ".join(", ".join(names) for names in by_teacher.values())
        yield f"The runs had different teachers, so their agreements are not comparable: {found}."
    for group in groups:
        seeds = [run.record.config.seed for run in group.runs]
        if len(set(seeds)) < len(seeds):
            yield f"{group.name}: runs with the same seed are treated as independent, which they are not."


def _warnings_of_measure(runs: Sequence[ComparedRun]) -> Iterable[str]:
    """That runs are compared by another measure than their own, and what is therefore not shown."""
    others = [run.name for run in runs if run.suites and run.record.measure != run.measure]
    if others:
        yield (
            f"Not every run has labels, so that all are compared by {MEASURES[runs[0].measure]}; of "
            f"{', '.join(others)}, top-1, conditions and tests of top-1 are not shown."
        )
    without = [
        run.name for run in runs if run.suites and not any(run.measure in found for found in run.suites.values())
    ]
    if without:
        yield f"These runs have no {MEASURES[runs[0].measure]}, because no teacher was measured: {', '.join(without)}."


def teachers(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """The names of the runs of each teacher, by its identity."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.record.outcome.get("teacher_identity"):
            found.setdefault(run.record.outcome["teacher_identity"], []).append(run.name)
    return found


def _states(groups: Sequence[Group]) -> Iterable[str]:
    for run in (run for group in groups for run in group.runs):
        if not run.record.outcome:
            points = run.record.of_kind("val")
            name = logged_scores(points[-1:], measure=run.measure).get("clean")
            what = "" if run.measure == "top1" else f" {short(run.measure)}"
            so_far = f"; {points[-1][name]:.1f} %{what} on clean images of the validation split" if name else ""
            yield f"{run.name} is not finished: {run.updates:,} updates have been logged{so_far}."
    single = [group.name for group in groups if len(group.runs) == 1]
    if single:
        yield f"Groups of one run, which show no variation over seeds and are not tested: {', '.join(single)}."
