"""Optimisers and schedules of timm, as configured."""

from __future__ import annotations

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from hard_ray.config.optim import OptimConfig
from hard_ray.errors import ModelError, suggestion


def build_optimizer(network: nn.Module, optim: OptimConfig, *, block: str = "optim") -> Optimizer:
    """Build timm's optimiser of the student; ModelError, which calls `optim` by `block`: timm has none of that name."""
    known = [str(name) for name in list_optimizers()]
    if optim.opt.lower() not in known:
        raise ModelError(f"{block}.opt {optim.opt!r} is no optimiser of timm; {suggestion(optim.opt, known, most=3)}")
    return create_optimizer_v2(
        network, opt=optim.opt, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.momentum
    )


def build_scheduler(optimizer: Optimizer, optim: OptimConfig, *, total: int, per_epoch: int) -> Scheduler | None:
    """Build timm's schedule over `total` updates; its lengths, configured in epochs, are counted in updates."""
    scale = per_epoch * optim.stretch
    scheduler: Scheduler | None
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=optim.sched,
        num_epochs=total,
        decay_epochs=max(1, round(optim.decay_epochs * scale)),
        decay_milestones=[round(epoch * scale) for epoch in optim.decay_milestones],
        decay_rate=optim.decay_rate,
        min_lr=optim.min_lr,
        warmup_lr=optim.warmup_lr,
        warmup_epochs=round(optim.warmup_epochs * scale),
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler
