"""What an index costs: microseconds an image and core, bytes of memory, and the time of a second start.

The images are 3 x 3 pixels in 20 bytes, so that nothing but the index is large. Seconds an image and core are those
that the CPU worked for the process.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.rounds import interleaved, median
from benchmarks.work import BUILD, HARDRAY, Measured, Place, python, run

PICTURE = b"P5 3 3 255\n" + bytes(9)
ROWS, MANY_ROWS, SHARD_ROWS = 2_000_000, 10_000_000, 250_000
SAMPLES, SHARD_SAMPLES = 100_000, 10_000
FILES, CLASSES = 200_000, 1000
FOLDER = BUILD / "index"


def parquet(folder: Path, rows: int, shard_rows: int = SHARD_ROWS) -> Path:
    """Parquet files of so many rows."""
    for number in range(rows // shard_rows):
        path = folder / f"train-{number:05d}.parquet"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            draw = np.random.default_rng(number)
            cells = np.tile(np.frombuffer(PICTURE, dtype=np.uint8), (shard_rows, 1))
            cells[:, -9:] = draw.integers(0, 256, (shard_rows, 9))
            fixed = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(len(PICTURE)), shard_rows, [None, pa.py_buffer(cells)]
            )
            labels = pa.array(draw.integers(0, 10, shard_rows).tolist(), pa.int64())
            table = pa.table({"image": fixed.cast(pa.binary()), "label": labels})
            pq.write_table(table, path, row_group_size=10_000, use_dictionary=["label"], compression="none")
    return folder


def webdataset(folder: Path, samples: int, shard_samples: int = SHARD_SAMPLES) -> Path:
    """Tar files of so many samples of an image and a label."""
    for number in range(samples // shard_samples):
        path = folder / f"train-{number:05d}.tar"
        if path.exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for sample in range(number * shard_samples, (number + 1) * shard_samples):
                for extension, content in (("pgm", PICTURE), ("cls", str(sample % 10).encode())):
                    member = tarfile.TarInfo(f"{sample:09d}.{extension}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


def image_folder(folder: Path, files: int, classes: int = CLASSES) -> Path:
    """So many files in folders of classes."""
    if (folder / "done").exists():
        return folder
    for name in range(classes):
        below = folder / "train" / f"n{name:08d}"
        below.mkdir(parents=True, exist_ok=True)
        for number in range(files // classes):
            (below / f"{number}.pgm").write_bytes(PICTURE)
    (folder / "done").touch()
    return folder


def _warm(folder: Path) -> None:
    """Small data of each kind, whose index imports what every index needs."""
    parquet(folder / "parquet", 20, 20)
    webdataset(folder / "webdataset", 20, 20)
    image_folder(folder / "image_folder", 20, 10)


def first(kind: str, path: Path) -> float:
    """Microseconds an image and core of a first index."""
    cache = FOLDER / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    found = python("index_work", kind, path, HARDRAY_CACHE=str(cache))
    return found["cpu_seconds"] / found["images"] * 1e6


def dry_run(*overrides: str) -> float:
    """Seconds of a dry run."""
    began = time.perf_counter()
    run(
        [HARDRAY, "distill", "--preset", "digits", "--dry-run", *overrides],
        HARDRAY_CACHE=str(FOLDER / "cache"),
    )
    return time.perf_counter() - began


def data_overrides(kind: str, path: Path) -> list[str]:
    """The preset's run on other data, of the same size and channels."""
    view = ["data.img_size=28", "data.in_chans=1", "data.crop=none", "data.hflip=0"]
    return [f"data.kind={kind}", f"data.path={path}", *view]


def measure(_: Place, rounds: int) -> Measured:
    """The figures of the module's title."""
    paths = {
        "parquet": parquet(FOLDER / "parquet", ROWS),
        "webdataset": webdataset(FOLDER / "webdataset", SAMPLES),
        "image_folder": image_folder(FOLDER / "image_folder", FILES, 10),
    }
    _warm(FOLDER / "warm")
    measures = {kind: functools.partial(first, kind, path) for kind, path in paths.items()}
    found = interleaved(measures, rounds, "us an image and core")
    ratios = {f"index_us_{kind}": median(values) for kind, values in found.items()}

    cache = str(FOLDER / "cache")
    many = parquet(FOLDER / "many", MANY_ROWS)
    shutil.rmtree(cache, ignore_errors=True)
    made = python("index_work", "parquet", many, "stream", HARDRAY_CACHE=cache)
    kept = python("index_work", "parquet", many, "stream", HARDRAY_CACHE=cache)
    ratios["index_many_gib"] = max(made["peak_bytes"], kept["peak_bytes"]) / 2**30
    ratios["index_own_bytes"] = kept["own_bytes"] / kept["images"]
    print(f"    {MANY_ROWS:,} rows: {made['seconds']:.1f} s, then {kept['seconds']:.3f} s", flush=True)

    for kind in ("parquet", "image_folder"):
        dry_run(*data_overrides(kind, paths[kind]))  # the first start makes the index
    kinds = ("parquet", "image_folder")
    again = {kind: functools.partial(dry_run, *data_overrides(kind, paths[kind])) for kind in kinds}
    starts = interleaved({"digits": dry_run, **again}, rounds, "s")
    for kind in kinds:
        ratios[f"index_start_s_{kind}"] = median([a - b for a, b in zip(starts[kind], starts["digits"], strict=True)])
    print(f"    {os.cpu_count()} cores", flush=True)
    return ratios
