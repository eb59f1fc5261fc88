"""The configuration of a run, and the rules between its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field, ValidationInfo, model_validator

from hard_ray.config.augmentor import (
    AdversarialAugmentor,
    AffineAugmentor,
    AugmentorConfig,
    GeneratedAugmentor,
    IdentityAugmentor,
    PickAugmentor,
    by_prior,
    has_prior,
    is_learned,
    parts_of,
)
from hard_ray.config.base import Config, Seed
from hard_ray.config.controller import ControllerConfig, ThresholdsController
from hard_ray.config.data import DataConfig, DigitsData, has_labels, why_unlabelled
from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.config.objective import (
    CrossEntropyObjective,
    DadObjective,
    DkdObjective,
    EmbeddingObjective,
    HardObjective,
    KdObjective,
    ObjectiveConfig,
)
from hard_ray.config.optim import OptimConfig
from hard_ray.config.records import CheckpointsConfig, ExperimentConfig, TrackingConfig
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.config.validation import ValidationConfig
from hard_ray.errors import ConfigError

TRAINS = "trains"
"""Key of the context of a validation: whether a student is trained. If not, it needs no labels."""


class RunConfig(Config):
    """One distillation."""

    data: DataConfig = DigitsData()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    objective: ObjectiveConfig = HardObjective()
    augmentor: AugmentorConfig = AffineAugmentor()
    controller: ControllerConfig = ThresholdsController()
    optim: OptimConfig = OptimConfig(epochs=30)
    runtime: RuntimeConfig = RuntimeConfig()
    validation: ValidationConfig = Field(default=ValidationConfig(), alias="validate")
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    tracking: TrackingConfig = TrackingConfig()
    experiment: ExperimentConfig = ExperimentConfig()
    seed: Seed = 0
    """Seed of the initial weights, the order of images, their views and augmentation."""

    @model_validator(mode="after")
    def _blocks_agree(self, info: ValidationInfo) -> RunConfig:
        trains = (info.context or {}).get(TRAINS, True)
        problems = [
            *self._batch_problems(),
            *self._objective_problems(),
            *self._view_problems(),
            *self._channel_problems(),
            *(self._label_problems() if trains else ()),
            *self._frozen_problems(),
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _batch_problems(self) -> list[str]:
        workers = self.runtime.num_workers
        sizes = {"optim.batch_size": self.optim.batch_size}
        if not self.teacher.has_weights:
            sizes["teacher.recipe.batch_size"] = self.teacher.recipe.batch_size
        problems = [
            f"{key} {size} cannot be divided among runtime.num_workers {workers}; use a multiple of {workers}"
            for key, size in sizes.items()
            if size % workers
        ]
        if self.data.mix is not None:
            problems += [
                f"data.mix mixes images of one worker's batch, but {key} {size} leaves runtime.num_workers {workers} "
                f"one image each; use at least {2 * workers}, or data.mix=null"
                for key, size in sizes.items()
                if size == workers
            ]
        return [*problems, *self._accumulation_problems(sizes)]

    def _accumulation_problems(self, sizes: Mapping[str, int]) -> list[str]:
        """Batches of so many images that a worker cannot divide into as many parts as `accumulate` says."""
        parts = {"optim.batch_size": self.optim.accumulate}
        parts["teacher.recipe.batch_size"] = self.teacher.recipe.accumulate
        workers = self.runtime.num_workers
        return [
            f"{key} {size} is {size // workers} images for each worker, which cannot be divided into "
            f"{key.replace('batch_size', 'accumulate')} {parts[key]} parts; use fewer parts or a larger batch"
            for key, size in sizes.items()
            if size // workers < parts[key]
        ]

    def _objective_problems(self) -> list[str]:
        if self.objective.kind == "cross_entropy" and self.augmentor.kind != "identity":
            return [
                f"augmentor.kind {self.augmentor.kind} needs the teacher's answer on augmented images, "
                "but objective.kind cross_entropy asks no teacher; use augmentor.kind=identity"
            ]
        if is_learned(self.augmentor) and self.objective.kind not in ("hard", "embedding"):
            return [
                f"augmentor.kind {self.augmentor.kind} is learned, and only objective.kind hard and embedding train an "
                f"augmentor; got objective.kind {self.objective.kind}"
            ]
        return [
            *self._hard_problems(),
            *self._dad_problems(),
            *self._generated_problems(),
            *self._embedding_problems(),
        ]

    def _hard_problems(self) -> list[str]:
        objective, controller = self.objective, self.controller
        if not (isinstance(objective, HardObjective) and isinstance(controller, ThresholdsController)):
            return []
        learns_clean = objective.w_clean > 0 or objective.w_ce > 0
        if is_learned(self.augmentor) and controller.thresholds == "relative" and not learns_clean:
            return [
                "objective.w_clean 0 and objective.w_ce 0 leave clean images out, whose KD loss "
                "controller.thresholds=relative compares with; use controller.thresholds=absolute or "
                "controller.policy=fixed"
            ]
        return []

    def _dad_problems(self) -> list[str]:
        if isinstance(self.objective, DadObjective) and self.augmentor.kind == "identity":
            return [
                "objective.kind dad learns from a second view; give augmentor.kind=generated with augmentor.path, "
                "or augmentor.kind=adversarial"
            ]
        is_joined = isinstance(self.augmentor, GeneratedAugmentor) and self.augmentor.join is not None
        wants_joined = isinstance(self.objective, DadObjective) and self.objective.weighting == "released"
        if is_joined != wants_joined:
            return [
                "objective.weighting=released of objective.kind=dad and augmentor.join of augmentor.kind=generated "
                "belong together: clean and generated images are one mixed batch; give both or neither"
            ]
        return []

    def _frozen_problems(self) -> list[str]:
        teacher = self.teacher
        if teacher.recipe.freeze is None or teacher.has_weights:
            return []
        return [
            f"teacher.recipe.freeze {teacher.recipe.freeze} keeps the weights of all layers below the class head, and "
            f"teacher.model {teacher.model} has none; give teacher.checkpoint or teacher.pretrained, or leave it out"
        ]

    def _label_problems(self) -> list[str]:
        """What needs labels that the images, or some of them, do not have."""
        if has_labels(self.data):
            return self._unlabelled_problems()
        why = why_unlabelled(self.data)
        problems = [f"{why}, so that images have no labels, and {text}" for text in self._needs_labels()]
        if not self.teacher.has_weights:
            problems.append(
                f"{why}, so that no teacher can be trained on the images, and teacher.model {self.teacher.model} has "
                "no weights; give teacher.checkpoint, or a head for a tower by `hardray fit-head --kind prototypes`"
            )
        return problems

    def _needs_labels(self) -> Iterator[str]:
        match self.objective:
            case HardObjective(w_ce=weight) if weight > 0:
                yield f"objective.w_ce {weight:g} weighs a cross-entropy to them; use objective.w_ce=0"
            case KdObjective(alpha=alpha) if alpha < 1:
                yield f"objective.alpha {alpha:g} leaves a cross-entropy to them; use objective.alpha=1"
            case DadObjective(weighting="released"):
                yield "objective.weighting=released learns them; use objective.weighting=paper"
            case DkdObjective() | CrossEntropyObjective() as objective:
                yield (
                    f"objective.kind {objective.kind} needs them; use objective.kind=hard, or objective.kind=kd with "
                    "objective.alpha=1"
                )
            case _:
                pass
        if "labels_only" in self.experiment.controls:
            yield "experiment.controls names labels_only, which learns from labels alone; leave it out"

    def _unlabelled_problems(self) -> list[str]:
        if self.data.unlabelled is None:
            return []
        if isinstance(self.objective, DkdObjective | CrossEntropyObjective):
            return [
                f"data.unlabelled has no labels, and objective.kind {self.objective.kind} needs one for each image; "
                "use objective.kind=kd or hard, or data.unlabelled=null"
            ]
        if isinstance(self.objective, DadObjective) and self.objective.weighting == "released":
            return [
                "data.unlabelled has no labels, and objective.weighting=released learns labels of mixed images; use "
                "objective.weighting=paper, or data.unlabelled=null"
            ]
        return []

    def _embedding_problems(self) -> list[str]:
        """What an embedding cannot do without classes, and weights that leave nothing to learn from."""
        objective, controller = self.objective, self.controller
        if not isinstance(objective, EmbeddingObjective):
            return []
        needs = {
            "augmentor.kind=pick, whose scores compare classes": isinstance(self.augmentor, PickAugmentor),
            "augmentor.kind=adversarial, which attacks the answer of a class": any(
                isinstance(part, AdversarialAugmentor) for part in parts_of(self.augmentor)
            ),
            "the suite adversarial, which attacks the answer of a class": "adversarial" in self.validation.at_the_end,
            "teacher.class_map, which names the outputs of a class head": self.teacher.class_map is not None,
            "student.new_head, which is a class head": self.student.new_head,
            "the control labels_only, which learns classes": "labels_only" in self.experiment.controls,
        }
        problems = [
            f"objective.kind embedding has no classes, got {what}; leave it out, or give the teacher a class head with "
            "`hardray fit-head --kind prototypes` and use objective.kind=hard"
            for what, is_there in needs.items()
            if is_there
        ]
        problems += [
            f"{key} compiles a network's embedding alone, and objective.w_tokens {objective.w_tokens:g} asks for its "
            f"tokens beside it; use {key}=false, or objective.w_tokens=0"
            for key, compiles in (
                ("runtime.compile", self.runtime.compile),
                ("runtime.teacher.compile", self.runtime.teacher.compile),
            )
            if compiles and objective.w_tokens > 0
        ]
        if objective.w_clean == 0 and (self.augmentor.kind == "identity" or objective.w_aug == 0):
            problems.append(
                "objective.w_clean 0 leaves no view to learn from; give a weight above 0 to one that there is"
            )
        elif (
            objective.w_clean == 0
            and is_learned(self.augmentor)
            and isinstance(controller, ThresholdsController)
            and controller.thresholds == "relative"
        ):
            problems.append(
                "objective.w_clean 0 leaves clean images out, whose distance controller.thresholds=relative compares "
                "with; use controller.thresholds=absolute or controller.policy=fixed"
            )
        return problems

    def _generated_problems(self) -> list[str]:
        parts = [part for part in parts_of(self.augmentor) if isinstance(part, GeneratedAugmentor)]
        if len(parts) > 1:
            return [f"augmentor takes images from {len(parts)} generated sets; one is what a run can have"]
        if parts and parts[0].join is not None and self.augmentor is not parts[0]:
            return ["augmentor.join makes one batch of two, so that nothing can follow; use join outside of sequences"]
        if parts and parts[0].join is not None and self.data.mix is not None:
            return [
                f"augmentor.join={parts[0].join} mixes clean and generated images in one batch, and data.mix would mix "
                "them before; use data.mix=null, or no augmentor.join"
            ]
        return []

    def _view_problems(self) -> list[str]:
        splits = 0 if self.data.augment is None else self.data.augment.splits
        key, weight = next(((key, weight) for key, weight in _jsd_weights(self).items() if weight > 0), ("", 0.0))
        if key and not splits:
            return [
                f"{key} {weight:g} compares a network's answers on several views of an image, and there is one; give "
                f"data.augment.splits=3 and data.augment.auto_augment=augmix-m3-w3, or {key}=0"
            ]
        if splits and not key:
            return [
                f"data.augment.splits {splits} makes views that nothing compares; give objective.jsd=12 with "
                "objective.kind=cross_entropy, teacher.recipe.jsd=12 for the teacher's training, or experiment.jsd=12 "
                "for the control labels_only, or use data.augment.splits=0"
            ]
        if key and self.data.mix is not None:
            return [
                f"{key} {weight:g} compares views of one image, which data.mix would mix with others; use "
                f"{key}=0 and data.augment.splits=0, or data.mix=null"
            ]
        return []

    def _channel_problems(self) -> list[str]:
        problems = []
        for role, network in (("teacher", self.teacher), ("student", self.student)):
            for key in ("mean", "std"):
                values = getattr(network, key)
                if values is not None and len(values) not in (1, self.data.in_chans):
                    problems.append(
                        f"{role}.{key} has {len(values)} values for {self.data.in_chans} channels; "
                        f"give 1 or {self.data.in_chans}"
                    )
        return problems


def _jsd_weights(config: RunConfig) -> dict[str, float]:
    """The weights of the Jensen-Shannon term in the run's trainings, by their keys."""
    own = config.objective.jsd if isinstance(config.objective, CrossEntropyObjective) else 0.0
    return {
        "objective.jsd": own,
        "teacher.recipe.jsd": config.teacher.recipe.jsd,
        "experiment.jsd": config.experiment.jsd,
    }


