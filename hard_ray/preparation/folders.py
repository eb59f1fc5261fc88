"""A comparison's folder: its settings, what the teacher said so far, and the scores."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hard_ray.config.layers import dotted_values
from hard_ray.config.loader import read_begun
from hard_ray.config.scoring import ScoreRun
from hard_ray.data.generated_set import MANIFEST
from hard_ray.data.generated_shard import shard_name
from hard_ray.errors import DataError, RunFolderError
from hard_ray.files import is_vacant, read_npz, write_bytes
from hard_ray.preparation.scoring import Means
from hard_ray.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class ScoreFolder:
    """The paths of one comparison, and what it knows so far."""

    path: Path

    @property
    def settings(self) -> Path:
        """What decides the scores, and all augmentors that were ever scored here."""
        return self.path / "scoring.yaml"

    @property
    def means(self) -> Path:
        """The teacher's mean answers by view and group, whose they are, and on what data."""
        return self.path / "groups.npz"

    @property
    def result(self) -> Path:
        """The scores."""
        return self.path / "scores.json"

    @property
    def picture(self) -> Path:
        """The scores as bars."""
        return self.path / "scores.png"

    @property
    def correlation(self) -> Path:
        """Losses against scores, where losses were given."""
        return self.path / "correlation.png"

    @property
    def run(self) -> RunFolder:
        """The paths that it shares with a run: lock and stop."""
        return RunFolder(self.path)


@dataclass(slots=True)
class Known:
    """What was asked already."""

    means: Means
    fingerprint: str
    """Of the data."""
    identity: str | None = None
    """Of the teacher; None before it is asked."""

    @classmethod
    def read(cls, path: Path, fingerprint: str) -> Known:
        """What a file holds; nothing where there is none.

        Raises:
            RunFolderError: it cannot be read.
            DataError: it is of other data.
        """
        if not path.exists():
            return cls({}, fingerprint)
        try:
            stored = read_npz(path)
            means = {name: list(rows) for name, rows in stored.items() if ":" not in name}
            known = cls(means, str(stored["of:data"]), str(stored["of:teacher"]))
        except (ValueError, TypeError, KeyError) as error:
            raise RunFolderError(f"{path} is damaged ({error}); remove it to score all anew") from None
        if known.fingerprint != fingerprint:
            raise DataError(f"{path} is of other images: labels, classes or splits changed; choose another --output")
        return known

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {name: np.stack(rows) for name, rows in self.means.items() if rows}
        arrays |= {"of:data": np.array(self.fingerprint), "of:teacher": np.array(self.identity)}
        np.savez(stream, **arrays)
        write_bytes(path, stream.getvalue())

    def lacks(self, names: Iterable[str], groups: int) -> bool:
        """Whether a view has fewer groups."""
        return any(len(self.means.get(name, [])) < groups for name in names)


def check_output(folder: ScoreFolder, run: ScoreRun) -> ScoreRun:
    """Look whether a comparison may be made in a folder.

    Returns:
        The comparison with the augmentors that the folder knows beside its own.

    Raises:
        RunFolderError: it holds a comparison with other settings, or another version's, or something else.
    """
    path = folder.path
    if not folder.settings.exists():
        if not is_vacant(path):
            raise RunFolderError(f"{path} is there already and holds no scores; choose another --output")
        return run
    begun = read_begun(ScoreRun, folder.settings)
    everything = {**begun.augmentors, **run.augmentors}
    before, now = (
        dotted_values(each.model_copy(update={"groups": run.groups}).model_dump(mode="json"), empty_blocks=True)
        for each in (begun, run.model_copy(update={"augmentors": everything}))
    )
    changed = [f"{key} was {before[key]}, now {now.get(key)}" for key in sorted(before) if before[key] != now.get(key)]
    if changed:
        raise RunFolderError(
            f"{path} holds scores with other settings: {'; '.join(changed[:5])}; give the same ones, call an augmentor "
            "with other settings otherwise (NAME={kind: ...}), or choose another --output"
        )
    return run.model_copy(update={"augmentors": everything})


@dataclass(frozen=True, slots=True)
class SetFolder:
    """The paths of a generated set."""

    path: Path

    @property
    def manifest(self) -> Path:
        """What the set is, and whether it is complete."""
        return self.path / MANIFEST

    @property
    def picture(self) -> Path:
        """Some images at every stage."""
        return self.path / "gallery.png"

    @property
    def run(self) -> RunFolder:
        """The paths that it shares with a run: its lock, unreadable images."""
        return RunFolder(self.path)

    def shard(self, number: int) -> Path:
        """The file of a shard."""
        return self.path / shard_name(number)

    def shards(self) -> dict[int, Path]:
        """Those that are there, by number."""
        found = (path for path in self.path.glob("shard-*.parquet"))
        return {int(number): path for path in sorted(found) if (number := path.stem.removeprefix("shard-")).isdigit()}


@dataclass(frozen=True, slots=True)
class AutoencoderFolder:
    """The paths of one autoencoder: diffusers' own, and hardray's beside them."""

    path: Path

    @property
    def training(self) -> Path:
        """What decides the weights, resolved for the machine."""
        return self.path / "training.yaml"

    @property
    def result(self) -> Path:
        """What came out; it is there once the training is finished."""
        return self.path / "result.json"

    @property
    def picture(self) -> Path:
        """Validation images and what became of them."""
        return self.path / "reconstructions.png"

    @property
    def run(self) -> RunFolder:
        """The paths that it shares with a run: log, checkpoints, lock, stop."""
        return RunFolder(self.path)
