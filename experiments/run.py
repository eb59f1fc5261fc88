"""`make experiments`: runs the rows that have no result yet, one after the other.

An interrupted row resumes from its checkpoint. The results of a finished row are written to `docs/experiments/` and
committed, and `docs/experiments.md` and its history are written again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.page import write_pages
from experiments.rows import RESULTS, RUNS, Row, read_rows, read_tables
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.orchestration.cluster.hardware import Hardware, probe

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "experiments"


def main() -> int:
    """Run the queue; return 0 if every selected row has a result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only rows whose name starts with this, or with one of A,B,C")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--no-commit", action="store_true", help="leave git alone")
    arguments = parser.parse_args()
    tables = read_tables()
    rows = selected(read_rows(tables), arguments.only)
    if arguments.list:
        print("\n".join(f"{'done' if row.result.exists() else 'open':<5} {row.name}" for row in rows))
        return 0
    failed = [row.name for row in rows if not row.result.exists() and not _finish(row, commit=not arguments.no_commit)]
    write_pages(tables)
    print(f"{len(rows) - len(failed)} of {len(rows)} rows are done" + "".join(f"\n  open: {name}" for name in failed))
    return 1 if failed else 0


def selected(rows: Sequence[Row], only: str) -> list[Row]:
    """The rows whose names start with one of the comma-separated texts, in the order of `rows`."""
    starts = tuple(start.strip() for start in only.split(","))
    return [row for row in rows if row.name.startswith(starts)]


def _finish(row: Row, *, commit: bool) -> bool:
    """Run a row to its end and write its results; return whether that succeeded."""
    missing = row.missing(os.environ)
    if missing:
        print(f"{row.name}: set {' and '.join(missing)} in the environment to the folder it names")
        return False
    print(f"{row.name}: hardray {row.command}", flush=True)
    started = time.monotonic()
    output = WORK / row.name
    arguments = [*row.arguments(os.environ), "--output", str(output)]
    if row.verb in RUNS:
        begun = (output / "config.yaml").exists()
        arguments = [row.verb, "--resume", str(output)] if begun else [*arguments, "tracking.enabled=false"]
    hardray = str(Path(sys.executable).with_name("hardray"))
    if subprocess.run([hardray, *arguments], check=False).returncode != 0:
        return False
    figures = _run_figures(output) if row.verb in RUNS else _score_figures(output)
    if row.probed:
        found = probed(hardray, output, row.probe_arguments(os.environ))
        if found is None:
            return False
        figures |= found
    _keep(row, figures, time.monotonic() - started)
    if commit:
        pictures = (ROOT / "docs" / "images").glob("*.png")
        paths = [str(path) for path in (row.result, *write_pages(read_tables()), *sorted(pictures))]
        subprocess.run(["git", "add", *paths], check=True, cwd=ROOT)
        subprocess.run(["git", "commit", "--quiet", "-m", f"Experiment {row.name}", "--", *paths], check=True, cwd=ROOT)
    return True


SUITES = ("clean", "corruptions", "shifts", "rotations")
"""What a linear classifier on a student's features is measured on."""


def probed(hardray: str, output: Path, labelled: Sequence[str]) -> dict[str, Any] | None:
    """The accuracy of a linear classifier and of k-NN on the features of a run's student; None: a command failed."""
    head, measured = output.with_name(f"{output.name}-head"), output.with_name(f"{output.name}-measured")
    suites = [word for suite in SUITES for word in ("--suite", suite)]
    made = ["--output", str(measured)]
    commands = (
        ["probe", str(output), *labelled],
        ["fit-head", "--kind", "probe", "--tower", f"local-dir:{output / 'student'}", *labelled, "--output", str(head)],
        ["evaluate", str(head), *labelled, *suites, "--images", "500", "--severities", "1,3,5", "--no-teacher", *made],
    )
    for command in commands:
        if subprocess.run([hardray, *command], check=False).returncode != 0:
            return None
    nearest = json.loads((output / "probe" / "probe.json").read_text())["top1"]["knn"]
    found = json.loads((measured / "evaluation.json").read_text())["suites"]
    return {"probe": {"knn": nearest["test"], **{suite: round(found[suite]["top1"], 3) for suite in SUITES}}}


