"""`make gpu`: hardray on this machine's card, against plain loops on the same card.

It needs torch, torchvision, timm, pydantic, numpy, pillow, pyyaml, jaxtyping and safetensors, and no network. Where Ray
and the rest of hardray's requirements are installed, whole runs with a teacher pool are measured too. Without a card,
the CPU stands in for it with tiny networks: every part runs, and the figures say nothing.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import card, report
from benchmarks.gpu.cells import Cell, Plan, measured
from benchmarks.gpu.exactness import BIT_UPDATES
from benchmarks.gpu.isolated import Isolated, Start
from benchmarks.gpu.workload import FOLDER_CLASSES, Workload, make_images

CLOSING_S = 20.0
"""Seconds for the imports before the first measure, and for the end of a process after the last one."""
BATCHES = 4
PROBE_S = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return 0 unless a cell broke."""
    began = time.monotonic()
    given = _arguments(arguments)
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    cache = given.output.resolve() / "gpu-inductor"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)  # not the user's: a measure may be ended while it writes there
    start, machine = _machine()
    with tempfile.TemporaryDirectory(prefix="hardray-gpu-") as folder:
        work = _work(given, machine, Path(folder))
        if work.device == "cpu":
            torch.set_num_threads(1)  # threads that wait for each other on a busy machine take minutes
        cells = _cells(given, work, start, machine)
        _say(f"{_name(machine)}: {work.batch} images of {work.size} pixels in {work.dtype} an update")
        found = {
            "machine": machine,
            "work": {**asdict(work), "folder": None},
            "decoded_per_s": make_images(work, BATCHES),
            "bit_updates": BIT_UPDATES,
        }
        failed = _measure(cells, found, given.output, start, began=began, minutes=given.minutes)
        if work.device == "cpu":
            shutil.rmtree(cache, ignore_errors=True)  # torch writes code for CPUs in place: some may be half there
    print(report.markdown(found))
    print(f"written: {given.output}/gpu.json and gpu.md")
    if failed:
        print(f"{failed} of {len(cells)} measures failed; their errors stand in the table")
    return 1 if failed else 0


def _cells(given: argparse.Namespace, work: Workload, start: Start, machine: dict[str, Any]) -> list[Cell]:
    plan = Plan(
        work,
        start,
        hows=(True,) if given.compile else (),
        with_ray=given.ray,
        cards=len(machine["cards"]),
        at_once=_at_once(machine),
        only=given.only,
    )
    cells = list(plan.cells())
    if not cells:
        name = " | ".join(next(plan.every()).key)
        raise SystemExit(f"no measure has {given.only!r} in its name, which is such as {name!r}; correct --only")
    return cells


def _measure(
    cells: list[Cell], found: dict[str, Any], folder: Path, start: Start, *, began: float, minutes: float
) -> int:
    """Measure and write after each cell, so that nothing is lost; return how many cells broke."""
    found["cells"], failed = [], 0
    for key, outcome in measured(cells, began + 60.0 * minutes - CLOSING_S, start=start, say=_say):
        found["cells"].append({"key": key, "values": outcome.values, "error": outcome.error})
        found["seconds"] = time.monotonic() - began
        failed += outcome.failed
        if outcome.details:
            print(outcome.details, file=sys.stderr, flush=True)
        _write(found, folder)
    return failed


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="the whole command takes no longer")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="unset: the card, if there is one")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and images; always so on the CPU")
    parser.add_argument("--size", type=int, help="side of the images in pixels; unset: 224, or 32 with --tiny")
    parser.add_argument("--batch", type=int, help="images per update; unset: 128, or 16 with --tiny")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="unset: bfloat16 on a card that has it")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="also with torch.compile"
    )
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True, help="also whole runs with Ray")
    parser.add_argument("--only", default="", metavar="TEXT", help="measure cells whose name holds this text")
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder of gpu.json and gpu.md")
    return parser.parse_args(arguments)


def _machine() -> tuple[Start, dict[str, Any]]:
    """Describe the machine from a process of its own, and say how processes are to be started."""
    deadline = time.monotonic() + PROBE_S
    for start in _starts():
        outcome = Isolated(card.describe, start=start).result(deadline)
        if outcome.values.get("cards"):
            break
    if outcome.error:
        raise SystemExit(f"the machine cannot be described: {outcome.error}\n{outcome.details}")
    return start, outcome.values


def _starts() -> tuple[Start, ...]:
    """Copies of this process; new processes too where there is a driver, should a copy not see the card."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return ("fork", "spawn") if shutil.which("nvidia-smi") and not hidden else ("fork",)


def _work(given: argparse.Namespace, machine: dict[str, Any], folder: Path) -> Workload:
    cards = machine["cards"]
    if given.device == "cuda" and not cards:
        raise SystemExit("--device cuda, but PyTorch sees no card; look at `nvidia-smi` and torch.version.cuda")
    tiny = given.tiny or not cards
    has_bf16 = bool(cards) and cards[0]["bfloat16"]
    return Workload(
        device="cuda" if cards else "cpu",
        size=given.size or (32 if tiny else 224),
        batch=given.batch or (16 if tiny else 128),
        dtype=given.dtype or ("bfloat16" if has_bf16 else "float32"),
        tiny=tiny,
        folder=folder,
        classes=FOLDER_CLASSES if tiny else 1000,
    )


def _at_once(machine: dict[str, Any]) -> int:
    """Compilations at once: each uses a core, and the memory of a pair of networks."""
    gib = sum(card["gib"] for card in machine["cards"][:1])
    return max(1, min(6, (os.cpu_count() or 1) // 2, int(gib // 20)))


def _name(machine: dict[str, Any]) -> str:
    return machine["cards"][0]["name"] if machine["cards"] else "no card, so the CPU stands in for it"


def _write(found: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(report.markdown(found), encoding="utf-8")


_say = functools.partial(print, flush=True)

if __name__ == "__main__":
    raise SystemExit(main())
