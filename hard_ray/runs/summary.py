"""The results of a run: its summary file, and the table of models by suite."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

from hard_ray.config.run import RunConfig
from hard_ray.data.account_text import account_facts
from hard_ray.data.index import ImageIndex
from hard_ray.files import read_json
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.markdown import markdown_table
from hard_ray.runs.scores import MEASURES, measure_of, scores

PACKAGES = ("hardray", "torch", "torchvision", "timm", "ray", "mlflow", "numpy", "pydantic")
LABELS = {
    "teacher": "teacher",
    "labels_only": "student, labels only",
    "kd": "student, plain KD",
    "random": "student, random affine",
    "student": "student",
}


def summarise(folder: RunFolder, config: RunConfig, index: ImageIndex) -> dict[str, Any]:
    """The values of `summary.json`, from the records of the trainings in the folder and the account of the data."""
    outcome = read_json(folder.outcome)
    evaluation = read_json(folder.evaluation)
    models: dict[str, dict[str, float]] = {}
    if evaluation["teacher"]:
        models["teacher"] = scores(evaluation["teacher"])
    for control in config.experiment.controls:
        models[control] = scores(read_json(folder.part(f"controls/{control}").evaluation)["suites"])
    models["student"] = scores(evaluation["suites"])
    seconds = outcome["seconds"]
    return {
        "models": models,
        "measure": measure_of(evaluation["suites"]),
        "split": evaluation["split"],
        "data": account_facts(index),
        "throughput": {"images_per_s": outcome["images_per_s"]},
        "seconds": {
            key: seconds.get(key, 0.0) for key in ("total", "data_wait", "teacher_wait", "augmentor", "student")
        },
        "steps": outcome["steps"],
        "switches": outcome["switches"],
        "seed": config.seed,
        "versions": versions(),
        "teacher_identity": outcome["teacher_identity"],
        "bad_images": outcome["bad_images"],
    }


def versions() -> dict[str, str]:
    """Versions of the packages on which exact numbers depend."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def models_table(models: dict[str, dict[str, float]], config: RunConfig) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of models by suite, from their scores in percent."""
    suites = list(dict.fromkeys(suite for scores in reversed(models.values()) for suite in scores))
    body = [
        [label(name, config), *(f"{scores[suite]:.1f}" if suite in scores else "-" for suite in suites)]
        for name, scores in models.items()
    ]
    return ["model", *suites], body


def label(name: str, config: RunConfig) -> str:
    """The label of a model of the run in tables and figures."""
    methods = {"hard": f"HARD ({config.augmentor.kind})", "cross_entropy": "labels only"}
    methods["embedding"] = f"embedding ({config.augmentor.kind})"
    if name == "kd" and config.objective.kind == "embedding":
        return "student, embedding alone"
    method = methods.get(config.objective.kind, config.objective.kind)
    return f"student, {method}" if name == "student" else LABELS[name]


def heading(summary: Mapping[str, Any]) -> str:
    """What the numbers of a summary's models are, for the headings of tables."""
    return MEASURES[summary.get("measure", "top1")]


def markdown(summary: dict[str, Any], config: RunConfig) -> str:
    """The table and the costs as Markdown, for the run's page in MLflow."""
    header, body = models_table(summary["models"], config)
    seconds, steps = summary["seconds"], summary["steps"]
    return "\n".join(
        [
            f"On the {summary['split']} split, in percent: {heading(summary)}.",
            "",
            markdown_table(header, body),
            "",
            f"{steps['student']} student and {steps['augmentor']} augmentor updates, {summary['switches']} phase "
            f"switches, {summary['throughput']['images_per_s']:.0f} images/s, {seconds['total']:.0f} s of training, of "
            f"which {seconds['teacher_wait']:.0f} s waiting for the teacher and {seconds['data_wait']:.0f} s for data.",
        ]
    )
