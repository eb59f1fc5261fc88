"""The target of an evaluation: the student of a run, or any other model, and the configuration to measure it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hard_ray.config.labelled import labelled_layer, name_of
from hard_ray.config.loader import load_config, validate
from hard_ray.config.networks import NetworkConfig, StudentConfig
from hard_ray.config.run import RunConfig, embeds, refuse_embedding
from hard_ray.errors import RunFolderError
from hard_ray.export.named_model import find_model, no_classes
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

    labelled: str | None = None
    """KIND=PATH of labelled images that take the place of the run's own."""

    @property
    def default_output(self) -> Path:
        """The folder of the results unless the user names one."""
        if self.run is not None:
            beside = self.run.later_evaluation
            return beside if self.labelled is None else beside.with_name(f"{beside.name}-{name_of(self.labelled)}")
        name = (self.model.checkpoint or Path(self.model.model.replace(":", "-").replace("/", "-"))).name
        return Path("runs") / f"evaluation-{name}"


def target_of(
    model: str,
    config: RunConfig | None,
    overrides: Sequence[str] = (),
    *,
    best: bool = False,
    labelled: str | None = None,
) -> Target:
    """The model that a user names, and `config` or the run's own with overrides; HardrayError: there is none.

    `labelled`, as KIND=PATH, takes the place of the run's own data; their evaluation view stays.
    """
    found = find_model(model, best=best)
    run = found.run
    if run is None:
        if config is None:
            raise RunFolderError(
                f"{model} is no run folder (it has no config.yaml), so say what it is measured on: "
                "give --data, --preset or -c"
            )
        refuse_embedding(config, "an evaluation measures classes")
        return Target(config, StudentConfig(model=found.source, pretrained=":" not in found.source))
    measured = config or load_config([run.config], overrides=overrides)
    if labelled is not None:
        layers = [measured.model_dump(mode="json"), labelled_layer(labelled, measured.data)]
        measured = validate(layers, source=f"--labelled {labelled}")
    own = load_config([run.config])  # the input size is always that of training, whatever data it is measured on
    if embeds(own):
        raise no_classes(f"the student of {run.path}", found.source)
    refuse_embedding(measured, "an evaluation measures classes")
    student = StudentConfig(model=found.source, img_size=own.student.img_size)
    return Target(measured, student, run, not best and measured.data == own.data, labelled)
