"""The output folders of this room: scores of augmentations, generated sets, autoencoders."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hard_ray.config.layers import dotted_values
from hard_ray.config.loader import read_begun
from hard_ray.config.scoring import ScoreRun
from hard_ray.data.checked_shard import shard_name
from hard_ray.data.generated_set import MANIFEST
from hard_ray.errors import DataError, RunFolderError
from hard_ray.files import is_vacant, make_folder, read_npz, write_bytes
from hard_ray.preparation.scoring import Means
from hard_ray.runs.folder import Inside, RunFolder
from hard_ray.runs.place import occupied


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """An output folder; lock, stop request, log and checkpoints lie where a run has them."""

    path: Path

    @property
    def run(self) -> RunFolder:
        """The paths that the folder shares with a run."""
        return RunFolder(self.path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold its lock; raises RunFolderError if another process holds it."""
        make_folder(self.path)
        with self.run.locked():
            yield


class ScoreFolder(OutputFolder):
    """Settings, means and scores of one comparison of augmentations."""

    __slots__ = ()

    settings = Inside("scoring.yaml")
    """Settings that decide the scores, with every augmentor that was ever scored here."""
    means = Inside("groups.npz")
    """The teacher's mean answers by view and group, with the identities of teacher and data."""
    result = Inside("scores.json")
    """The scores."""
    picture = Inside("scores.png")
    """The scores as bars."""
    correlation = Inside("correlation.png")
    """Losses against scores, if losses were given."""


@dataclass(slots=True)
class KnownMeans:
    """The teacher's mean answers so far, as the folder holds them."""

    means: Means
    fingerprint: str
    """Fingerprint of the data."""
    identity: str | None = None
    """Identity of the teacher; None before its first answer."""

    @classmethod
    def read(cls, path: Path, fingerprint: str) -> KnownMeans:
        """Read a file, if there is one; raises RunFolderError if it is damaged, DataError if it is of other data."""
        if not path.exists():
            return cls({}, fingerprint)
        try:
            stored = read_npz(path)
            means = {name: list(rows) for name, rows in stored.items() if ":" not in name}
            known = cls(means, str(stored["of:data"]), str(stored["of:teacher"]))
        except (ValueError, TypeError, KeyError) as error:
            raise RunFolderError(f"{path} is damaged ({error}); remove it to score everything again") from None
        if known.fingerprint != fingerprint:
            raise DataError(f"{path} is of other images: labels, classes or splits changed; choose another --output")
        return known

    def write(self, path: Path) -> None:
        """Replace the file atomically."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {name: np.stack(rows) for name, rows in self.means.items() if rows}
        arrays |= {"of:data": np.array(self.fingerprint), "of:teacher": np.array(self.identity)}
        np.savez(stream, **arrays)
        write_bytes(path, stream.getvalue())

    def lacks(self, names: Iterable[str], groups: int) -> bool:
        """Whether one of these views has fewer groups."""
        return any(len(self.means.get(name, [])) < groups for name in names)


def check_score_folder(folder: ScoreFolder, run: ScoreRun) -> ScoreRun:
    """Check that a comparison may be made in a folder, and return it with the augmentors that the folder knows.

    Raises RunFolderError if the folder holds a comparison with other settings or of another version, or something else.
    """
    path = folder.path
    if not folder.settings.exists():
        if not is_vacant(path):
            raise occupied(path, "scores")
        return run
    begun = read_begun(ScoreRun, folder.settings)
    everything = {**begun.augmentors, **run.augmentors}
    before, now = (
        dotted_values(each.model_copy(update={"groups": run.groups}).model_dump(mode="json"), empty_blocks=True)
        for each in (begun, run.model_copy(update={"augmentors": everything}))
    )
    keys = sorted(
        before.keys() | {key for key in now if not key.startswith("augmentors.")}
    )  # more of them are no change
    changed = [f"{key} was {before.get(key)}, now {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
    if changed:
        raise RunFolderError(
            f"{path} holds scores with other settings: {'; '.join(changed[:5])}; give the same ones, call an augmentor "
            "with other settings otherwise (NAME={kind: ...}), or choose another --output"
        )
    return run.model_copy(update={"augmentors": everything})


class ShardFolder(OutputFolder):
    """A folder of numbered shards."""

    __slots__ = ()

    def shard(self, number: int) -> Path:
        """The file of a shard."""
        return self.path / shard_name(number)

    def shards(self) -> dict[int, Path]:
        """Files of the shards in the folder, by number."""
        found = (path for path in self.path.glob("shard-*.parquet"))
        return {int(number): path for path in sorted(found) if (number := path.stem.removeprefix("shard-")).isdigit()}


class SetFolder(ShardFolder):
    """Manifest, shards and gallery of a generated set."""

    __slots__ = ()

    manifest = Inside(MANIFEST)
    """Settings and contents of the set, and whether it is complete."""
    picture = Inside("gallery.png")
    """A few images at every stage."""


class HeadFolder(OutputFolder):
    """A tower with a head in timm's layout, and the features that the head was fitted to."""

    __slots__ = ()

    features = Inside("features")
    """Shards of features."""
    config = Inside("config.json")
    """timm's description; it is written last."""
    weights = Inside("model.safetensors")
    """Weights of tower and head."""
    card = Inside("README.md")
    """The model card."""
    result = Inside("head.json")
    """How the head was fitted, and how good it is."""

    def check(self) -> None:
        """Raise a RunFolderError if the folder holds something else."""
        if self.features.is_dir() or self.result.is_file() or is_vacant(self.path):
            return
        raise occupied(self.path, "head of hardray's")


class ProbeFolder(OutputFolder):
    """Features of a network and the accuracies that they reach."""

    __slots__ = ()

    features = Inside("features")
    """Shards of features."""
    result = Inside("probe.json")
    """The accuracies."""

    def check(self) -> None:
        """Raise a RunFolderError if the folder holds something else."""
        if self.features.is_dir() or self.result.is_file() or is_vacant(self.path):
            return
        raise occupied(self.path, "probe of hardray's")


class AutoencoderFolder(OutputFolder):
    """Diffusers' files of an autoencoder, and hardray's beside them."""

    __slots__ = ()

    training = Inside("training.yaml")
    """Settings that decide the weights, resolved for the machine."""
    result = Inside("result.json")
    """Quality and sizes; written when the training is finished."""
    picture = Inside("reconstructions.png")
    """Validation images and their reconstructions."""
