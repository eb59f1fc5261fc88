"""The place that a run writes to: whether it is free and writable, and whether its disk has room."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from torch import nn

from hard_ray.config.run import RunConfig
from hard_ray.errors import RunFolderError
from hard_ray.preparation.checks import trains_teacher
from hard_ray.runs.folder import check_new_run

BESIDE = 100 * 2**20
"""Bytes for pictures, logs and MLflow's database."""
FILES = 1000
"""Files that a run writes, roughly: checkpoints, pictures, MLflow's files."""


def checkpoint_bytes(config: RunConfig, network: nn.Module) -> int:
    """Size of a checkpoint: the weights, their moving average if it is kept, and the optimiser's two averages."""
    return (4 if config.optim.model_ema else 3) * weight_bytes(network)


def weight_bytes(network: nn.Module) -> int:
    """Size of a network's parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


def run_bytes(config: RunConfig, student: nn.Module, teacher: nn.Module) -> int:
    """What a run writes: for each training the kept checkpoints, one more while it is written, and two exports."""
    trainings = 1 + len(config.experiment.controls)
    kept = config.checkpoints.keep + 1
    size = trainings * (kept * checkpoint_bytes(config, student) + 2 * weight_bytes(student))
    if trains_teacher(config):
        size += kept * checkpoint_bytes(config, teacher) + 2 * weight_bytes(teacher)
    return size + BESIDE


def check_output(folder: Path, needed: int, *, resumes: bool = False) -> str:
    """Check that a run may write `needed` bytes to a folder, and return a sentence about it.

    Raises RunFolderError if the folder holds something else, cannot be written, or its disk has no room. With
    `resumes`, the folder holds the run already.
    """
    if not resumes:
        check_new_run(folder)
    place = _nearest(folder.expanduser().absolute())
    try:
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(b"hardray")
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be written: {place}: {error.strerror}; want a folder that can be; allow it, or choose "
            "another --output"
        ) from None
    free, files = shutil.disk_usage(place).free, os.statvfs(place)
    if free < needed:
        raise RunFolderError(
            f"{folder}: the run writes about {_amount(needed)}, and {_amount(free)} of disk are free; make room, lower "
            "checkpoints.keep, or choose another --output"
        )
    if files.f_files and files.f_favail < FILES:
        raise RunFolderError(
            f"{folder}: {files.f_favail} more files fit on its disk (inodes), and a run writes about {FILES}; remove "
            "some, or choose another --output"
        )
    return f"{folder} can be written; about {_amount(needed)} of {_amount(free)} free"


def _nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())


def _amount(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
