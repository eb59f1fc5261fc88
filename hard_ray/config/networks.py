"""Teacher and student networks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from hard_ray.config.base import Config, Fraction, Seed, Weight
from hard_ray.config.optim import OptimConfig
from hard_ray.config.places import DataPath, ModelName

Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]


class NetworkConfig(Config):
    """A timm model, its weights and its input."""

    model: ModelName
    """A timm model name, `local-dir:PATH` (or the URL of a folder after `local-dir:`) or `hf-hub:org/name`."""
    checkpoint: DataPath | None = None
    """Weights: a safetensors or torch file, or a folder in timm's layout; or the URL of one, such as
    `s3://bucket/runs/teacher/student`."""
    pretrained: bool = False
    """Start from timm's pretrained weights."""
    img_size: PositiveInt | None = None
    """Input size in pixels; unset: the size of the data, or of the architecture if that is fixed."""
    mean: Channels | None = None
    """Mean per channel, subtracted from images in [0, 1]; unset: the model's own."""
    std: Channels | None = None
    """Standard deviation per channel, which images are divided by; unset: the model's own."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments of timm's create_model, such as drop_path_rate."""


class TeacherRecipe(OptimConfig):
    """The training of a teacher without weights; the result is cached by the hash of the recipe."""

    opt: str = "adamw"
    lr: Annotated[float, Field(gt=0.0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    epochs: Annotated[float, Field(gt=0.0)] | None = 20.0
    smoothing: Fraction = 0.0
    jsd: Weight = 0.0
    """Weight of the Jensen-Shannon divergence between the teacher's answers on `data.augment.splits` views of an image,
    as `objective.jsd`; 0: no such term, and the teacher is trained on one view."""
    freeze: Literal["tower"] | None = None
    """`tower`: of a teacher with weights, train the class head alone; unset: train all of it."""
    seed: Seed = 0
    """Seed of the teacher's training, separate from the run's so that runs with other seeds share the teacher."""


class TeacherConfig(NetworkConfig):
    """The frozen network that the student learns from."""

    model: ModelName = "hardray_cnn"
    class_map: DataPath | None = None
    """Text file, or its URL, with the teacher's class names in the order of its outputs, one per line."""
    recipe: TeacherRecipe = TeacherRecipe()
    """How `distill` trains a teacher without weights, and `train-teacher` any."""

    @property
    def has_weights(self) -> bool:
        """Whether the configuration names weights, so that the teacher needs no training."""
        return self.checkpoint is not None or self.pretrained or ":" in self.model


class StudentConfig(NetworkConfig):
    """The network that is trained."""

    model: ModelName = "hardray_mlp"
    new_head: bool = False
    """Replace the class head of weights that were trained on other classes; otherwise such weights are refused."""
    grad_checkpointing: bool = False
    """Compute activations again in the backward pass rather than keep them: less memory for a third more time. A
    network for which timm does not offer this is refused."""
    freeze_bn: bool = False
    """Keep BatchNorm as it is in the initial weights: its averages and its weights do not change. A network without
    BatchNorm is refused."""
    freeze: Literal["tower"] | None = None
    """`tower`: train the class head alone; all other layers keep their weights and rest, as in evaluation. Unset: train
    all of it."""
