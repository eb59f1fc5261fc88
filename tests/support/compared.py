"""Run folders as a comparison finds them, without training anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hard_ray.files import write_json
from tests.runs.test_record import log, run_at, train


def suite(top1: float, **more: Any) -> dict[str, Any]:
    return {"top1": top1, "agreement": top1 - 1, "ece": 2.5, "n": 300, **more}


def going_on(path: Path, *overrides: str, validation: Mapping[int, float]) -> Path:
    """A run that has logged validations, by update."""
    run_at(path, *overrides)
    log(path, *(train(step, **{"time/step": 0.5}) for step in validation))
    log(path, *({"kind": "val", "step": step, "val/top1": top1} for step, top1 in validation.items()))
    return path


def finished(path: Path, *overrides: str, split: str = "test", teacher: str = "t", **suites: Any) -> Path:
    """A run that was measured: top-1 by suite, or a suite's whole result."""
    results = {name: found if isinstance(found, dict) else suite(found) for name, found in suites.items()}
    last = next(iter(results.values()))["top1"]
    going_on(path, *overrides, validation={20: last - 30, 40: last - 5, 60: last - 2})
    write_json(path / "evaluation.json", {"split": split, "suites": results, "teacher": {}})
    outcome = {"status": "finished", "steps": {"student": 60, "augmentor": 20}, "seconds": {"total": 8.0}}
    write_json(path / "outcome.json", {**outcome, "teacher_identity": teacher})
    return path
