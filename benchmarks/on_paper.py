"""`python -m benchmarks.on_paper`: the tables of docs/scale.md, computed from counts and from measured figures.

Counts are of bytes and multiply-adds. The microseconds of an index are those of build/bench.json, which
`make bench ONLY=index` writes. Nothing is downloaded: networks get random weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.work import BUILD

DOCS = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- tables begin -->\n", "<!-- tables end -->\n"

PAIRS = (
    ("resnet50", "resnet18", 224),
    ("vit_base_patch16_224", "vit_small_patch16_224", 224),
    ("vit_large_patch14_dinov2", "vit_small_patch16_224", 224),
    ("vit_giant_patch14_dinov2", "vit_base_patch16_224", 224),
)
SETS = {"ImageNet-1k": 1_281_167, "ImageNet-21k": 14_197_122, "400 million": 400_000_000}
ENCODED = 110_000
"""Bytes of a mean ImageNet-1k JPEG: 138 GiB of training images (the ILSVRC 2012 download page) over 1,281,167."""
SIDE, CHANNELS, OUTPUTS = 224, 3, 1000
RATES = (500, 2000)
"""Images per second of one student, for the bandwidths."""
STUDENTS = (1, 8, 64, 512)
BYTES = {"image_folder": 48, "webdataset": 40, "parquet": 20}
"""Of a kept index, for each image: the sizes of the files that `make bench ONLY=index` leaves, paths of 26 letters."""
CORES = 64


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def size(count: float) -> str:
    """Bytes in words."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.3g} {unit}" if count < 1e12 else f"{count / 1e12:,.3g} TB"
    return f"{count:,.0f} B"


def hops() -> tuple[str, dict[str, int]]:
    """Bytes of an image on each hop, and those that go through a student's node for plain KD and for HARD."""
    pixels = CHANNELS * SIDE * SIDE
    answer = 4 * OUTPUTS
    rows = [
        ("bucket to node, once with a cache that holds the data, else each epoch", size(ENCODED), size(ENCODED)),
        ("Ray Data's task to the student (object store): pixels as uint8", size(pixels), size(pixels)),
        ("student to teacher: the clean view as uint8", size(pixels), size(pixels)),
        ("student to teacher: the augmented view as uint8", "-", size(pixels)),
        ("teacher to student: answers as float32", size(answer), size(2 * answer)),
        ("augmentor update, to the teacher and back: pixels and gradient as float32", "-", size(8 * pixels)),
    ]
    totals = {"kd": pixels + answer, "hard": 2 * pixels + 2 * answer}
    return table(["hop", "plain KD", "HARD"], rows), totals


def bandwidths(totals: dict[str, int]) -> str:
    """Bandwidths of the bucket and between students and teachers."""
    rows = []
    for students in STUDENTS:
        for rate in RATES:
            images = students * rate
            rows.append(
                (
                    students,
                    f"{rate:,}",
                    f"{size(images * ENCODED)}/s",
                    f"{size(rate * CHANNELS * SIDE * SIDE)}/s",
                    f"{size(images * totals['kd'])}/s",
                    f"{size(images * totals['hard'])}/s",
                )
            )
    head = ["students", "images/s of each", "bucket, first epoch", "object store of a node", "to teachers, KD", "HARD"]
    return table(head, rows)


def work(model: str, side: int) -> tuple[float, int]:
    """Multiply-adds of a forward pass of one image, and the number of parameters."""
    kwargs: dict[str, Any] = {"img_size": side} if model.startswith("vit") else {}
    network = timm.create_model(model, pretrained=False, num_classes=OUTPUTS, **kwargs).eval()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network(torch.zeros(1, CHANNELS, side, side))
    return counter.get_total_flops() / 2, sum(parameter.numel() for parameter in network.parameters())


def pairs() -> str:
    """Teachers for each student, by counted arithmetic, and the size of a checkpoint."""
    rows = []
    for teacher, student, side in PAIRS:
        asked, _ = work(teacher, side)
        trained, parameters = work(student, side)
        each = asked / (3 * trained)  # a backward pass is two forward passes
        rows.append(
            (
                f"`{teacher}`",
                f"`{student}`",
                f"{asked / 1e9:,.1f}",
                f"{trained / 1e9:,.1f}",
                f"{each:,.2f}",
                f"{512 * each:,.0f}",
                size(12 * parameters),
            )
        )
    head = ["teacher", "student", "G multiply-adds", "G multiply-adds", "teachers a student", "of 512", "checkpoint"]
    return table(head, rows)


def indexes() -> str:
    """Sizes and times of indexes."""
    measured = json.loads((BUILD.parent / "bench.json").read_text(encoding="utf-8"))["ratios"]
    rows = []
    for name, images in SETS.items():
        for kind, each in BYTES.items():
            seconds = images * measured[f"index_us_{kind}"] / 1e6
            spread = "-" if kind == "image_folder" else f"{seconds / CORES:,.1f} s"  # a listing is not spread
            rows.append((name, f"`{kind}`", size(images * each), f"{seconds / 60:,.1f} min", spread))
    return table(["data", "kind", "kept index", "first start, one core", f"`hardray index`, {CORES} cores"], rows)


def page() -> str:
    """The tables with their headings."""
    shown, totals = hops()
    return (
        f"### Bytes of an image on every hop\n\n{shown}\n### Bandwidths\n\n{bandwidths(totals)}\n"
        f"### Teachers for a student\n\n{pairs()}\n### Indexes\n\n{indexes()}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or put them into docs/scale.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables between the marks of docs/scale.md")
    given = parser.parse_args(arguments)
    tables = page()
    if not given.write:
        print(tables)
        return 0
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
