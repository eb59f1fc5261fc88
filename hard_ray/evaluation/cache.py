"""A cache between runs for slowly changed images and the teacher's answers on them."""

from __future__ import annotations

import contextlib
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.evaluation.changes import Change
from hard_ray.files import write_bytes

LARGEST = 2**30
"""Bytes of the largest evaluation that is cached."""


@dataclass(frozen=True, slots=True)
class EvaluationCache:
    """A folder of arrays, each named by a hash of everything that decides its content.

    A file that cannot be read is made again; a folder that cannot be written to is ignored.
    """

    folder: Path

    def changed(
        self, change: Change, images: NDArray[np.uint8], sample_ids: NDArray[np.int64], *, version: str
    ) -> NDArray[np.uint8]:
        """Read the changed images, or make and store them; `version` is of the package that makes the change."""
        path = self._path(f"{change!r} {version}", images, sample_ids)
        found = self._read(path)
        if found is not None and found.shape == images.shape and found.dtype == np.uint8:
            return found
        made = change(images, sample_ids)
        self._write(path, made)
        return made

    def answer(self, teacher: str, images: NDArray[np.uint8], *others: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Logits of the teacher with this identity on these images; None if they are not stored.

        `others`: what else decides the answer, as labels do under an attack.
        """
        found = self._read(self._path(teacher, images, *others))
        return found if found is not None and len(found) == len(images) and found.dtype == np.float32 else None

    def keep_answer(
        self, teacher: str, images: NDArray[np.uint8], logits: NDArray[np.float32], *others: NDArray[np.int64]
    ) -> None:
        """Store the teacher's logits."""
        path = self._path(teacher, images, *others)
        if not path.exists():
            self._write(path, logits)

    def _path(self, what: str, *arrays: NDArray[np.generic]) -> Path:
        digest = hashlib.sha256(what.encode())
        for array in arrays:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return self.folder / f"{digest.hexdigest()}.npy"

    def _read(self, path: Path) -> NDArray[Any] | None:
        try:
            found: NDArray[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found

    def _write(self, path: Path, values: NDArray[Any]) -> None:
        stream = io.BytesIO()
        np.save(stream, values, allow_pickle=False)
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, stream.getvalue())
