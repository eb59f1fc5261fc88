"""Changed images that took long to make, kept between runs."""

from __future__ import annotations

import contextlib
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hard_ray.evaluation.changes import Change
from hard_ray.run_folder import write_bytes


@dataclass(frozen=True, slots=True)
class KeptChanges:
    """A folder of changed images under a hash of all that decides them: change, package, images, sample ids.

    A file that cannot be read is made again, and a folder that cannot be written to is done without.
    """

    folder: Path

    def make(
        self, change: Change, images: NDArray[np.uint8], sample_ids: NDArray[np.int64], *, version: str
    ) -> NDArray[np.uint8]:
        """The changed images: from the folder, or made and put there.

        Args:
            change: what is done to them.
            images: shape (batch, channels, height, width).
            sample_ids: of the images.
            version: of what makes the change.
        """
        path = self.folder / f"{_digest(change, images, sample_ids, version)}.npy"
        with contextlib.suppress(OSError, ValueError):
            found: NDArray[np.uint8] = np.load(path, allow_pickle=False)
            if found.shape == images.shape and found.dtype == np.uint8:
                return found
        made = change(images, sample_ids)
        stream = io.BytesIO()
        np.save(stream, made, allow_pickle=False)
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, stream.getvalue())
        return made


def _digest(change: Change, images: NDArray[np.uint8], sample_ids: NDArray[np.int64], version: str) -> str:
    digest = hashlib.sha256(f"{change!r} {version} {images.shape}".encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    digest.update(np.ascontiguousarray(sample_ids).tobytes())
    return digest.hexdigest()