def _keep(row: Row, figures: dict[str, Any], seconds: float) -> None:
    """Write the row's results, without names of this machine."""
    about = {"command": f"hardray {row.command}", "wall_seconds": round(seconds), "processor": processor(probe())}
    result = {**about, **figures}
    RESULTS.mkdir(parents=True, exist_ok=True)
    row.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def processor(hardware: Hardware) -> str:
    """What a row is computed with, and in which precision unless its command says otherwise."""
    if hardware.gpus:
        return f"{hardware.gpus[0]}, {hardware.fast_dtype(on_gpu=True)}"
    unit = f" with {hardware.bf16_unit}" if hardware.bf16_unit else ""
    return f"{hardware.cores} CPU cores{unit}, {hardware.fast_dtype(on_gpu=False)}"


def _score_figures(output: Path) -> dict[str, Any]:
    """T. stddev of each augmentation."""
    found = json.loads((output / "scores.json").read_text())
    return {key: found[key] for key in ("scores", "groups", "iterations", "batch_size", "seed", "versions")}


def _run_figures(output: Path) -> dict[str, Any]:
    """All that was measured of every model; a trained teacher is the `student` of its run, and has no teacher."""
    summary = json.loads((output / "summary.json").read_text())
    folders = {"student": output} | {path.name: path for path in sorted((output / "controls").glob("*"))}
    evaluations = {name: json.loads((folder / "evaluation.json").read_text()) for name, folder in folders.items()}
    teacher = evaluations["student"]["teacher"]
    suites = {name: each["suites"] for name, each in evaluations.items()} | ({"teacher": teacher} if teacher else {})
    config = parse_yaml((output / "config.yaml").read_text(), "config.yaml", reading="saved")
    return {
        "augmentor": _kind(config["augmentor"]),
        **{key: summary[key] for key in ("models", "steps", "switches", "seed", "versions")},
        "costs": {name: _costs(json.loads((folder / "outcome.json").read_text())) for name, folder in folders.items()},
        "measure": summary.get("measure", "top1"),
        "test_loss": {name: round(each["clean"]["loss"], 5) for name, each in suites.items()},
        "agreement": {name: _agreement(each) for name, each in suites.items() if name != "teacher"},
        "by": {name: _by(each) for name, each in suites.items() if name != "teacher"},
        "teacher_by": _by(teacher),
    }


def _kind(augmentor: Mapping[str, Any]) -> str:
    """The kind of an augmentor, with those of its parts: `sequence(policy, cutmix)`."""
    parts = augmentor.get("augmentors") or [augmentor[key] for key in ("augmentor",) if key in augmentor]
    return f"{augmentor['kind']}({', '.join(map(_kind, parts))})" if parts else str(augmentor["kind"])


def _agreement(suites: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The share of images, by suite and in percent, on which the student and its teacher name the same class."""
    return {name: round(found["agreement"], 4) for name, found in suites.items() if "agreement" in found}


def _costs(outcome: dict[str, Any]) -> dict[str, float]:
    """Seconds of training, in total and per student update, and the share of augmentor phases."""
    total = outcome["seconds"]["total"]
    share = outcome["seconds"].get("augmentor_phases", 0.0) / total  # including waits for the teacher
    return {
        "seconds": round(total, 1),
        "seconds_per_update": round(total / outcome["steps"]["student"], 5),
        "augmentor_share": round(share, 4),
    }


def _by(suites: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: suite["by"] for name, suite in suites.items() if "by" in suite}


if __name__ == "__main__":
    sys.exit(main())