def training_data(config: RunConfig) -> DataConfig:
    """The data of the training itself: with several views of an image only where its objective compares them."""
    return config.data if _jsd_weights(config)["objective.jsd"] > 0 else _with_one_view(config.data)


def fitting_data(config: RunConfig, objective: ObjectiveConfig) -> DataConfig:
    """The data for another training of a run: without what it has no use for.

    That are several views, if it leaves no block that compares them, and images without labels, if it learns labels.
    """
    other, data = config.model_copy(update={"objective": objective}), config.data
    if isinstance(objective, CrossEntropyObjective):  # which learns nothing from them
        data = data.model_copy(update={"unlabelled": None})
    return data if any(_jsd_weights(other).values()) else _with_one_view(data)


def _with_one_view(data: DataConfig) -> DataConfig:
    if data.augment is None or not data.augment.splits:
        return data
    return data.model_copy(update={"augment": data.augment.model_copy(update={"splits": 0})})


def as_control(config: RunConfig, control: str) -> RunConfig:
    """The same run with labels only, plain KD, or KD on random transforms; no augmentor is learned.

    The controls of an embedding learn the embedding, too.
    """
    temperature = getattr(config.objective, "temperature", 4.0)
    weights = {} if has_labels(config.data) else {"alpha": 1.0}
    plain = KdObjective(temperature=temperature, **weights)
    # one teacher answers all trainings of a run, with tokens or without
    embedding = EmbeddingObjective(w_tokens=getattr(config.objective, "w_tokens", 0.0))
    with_teacher = embedding if embeds(config) else plain
    objective = CrossEntropyObjective(jsd=config.experiment.jsd) if control == "labels_only" else with_teacher
    return config.model_copy(
        update={
            "data": fitting_data(config, objective),
            "objective": objective,
            "augmentor": _random(config) if control == "random" else IdentityAugmentor(),
            "experiment": config.experiment.model_copy(update={"controls": (), "name": control}),
        }
    )


