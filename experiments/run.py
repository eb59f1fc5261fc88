"""`make experiments`: runs the rows that have no result yet, one after the other.

An interrupted row resumes from its checkpoint. The results of a finished row are written to `docs/experiments/` and
committed, and `docs/experiments.md` is written again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.page import write_page
from experiments.rows import RESULTS, RUNS, Row, read_rows, read_tables

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "experiments"


def main() -> int:
    """Run the queue; return 0 if every selected row has a result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only rows whose name starts with this")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--no-commit", action="store_true", help="leave git alone")
    arguments = parser.parse_args()
    tables = read_tables()
    rows = [row for row in read_rows(tables) if row.name.startswith(arguments.only)]
    if arguments.list:
        print("\n".join(f"{'done' if row.result.exists() else 'open':<5} {row.name}" for row in rows))
        return 0
    failed = [row.name for row in rows if not row.result.exists() and not _finish(row, commit=not arguments.no_commit)]
    write_page(tables)
    print(f"{len(rows) - len(failed)} of {len(rows)} rows are done" + "".join(f"\n  open: {name}" for name in failed))
    return 1 if failed else 0


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
    _keep(row, figures, time.monotonic() - started)
    if commit:
        write_page(read_tables())
        page = ROOT / "docs" / "experiments.md"
        pictures = sorted(str(path) for path in (ROOT / "docs" / "images").glob("*.png"))
        paths = [str(row.result), str(page), *pictures]
        subprocess.run(["git", "add", *paths], check=True, cwd=ROOT)
        subprocess.run(["git", "commit", "--quiet", "-m", f"Experiment {row.name}", "--", *paths], check=True, cwd=ROOT)
    return True


def _keep(row: Row, figures: dict[str, Any], seconds: float) -> None:
    """Write the row's results, without names of this machine."""
    result = {"command": f"hardray {row.command}", "wall_seconds": round(seconds), **figures}
    RESULTS.mkdir(parents=True, exist_ok=True)
    row.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _score_figures(output: Path) -> dict[str, Any]:
    """T. stddev of each augmentation."""
    found = json.loads((output / "scores.json").read_text())
    return {key: found[key] for key in ("scores", "groups", "iterations", "batch_size", "seed", "versions")}


def _run_figures(output: Path) -> dict[str, Any]:
    """Accuracy, loss and cost of every model; a trained teacher is the `student` of its run, and has no teacher."""
    summary = json.loads((output / "summary.json").read_text())
    folders = {"student": output} | {path.name: path for path in sorted((output / "controls").glob("*"))}
    evaluations = {name: json.loads((folder / "evaluation.json").read_text()) for name, folder in folders.items()}
    return {
        **{key: summary[key] for key in ("models", "steps", "switches", "seed", "versions")},
        "costs": {name: _costs(json.loads((folder / "outcome.json").read_text())) for name, folder in folders.items()},
        "test_loss": {name: round(each["suites"]["clean"]["loss"], 5) for name, each in evaluations.items()},
        "by": {name: _by(evaluation["suites"]) for name, evaluation in evaluations.items()},
        "teacher_by": _by(evaluations["student"]["teacher"]),
    }


def _costs(outcome: dict[str, Any]) -> dict[str, float]:
    """Seconds of training per student update, and the share of augmentor phases."""
    total = outcome["seconds"]["total"]
    share = outcome["seconds"].get("augmentor_phases", 0.0) / total  # including waits for the teacher
    return {"seconds_per_update": round(total / outcome["steps"]["student"], 5), "augmentor_share": round(share, 4)}


def _by(suites: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: suite["by"] for name, suite in suites.items() if "by" in suite}


if __name__ == "__main__":
    sys.exit(main())
