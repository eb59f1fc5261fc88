"""Checkpoints: folders with everything that a resume needs, complete or absent."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_of
from torch import nn
from torch.optim import Optimizer

from hard_ray.distillation.controller import ControllerState, PhaseSignals
from hard_ray.distillation.loss_scale import LossScale
from hard_ray.errors import RunFolderError, readable
from hard_ray.files import read_json, replacing_folder, write_bytes, write_json

STATE_FILE = "state.json"
LOSS_SCALE = "loss_scale"
"""Key of the scale of losses beside those of the optimisers; absent where gradients need none."""


@dataclass(slots=True)
class Counters:
    """The counters of a run."""

    step: int = 0
    """Updates so far, of both phases: also how many batches were used."""
    student_steps: int = 0
    augmentor_steps: int = 0
    controller: ControllerState = field(default_factory=ControllerState)
    pending: PhaseSignals | None = None
    """Signals of the last update, which the controller has not seen yet."""
    best_score: float | None = None
    """Of the evaluations on the validation split: top-1 or, without labels, agreement with the teacher, in percent."""
    teacher_identity: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent on each kind of work."""
    meter: dict[str, list[float]] = field(default_factory=dict)
    """Sum and count of each metric since the last logged point."""
    bad_images: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Counters:
        """The inverse of `to_json`."""
        pending = values["pending"]
        kept = {"best_score" if key == "best_top1" else key: value for key, value in values.items()}  # version 0.2
        return cls(
            **{
                **kept,
                "controller": ControllerState.from_json(values["controller"]),
                "pending": PhaseSignals(**pending) if pending else None,
            }
        )


@dataclass(slots=True)
class Weights:
    """Every tensor that training changes, by the name of its file."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    loss_scale: LossScale | None = None

    def write(self, folder: Path) -> None:
        """Write weights as safetensors, and optimisers in torch's format with tensors only.

        Both are serialised in memory first: on a full disk, an OSError here, the two libraries raise errors of their
        own.
        """
        for name, module in self.modules.items():
            tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
            write_bytes(folder / f"{name}.safetensors", safetensors_of(tensors))
        states = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        if self.loss_scale is not None:
            states[LOSS_SCALE] = self.loss_scale.state_dict()
        stream = io.BytesIO()
        torch.save(states, stream)
        write_bytes(folder / "optimizers.pt", stream.getvalue())

    def are_finite(self) -> bool:
        """Whether every parameter is finite."""
        return all(bool(tensor.isfinite().all()) for module in self.modules.values() for tensor in module.parameters())

    def read(self, folder: Path) -> None:
        """Load files that `write` wrote."""
        for name, module in self.modules.items():
            module.load_state_dict(load_file(folder / f"{name}.safetensors"))
        states = torch.load(folder / "optimizers.pt", weights_only=True, map_location="cpu")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(states[name])
        if self.loss_scale is not None and LOSS_SCALE in states:
            self.loss_scale.load_state_dict(states[LOSS_SCALE])


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """A run's checkpoints: `step-00000120/`, the newest `keep` of them."""

    folder: Path
    keep: int = 2
    on_save: Callable[[], None] = lambda: None
    """Called after a checkpoint was written."""

    def save(self, weights: Weights, counters: Counters) -> Path:
        """Write under a temporary name, rename, and delete the oldest; a RunFolderError leaves all as it was."""
        path = self.folder / f"step-{counters.step:08d}"
        for left in self.folder.glob(".step-*.tmp"):  # of a killed process: only one saves a run
            shutil.rmtree(left, ignore_errors=True)
        try:
            with replacing_folder(path) as temporary:
                weights.write(temporary)
                digests = {file.name: _digest(file) for file in sorted(temporary.iterdir())}
                write_json(temporary / STATE_FILE, {"progress": counters.to_json(), "sha256": digests})
        except OSError as problem:
            raise RunFolderError(
                f"the checkpoint of update {counters.step} cannot be written to {self.folder}: {problem.strerror}; "
                "earlier checkpoints are whole: make room, then resume the run"
            ) from problem
        for old in self.list()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        self.on_save()
        return path

    def list(self) -> list[Path]:
        """List complete checkpoints, the oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if (path / STATE_FILE).is_file())

    def restore(self, weights: Weights, *, say: Callable[[str], None]) -> Counters | None:
        """Load the newest intact checkpoint into `weights`; None if there are no checkpoints.

        `say` receives a message about each damaged one that is skipped; raises RunFolderError if every one is damaged.
        """
        paths = sorted((path for path in self.folder.glob("step-*") if path.is_dir()), reverse=True)
        for path in paths:
            reason = _damage(path)
            if reason is None:
                try:
                    counters = Counters.from_json(read_json(path / STATE_FILE)["progress"])
                    weights.read(path)
                except Exception as error:  # on a changed file the readers may raise anything
                    reason = readable(error)
                else:
                    return counters
            say(f"checkpoint {path.name} is damaged ({reason}); trying the one before")
        if paths:
            raise RunFolderError(f"{self.folder}: every checkpoint is damaged; start a new run")
        return None


def _damage(path: Path) -> str | None:
    if not (path / STATE_FILE).is_file():
        return f"{STATE_FILE} is not there"
    try:
        wanted = read_json(path / STATE_FILE)["sha256"]
        for name, digest in wanted.items():
            if _digest(path / name) != digest:
                return f"{name} changed since it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