def embeds(config: RunConfig) -> bool:
    """Whether the run teaches the teacher's embedding, so that neither network answers with classes."""
    return isinstance(config.objective, EmbeddingObjective)


def asks_tokens(config: RunConfig) -> bool:
    """Whether the teacher answers with its tokens beside its embedding."""
    return isinstance(config.objective, EmbeddingObjective) and config.objective.w_tokens > 0


def refuse_embedding(config: RunConfig, why: str) -> None:
    """Raise a ConfigError if the networks have no classes; `why` says which classes a command needs."""
    if embeds(config):
        raise ConfigError(
            [
                f"objective.kind: embedding has no classes, and {why}; use objective.kind=hard, with a teacher that "
                "`hardray fit-head --kind prototypes` gave a head if it has none"
            ],
            "the configuration",
        )


def _random(config: RunConfig) -> AugmentorConfig:
    """The second view of the control `random`."""
    return by_prior(config.augmentor) if has_prior(config.augmentor) else config.experiment.random


def without_extras(config: RunConfig) -> RunConfig:
    """The configuration without what trials leave out: controls, and suites that are measured only at the end."""
    return config.model_copy(
        update={
            "experiment": config.experiment.model_copy(update={"controls": ()}),
            "validation": config.validation.model_copy(update={"final": ()}),
        }
    )


def asks_teacher(config: RunConfig) -> bool:
    """Whether any training of the run needs a teacher."""
    return config.objective.kind != "cross_entropy" or any(
        control != "labels_only" for control in config.experiment.controls
    )
