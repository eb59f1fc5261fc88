"""The target of an evaluation: the student of a run, or any other model, and the configuration to measure it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hard_ray.config.loader import load_config
from hard_ray.config.networks import NetworkConfig, StudentConfig
from hard_ray.config.run import RunConfig
from hard_ray.errors import RunFolderError
from hard_ray.export.named_model import find_model
from hard_ray.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Target:
    """The model that is measured, and the configuration."""

    config: RunConfig
    """Gives `data`, `teacher` and `runtime`."""
    model: NetworkConfig
    run: RunFolder | None = None
    """The run that trained the model; None: it is from no run."""
    is_outcome: bool = False
    """Whether it is the run's finished student on the run's own data, so that its numbers are the run's."""

    @property
    def default_output(self) -> Path:
        """The folder of the results unless the user names one."""
        if self.run is not None:
            return self.run.later_evaluation
        name = (self.model.checkpoint or Path(self.model.model.replace(":", "-").replace("/", "-"))).name
        return Path("runs") / f"evaluation-{name}"


def target_of(model: str, config: RunConfig | None, overrides: Sequence[str] = (), *, best: bool = False) -> Target:
    """The model that a user names, and `config` or the run's own with overrides; HardrayError: there is none."""
    found = find_model(model, best=best)
    run = found.run
    if run is None:
        if config is None:
            raise RunFolderError(
                f"{model} is no run folder (it has no config.yaml), so say what it is measured on: "
                "give --data, --preset or -c"
            )
        return Target(config, StudentConfig(model=found.source, pretrained=":" not in found.source))
    measured = config or load_config([run.config], overrides=overrides)
    own = load_config([run.config])  # the input size is always that of training, whatever data it is measured on
    student = StudentConfig(model=found.source, img_size=own.student.img_size)
    return Target(measured, student, run, is_outcome=not best and measured.data == own.data)
