"""Images per second of a whole run with its teacher pool, against a plain loop and against timm's script."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import torch

from benchmarks.rounds import interleaved, ratio
from benchmarks.work import BATCH, BUILD, HARDRAY, STUDENT, Measured, Place, against_plain, precision, python, run, show
from hard_ray.orchestration.cluster.processes import BACKGROUND
from hard_ray.runs.log import read_points

FIRST, STEPS = 80, 320


def hardray(place: Place, **environment: str) -> float:
    """Images per second of `hardray distill`, from update FIRST to the last."""
    output = BUILD / "run"
    shutil.rmtree(output, ignore_errors=True)
    given = place.overrides(optim__steps=STEPS, tracking__log_every=10)
    run([HARDRAY, "distill", "--preset", "cifar10", "--output", str(output), *given], **environment)
    times = {
        point["step"]: point["time"] for _, point in read_points(output / "metrics.jsonl") if point["kind"] == "train"
    }
    return (STEPS - FIRST) * BATCH / float(times[STEPS] - times[FIRST])


def plain(place: Place, workers: int) -> float:
    """Images per second of the plain loop."""
    arguments = ("--data", place.data, "--steps", STEPS, "--from", FIRST, "--workers", workers)
    return python("plain_loop", *arguments)["images_per_s"]


def timm(place: Place, script: Path) -> float:
    """Images per second of timm's train.py, from update FIRST on, by its own count and in hardray's precision."""
    patched = "import sys, runpy, hard_ray.networks; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    output = BUILD / "timm"
    shutil.rmtree(output, ignore_errors=True)
    options = f"""--data-dir {place.data} --train-split train --val-split test --model {STUDENT} --num-classes 10
      --kd-model-name local-dir:{place.teacher} --kd-distill-type logit --kd-temperature 4
      --input-size 3 32 32 --train-crop-mode rkrc --scale 1 1 --ratio 1 1 --hflip 0.5 --color-jitter 0
      --batch-size {BATCH} --epochs 1 --sched cosine --warmup-epochs 0 --lr 0.1
      --workers 2 --device cpu --no-prefetcher --log-interval 50 --output {output}"""
    fast = precision()
    options += " --channels-last" if fast.channels_last else ""
    options += " --amp --amp-dtype bfloat16" if fast.dtype == torch.bfloat16 else ""
    text = run([sys.executable, "-c", patched, str(script), *options.split()])
    found = re.findall(r"Train: 0 \[ *(\d+)/.*?\(([\d.]+)s,", text)
    means = [(int(update) + 1, float(seconds)) for update, seconds in found if int(update) >= FIRST]
    if len(means) < 2:
        raise RuntimeError(f"timm's script printed no speed:\n{text[-2000:]}")
    (first, early), (last, late) = means[0], means[-1]
    return (last - first) * BATCH / (last * late - first * early)


def measure(place: Place, rounds: int) -> Measured:
    """`plain_loop` and `timm`: hardray's images per second over theirs; `timm` only if $TIMM_TRAIN is set."""
    measures = {
        "hardray": lambda: hardray(place),
        "plain-0": lambda: plain(place, 0),
        "plain-2": lambda: plain(place, 2),
    }
    script = os.environ.get("TIMM_TRAIN")
    if script:
        measures["timm"] = lambda: timm(place, Path(script))
    found = interleaved(measures, rounds, "images/s")
    show(found, "images/s")
    ratios = {"plain_loop": against_plain(found)}
    return ratios | ({"timm": ratio(found["hardray"], found["timm"])} if script else {})


def measure_priority(place: Place, rounds: int) -> Measured:
    """`student_first`: hardray's images per second over those with student, teacher and data at one priority."""
    measures = {"first": lambda: hardray(place), "alike": lambda: hardray(place, RAY_worker_niceness=str(BACKGROUND))}
    found = interleaved(measures, rounds, "images/s")
    show(found, "images/s")
    return {"student_first": ratio(found["first"], found["alike"])}
