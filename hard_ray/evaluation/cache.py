"""What an evaluation needs again in every run: slowly changed images, and the teacher's answers."""

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
"""Bytes of an evaluation that are kept at most; where it is more, nothing is."""


@dataclass(frozen=True, slots=True)
class EvaluationCache:
    """A folder of arrays under a hash of all that decides them.

    A file that cannot be read is made again, and a folder that cannot be written to is done without.
    """

    folder: Path

    def changed(
        self, change: Change, images: NDArray[np.uint8], sample_ids: NDArray[np.int64], *, version: str
    ) -> NDArray[np.uint8]:
        """The changed images: from the folder, or made and put there.

        Args:
            change: what is done to them.
            images: shape (batch, channels, height, width).
            sample_ids: of the images.
            version: of what makes the change.
        """
        path = self._path(f"{change!r} {version}", images, sample_ids)
        found = self._read(path)
        if found is not None and found.shape == images.shape and found.dtype == np.uint8:
            return found
        made = change(images, sample_ids)
        self._write(path, made)
        return made

    def answer(self, teacher: str, images: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """The logits of the teacher of that identity on these images; None where they are not known."""
        found = self._read(self._path(teacher, images))
        return found if found is not None and len(found) == len(images) and found.dtype == np.float32 else None

    def keep_answer(self, teacher: str, images: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        """Put the teacher's logits there."""
        path = self._path(teacher, images)
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
