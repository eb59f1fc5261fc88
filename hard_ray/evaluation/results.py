"""From counts to the numbers of a suite, for the validation in a run and for `hardray evaluate`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from hard_ray.evaluation import corruptions
from hard_ray.evaluation.mce import mce, mce_vs_teacher
from hard_ray.evaluation.suites import Condition
from hard_ray.maths.metrics import Counts, SuiteResult


def suite_result(conditions: Sequence[Condition], counts: Sequence[Counts], *, with_teacher: bool) -> SuiteResult:
    """Metrics of a suite as a whole, and its score by name and severity; conditions that stand aside do not count.

    Several conditions may share a name and a severity. `counts` are of one network, by condition; `with_teacher`:
    whether agreement with the teacher was counted.
    """
    by: dict[str, dict[str, Counts]] = {}
    for condition, counted in zip(conditions, counts, strict=True):
        if not condition.is_aside:
            severities = by.setdefault(condition.name, {})
            before = severities.get(condition.severity)
            severities[condition.severity] = counted if before is None else before.plus(counted)
    scores = {
        name: {key: part.metrics(with_teacher=with_teacher).score for key, part in severities.items()}
        for name, severities in by.items()
    }
    return SuiteResult(_total(conditions, counts).metrics(with_teacher=with_teacher), scores)


def evaluation_numbers(
    conditions: Sequence[Condition], students: Sequence[Counts], teachers: Sequence[Counts] | None, *, has_mce: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A suite's numbers as `evaluation.json` holds them: the student's, and the teacher's (empty without one).

    Counts are by condition. `has_mce`: whether the suite is ImageNet-C itself, at its own size, so that AlexNet's
    errors are a reference.
    """
    student = _numbers(conditions, students, with_teacher=teachers is not None, has_mce=has_mce)
    if teachers is None or "top1" not in student:  # without labels, the teacher's answers are what is right
        return student, {}
    teacher = _numbers(conditions, teachers, with_teacher=False, has_mce=has_mce)
    if _is_corruptions(conditions):
        relative = mce_vs_teacher(student["by"], teacher["by"])
        student |= {} if relative is None else {"mce_vs_teacher": relative}
    return student, teacher


def _numbers(
    conditions: Sequence[Condition], counts: Sequence[Counts], *, with_teacher: bool, has_mce: bool
) -> dict[str, Any]:
    result = suite_result(conditions, counts, with_teacher=with_teacher)
    total = _total(conditions, counts)
    numbers = {**result.metrics.to_json(), **({"reliability": total.reliability()} if total.has_labels else {})}
    if sum(not each.is_aside for each in conditions) > 1 or _is_corruptions(conditions):
        numbers["by"] = result.by
    for condition, counted in zip(conditions, counts, strict=True):
        if condition.is_aside:
            numbers[f"{condition.name}_top1"] = counted.metrics().top1
    absolute = mce(result.by) if has_mce else None
    return numbers | ({} if absolute is None else {"mce": absolute})


def _total(conditions: Sequence[Condition], counts: Sequence[Counts]) -> Counts:
    """The sum over the conditions that do not stand aside."""
    inner = (counted for each, counted in zip(conditions, counts, strict=True) if not each.is_aside)
    return functools.reduce(lambda one, other: one.plus(other), inner)


def _is_corruptions(conditions: Sequence[Condition]) -> bool:
    return {each.name for each in conditions} <= {*corruptions.NAMES, *corruptions.EXTRA_NAMES}
