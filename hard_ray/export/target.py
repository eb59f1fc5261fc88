"""What an evaluation measures: the student of a run, or any other model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hard_ray.config.loader import load_config
from hard_ray.config.networks import NetworkConfig, StudentConfig
from hard_ray.config.run import RunConfig
from hard_ray.errors import RunFolderError
from hard_ray.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured, and on what."""

    config: RunConfig
    """Gives `data`, `teacher` and `runtime`."""
    model: NetworkConfig
    run: RunFolder | None = None
    """The run that the model is from."""
    is_outcome: bool = False
    """Whether it is the run's finished student on the run's own data, so that its numbers are the run's."""

    @property
    def default_output(self) -> Path:
        """Where the results are put unless the user says otherwise."""
        if self.run is not None:
            return self.run.later_evaluation
        name = (self.model.checkpoint or Path(self.model.model.replace(":", "-").replace("/", "-"))).name
        return Path("runs") / f"evaluation-{name}"


def target_of(model: str, config: RunConfig | None, overrides: Sequence[str] = (), *, best: bool = False) -> Target:
    """What the user means by a model.

    Args:
        model: a run folder, a folder in timm's layout, or a timm model name.
        config: gives data, teacher and runtime; None: the run's own.
        overrides: over the run's own configuration.
        best: the run's best student on the validation split instead of its last.

    Raises:
        RunFolderError: the run has no such student, or the model is of no run and no configuration is given.
    """
    run = RunFolder(Path(model).expanduser().resolve())
    if run.config.is_file():
        return _target_of_run(run, config or load_config([run.config], overrides=overrides), best=best)
    if config is None or best:
        raise RunFolderError(
            f"{model} is no run folder (it has no config.yaml), so say what it is measured on: give --data, --preset "
            "or -c" + (", and no --best" if best else "")
        )
    path = Path(model).expanduser()
    if path.is_dir():
        return Target(config, StudentConfig(model=f"local-dir:{path.resolve()}"))
    if path.exists() or model.startswith((".", "/", "~")):
        raise RunFolderError(f"{model}: want a run folder, a folder in timm's layout, or a timm model name")
    return Target(config, StudentConfig(model=model, pretrained=":" not in model))


def _target_of_run(run: RunFolder, config: RunConfig, *, best: bool) -> Target:
    folder = run.best if best else run.student
    if not (folder / "config.json").is_file():
        raise RunFolderError(
            f"{run.path} has no {'best' if best else 'finished'} student; finish the run with "
            f"`hardray distill --resume {run.path}`"
            + ("" if best or not run.best.is_dir() else ", or measure its best one so far with --best")
        )
    own = load_config([run.config])  # whatever it is measured on, its input is that of its training
    model = StudentConfig(model=f"local-dir:{folder}", img_size=own.student.img_size)
    return Target(config, model, run, is_outcome=not best and config.data == own.data)
