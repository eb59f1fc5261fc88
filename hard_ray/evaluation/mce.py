"""Mean corruption error: a network's errors under corruptions, relative to those of a reference."""

from __future__ import annotations

from collections.abc import Mapping

from hard_ray.evaluation.corruptions import NAMES

Errors = Mapping[str, float]
By = Mapping[str, Mapping[str, float]]
"""Top-1 in percent, by corruption and severity."""

ALEXNET_ERRORS: Errors = {
    "gaussian_noise": 88.6428,
    "shot_noise": 89.4468,
    "impulse_noise": 92.2640,
    "defocus_blur": 81.9880,
    "glass_blur": 82.6268,
    "motion_blur": 78.5948,
    "zoom_blur": 79.8360,
    "snow": 86.6816,
    "frost": 82.6572,
    "fog": 81.9324,
    "brightness": 56.4592,
    "contrast": 85.3204,
    "elastic_transform": 64.6056,
    "pixelate": 71.7840,
    "jpeg_compression": 60.6500,
}
"""AlexNet's mean top-1 error over five severities of ImageNet-C, in percent.

Source: Hendrycks and Dietterich 2019, arXiv:1903.12261, and the table of their repository (hendrycks/robustness).
"""
SEVERITIES = ("1", "2", "3", "4", "5")


def mce(by: By) -> float | None:
    """Mean corruption error against AlexNet, in percent; None unless all 15 corruptions have all 5 severities.

    Per corruption, the sum of errors over severities divided by AlexNet's; the mean of the quotients, times 100.
    """
    if set(NAMES) - set(by) or any(set(by[name]) != set(SEVERITIES) for name in NAMES):
        return None
    errors = mean_errors({name: by[name] for name in NAMES})
    return _mean_quotient(errors, ALEXNET_ERRORS)


def mce_vs_teacher(by: By, teacher: By) -> float | None:
    """Mean corruption error against the teacher, in percent: 100 is as robust as the teacher, and lower is better.

    Covers the corruptions of mCE if any of them was measured, else the extra ones. None if the two networks were not
    measured on the same corruptions and severities, or if the teacher makes no error on one of them.
    """
    if set(by) & set(NAMES):
        by, teacher = ({name: found for name, found in each.items() if name in NAMES} for each in (by, teacher))
    if set(by) != set(teacher) or any(set(by[name]) != set(teacher[name]) for name in by):
        return None
    reference = mean_errors(teacher)
    return _mean_quotient(mean_errors(by), reference) if by and all(reference.values()) else None


def mean_errors(by: By) -> dict[str, float]:
    """The mean error over severities of each corruption, in percent."""
    return {name: 100.0 - sum(severities.values()) / len(severities) for name, severities in by.items()}


def _mean_quotient(errors: Errors, reference: Errors) -> float:
    return 100.0 * sum(errors[name] / reference[name] for name in errors) / len(errors)
