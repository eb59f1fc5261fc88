"""Optimisers and schedules of timm, by timm's names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from hard_ray.config.base import Config, Epochs, Fraction

ClipMode = Literal["norm", "value", "agc"]

CYCLIC = ("cosine", "tanh", "poly")
"""Schedules of which timm makes cycles."""


class ParamGroup(Config):
    """Parameters, chosen by their names, with a learning rate or a weight decay of their own."""

    match: Annotated[str, Field(min_length=1)]
    """Pattern of the names, which are those of the timm model: `head.*`, `blocks.*.attn.qkv.weight`."""
    lr_scale: PositiveFloat = 1.0
    """Factor of the learning rate; it comes on top of `layer_decay`."""
    weight_decay: NonNegativeFloat | None = None
    """Weight decay of each of them, biases and norms as well; unset: as without this group."""


class OptimConfig(Config):
    """The student's optimiser, schedule and batch size."""

    opt: str = "sgd"
    """Name of a timm optimiser: sgd, adamw, lamb, ..."""
    lr: PositiveFloat = 0.05
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 5e-4
    """Weight decay; `weight_decay_exclude` says where it is not applied."""
    weight_decay_exclude: Literal["shape", "model", "nothing"] | None = None
    """Parameters without weight decay: `shape`: biases and norms; `model`: as timm, also those that the network names,
    such as position embeddings and class tokens; unset: `model` with `layer_decay`, else `shape`."""
    momentum: Fraction = 0.9
    """Momentum, if the optimiser has one."""
    opt_betas: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=3)] | None = None
    """Decays of the averages that an optimiser like adamw keeps; unset: the optimiser's own."""
    opt_eps: PositiveFloat | None = None
    """Added to the denominator by an optimiser like adamw; unset: the optimiser's own."""
    opt_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments of the optimiser, as timm's --opt-kwargs."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Factor of the learning rate from each layer to the one below it, as timm groups them; unset: equal rates."""
    layer_decay_min_scale: Fraction = 0.0
    """Least factor that `layer_decay` leaves to a layer."""
    layer_decay_no_opt_scale: Fraction | None = None
    """Layers to which `layer_decay` leaves a smaller factor are not trained; unset: all are."""
    param_groups: tuple[ParamGroup, ...] = ()
    """Groups of parameters with rates of their own; a parameter belongs to the first that matches its name."""
    sched: Literal["cosine", "tanh", "poly", "step", "multistep", "constant", "none"] = "cosine"
    """Name of a timm schedule; it steps after every update."""
    epochs: Epochs | None = None
    """Length of the training in epochs of student updates; give this or `steps`."""
    steps: PositiveInt | None = None
    """Length of the training in student updates; give this or `epochs`."""
    stretch: PositiveFloat = 1.0
    """Common factor of the length, the warm-up and every milestone."""
    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs of linear warm-up."""
    warmup_lr: PositiveFloat = 1e-5
    """Learning rate at the start of the warm-up."""
    warmup_prefix: bool = False
    """Start the schedule after the warm-up rather than beneath it; the length of the training holds both."""
    min_lr: NonNegativeFloat = 0.0
    """Learning rate at the end of `cosine`, `tanh` and `poly`."""
    lr_cycle_limit: PositiveInt = 1
    """Cycles of `cosine`, `tanh` and `poly`, each from a peak to `min_lr`. Together they take the whole training:
    timm's flag repeats the training instead."""
    lr_cycle_mul: Annotated[float, Field(ge=1.0)] = 1.0
    """Length of each cycle over that of the one before."""
    lr_cycle_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Peak learning rate of each cycle over that of the one before."""
    lr_k_decay: PositiveFloat = 1.0
    """Power of the time in `cosine` and `poly` (k-decay, arXiv 2004.05909)."""
    decay_epochs: PositiveFloat = 90.0
    """Epochs between decays of `step`."""
    decay_milestones: tuple[PositiveFloat, ...] = (150, 180, 210)
    """Epochs at which `multistep` decays."""
    decay_rate: PositiveFloat = 0.1
    """Factor of each decay of `step` and `multistep`; the power of `poly`, as in timm."""
    batch_size: PositiveInt = 64
    """Images per update, summed over all workers."""
    accumulate: PositiveInt = 1
    """Parts into which each worker divides its batch, one after the other: the update is that of the whole batch, with
    the memory of a part. BatchNorm sees the parts."""
    clip_grad: PositiveFloat | None = None
    """Limit of the gradient; unset: no clipping."""
    clip_mode: ClipMode = "norm"
    """`norm`: `clip_grad` limits the norm of the whole gradient; `value`: each of its numbers; `agc`: the norm of each
    unit's gradient over that of its weights, but for the class head (arXiv 2102.06171)."""
    smoothing: Fraction = 0.0
    """Label smoothing of the cross-entropy terms."""
    model_ema: bool = False
    """Keep a moving average of the weights, and evaluate and export it."""
    model_ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9998
    """Decay of the moving average, per update."""
    model_ema_warmup: bool = False
    """Start the moving average with a smaller decay, which grows to `model_ema_decay`: after n updates it is
    1 - (1 + n / gamma) ** -power."""
    model_ema_warmup_gamma: PositiveFloat = 1.0
    """`gamma` of `model_ema_warmup`."""
    model_ema_warmup_power: PositiveFloat = 2 / 3
    """`power` of `model_ema_warmup`; 3/4 suits trainings of fewer than a million updates."""

    @field_validator("sched", mode="before")
    @classmethod
    def _is_a_function_of_time(cls, sched: Any) -> Any:
        if sched == "plateau":
            raise ValueError(
                "plateau lowers the learning rate by the results of evaluations, so that the weights would depend on "
                "how often and on what a run evaluates; want a function of the update, with which a resume continues "
                "bit for bit; use multistep or cosine"
            )
        return sched

    @model_validator(mode="after")
    def _one_length(self) -> OptimConfig:
        if (self.epochs is None) == (self.steps is None):
            got = "neither" if self.epochs is None else f"epochs={self.epochs:g} and steps={self.steps}"
            raise ValueError(f"give exactly one of epochs and steps, got {got}; set the other to null")
        return self

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> OptimConfig:
        problems = [*self._rate_problems(), *self._cycle_problems()]
        if self.clip_mode != "norm" and self.clip_grad is None:
            problems.append(f"clip_mode {self.clip_mode} clips nothing without clip_grad; set clip_grad")
        if self.model_ema_warmup and not self.model_ema:
            problems.append("model_ema_warmup starts a moving average, but model_ema is false; set model_ema=true")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _rate_problems(self) -> list[str]:
        problems = []
        if self.layer_decay is None and (self.layer_decay_min_scale or self.layer_decay_no_opt_scale is not None):
            problems.append("layer_decay_min_scale and layer_decay_no_opt_scale need layer_decay; set it")
        scaled = self.layer_decay is not None or any(group.lr_scale != 1.0 for group in self.param_groups)
        if scaled and self.sched == "none":
            problems.append(
                "sched none leaves all learning rates equal, but layer_decay or param_groups scale them; use "
                "sched=constant"
            )
        return problems

    def _cycle_problems(self) -> list[str]:
        problems = []
        if self.lr_cycle_limit > 1 and self.sched not in CYCLIC:
            problems.append(f"sched {self.sched} has no cycles; leave lr_cycle_limit out, or use {', '.join(CYCLIC)}")
        if self.lr_cycle_mul != 1.0 and self.lr_cycle_limit == 1:
            problems.append(f"lr_cycle_mul {self.lr_cycle_mul:g} has no effect on one cycle; set lr_cycle_limit")
        if self.lr_k_decay != 1.0 and self.sched not in ("cosine", "poly"):
            problems.append(f"lr_k_decay has no effect on sched {self.sched}; use cosine or poly")
        return problems

    @property
    def excluded(self) -> Literal["shape", "model", "nothing"]:
        """What has no weight decay."""
        if self.weight_decay_exclude is not None:
            return self.weight_decay_exclude
        return "shape" if self.layer_decay is None else "model"

    def total_updates(self, updates_per_epoch: int) -> int:
        """Length of the training in student updates, for an epoch of `updates_per_epoch`."""
        length = self.steps if self.steps is not None else (self.epochs or 0.0) * updates_per_epoch
        return max(1, round(length * self.stretch))
