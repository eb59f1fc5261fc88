"""Optimisers and schedules of timm, as configured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from timm.models import model_parameters
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.optim import param_groups_layer_decay as groups_by_layer
from timm.optim import param_groups_weight_decay as groups_by_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import nn
from torch.optim import Optimizer

from hard_ray.config.optim import ClipMode, OptimConfig, ParamGroup
from hard_ray.distillation.fused import fused_argument
from hard_ray.errors import ModelError, readable, suggestion
from hard_ray.networks.network import Network

Group = dict[str, Any]
"""A parameter group of torch: `params`, and the settings that are theirs alone."""


def build_optimizer(network: nn.Module, optim: OptimConfig, *, block: str = "optim") -> Optimizer:
    """Build timm's optimiser of the student.

    Parameters of layers that `layer_decay_no_opt_scale` leaves out need no gradient from then on.

    Raises:
        ModelError: timm has no such optimiser, it takes other arguments, or groups do not fit the network; the message
            calls `optim` by `block`.
    """
    known = [str(name) for name in list_optimizers()]
    if optim.opt.lower() not in known:
        raise ModelError(f"{block}.opt {optim.opt!r} is no optimiser of timm; {suggestion(optim.opt, known, most=3)}")
    arguments = fused_argument(network, optim.opt) | _arguments(optim, block)
    groups = _with_rules(_timm_groups(network, optim, block), network, optim.param_groups, block)
    try:
        return create_optimizer_v2(groups, opt=optim.opt, lr=optim.lr, momentum=optim.momentum, **arguments)
    except Exception as error:  # each optimiser checks its arguments in its own way, and some need another package
        raise ModelError(
            f"{block}.opt {optim.opt} cannot be made with {arguments or 'no more arguments'} ({readable(error)}); want "
            f"arguments that it takes; correct {block}.opt_kwargs, or name another {block}.opt"
        ) from error


def _arguments(optim: OptimConfig, block: str) -> dict[str, Any]:
    """Arguments of the optimiser's own; timm would leave out those of other optimisers without a word."""
    info = get_optimizer_info(optim.opt)
    if optim.opt_betas is not None and not info.has_betas:
        raise ModelError(f"{block}.opt {optim.opt} has no betas; leave {block}.opt_betas out")
    if optim.opt_eps is not None and not info.has_eps:
        raise ModelError(f"{block}.opt {optim.opt} has no eps; leave {block}.opt_eps out")
    betas = {} if optim.opt_betas is None else {"betas": optim.opt_betas}
    eps = {} if optim.opt_eps is None else {"eps": optim.opt_eps}
    return {**betas, **eps, **optim.opt_kwargs}


def _timm_groups(network: nn.Module, optim: OptimConfig, block: str) -> list[Group]:
    """Timm's groups by weight decay and layer; the names that it goes by are those of its own model."""
    model = _model_of(network)
    named: set[str] = getattr(model, "no_weight_decay", set)() if optim.excluded == "model" else set()
    by_shape = optim.excluded != "nothing"
    groups: list[Group]
    if optim.layer_decay is None:
        groups = groups_by_decay(
            model, optim.weight_decay, weight_decay_exclude_1d=by_shape, no_weight_decay_list=named
        )
        return groups
    groups = groups_by_layer(
        model,
        weight_decay=optim.weight_decay,
        no_weight_decay_list=named,
        weight_decay_exclude_1d=by_shape,
        layer_decay=optim.layer_decay,
        min_scale=optim.layer_decay_min_scale,
        no_opt_scale=optim.layer_decay_no_opt_scale,
    )
    if optim.layer_decay < 1.0 and len({group["lr_scale"] for group in groups}) == 1:
        raise ModelError(
            f"{block}.layer_decay {optim.layer_decay:g} has no effect on {type(model).__name__}, whose layers timm "
            f"cannot tell apart; leave it out, or give {block}.param_groups"
        )
    return groups


def _model_of(network: nn.Module) -> nn.Module:
    return network.model if isinstance(network, Network) else network


def _with_rules(groups: list[Group], network: nn.Module, rules: Iterable[ParamGroup], block: str) -> list[Group]:
    """The groups, with the parameters that rules match in groups of their own."""
    names = {id(parameter): name for name, parameter in _model_of(network).named_parameters()}
    for rule in rules:
        parts = [_split(group, rule, names) for group in groups if "rule" not in group]
        found = [matched for matched, _ in parts if matched["params"]]
        if not found:
            raise ModelError(
                f"{block}.param_groups: no parameter that is trained and in no earlier group matches {rule.match!r}; "
                f"names are such as {next(iter(names.values()), 'none')!r}"
            )
        ruled = [group for group in groups if "rule" in group]
        groups = [*(rest for _, rest in parts if rest["params"]), *ruled, *found]
    return [{key: value for key, value in group.items() if key != "rule"} for group in groups]


def _split(group: Group, rule: ParamGroup, names: dict[int, str]) -> tuple[Group, Group]:
    """The parameters of a group that a rule matches, as a group with the rule's settings, and the others."""
    matched = [parameter for parameter in group["params"] if fnmatch(names[id(parameter)], rule.match)]
    kept = {id(parameter) for parameter in matched}
    settings: Group = {"rule": rule.match}
    if rule.weight_decay is not None:
        settings["weight_decay"] = rule.weight_decay
    if rule.lr_scale != 1.0:
        settings["lr_scale"] = group.get("lr_scale", 1.0) * rule.lr_scale
    others = [parameter for parameter in group["params"] if id(parameter) not in kept]
    return {**group, **settings, "params": matched}, {**group, "params": others}


def largest_rate(optimizer: Optimizer) -> float:
    """The learning rate that is logged: the largest of all groups."""
    return max(float(group["lr"]) for group in optimizer.param_groups)


@dataclass(frozen=True, slots=True)
class Clipping:
    """A limit of the gradient."""

    limit: float
    mode: ClipMode = "norm"

    @classmethod
    def of(cls, optim: OptimConfig) -> Clipping | None:
        """As configured; None: no clipping."""
        return None if optim.clip_grad is None else cls(optim.clip_grad, optim.clip_mode)

    def __call__(self, network: nn.Module) -> None:
        """Clip the gradients of a network in place; `agc` leaves the last layer out, as timm's training does."""
        parameters = model_parameters(network, exclude_head=self.mode == "agc")
        dispatch_clip_grad(parameters, self.limit, mode=self.mode)


def build_average(network: nn.Module, optim: OptimConfig) -> ModelEmaV3 | None:
    """Build the moving average of the weights; None: there is none."""
    if not optim.model_ema:
        return None
    return ModelEmaV3(
        network,
        decay=optim.model_ema_decay,
        use_warmup=optim.model_ema_warmup,
        warmup_gamma=optim.model_ema_warmup_gamma,
        warmup_power=optim.model_ema_warmup_power,
    )


def build_scheduler(optimizer: Optimizer, optim: OptimConfig, *, total: int, per_epoch: int) -> Scheduler | None:
    """Build timm's schedule over `total` updates; its lengths, configured in epochs, are counted in updates."""
    scale = per_epoch * optim.stretch
    warmup = round(optim.warmup_epochs * scale)
    scheduler: Scheduler | None
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=optim.sched,
        num_epochs=first_cycle(optim, total - warmup if optim.warmup_prefix else total),
        decay_epochs=max(1, round(optim.decay_epochs * scale)),
        decay_milestones=[round(epoch * scale) for epoch in optim.decay_milestones],
        decay_rate=optim.decay_rate,
        min_lr=optim.min_lr,
        warmup_lr=optim.warmup_lr,
        warmup_epochs=warmup,
        warmup_prefix=optim.warmup_prefix,
        cycle_mul=optim.lr_cycle_mul,
        cycle_decay=optim.lr_cycle_decay,
        cycle_limit=optim.lr_cycle_limit,
        k_decay=optim.lr_k_decay,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler


def first_cycle(optim: OptimConfig, updates: int) -> int:
    """Updates of the first cycle, so that all cycles together take `updates`, or a little more."""
    lengths = sum(optim.lr_cycle_mul**cycle for cycle in range(optim.lr_cycle_limit))
    return max(1, math.ceil(updates / lengths))
