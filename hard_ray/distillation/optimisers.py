"""timm's optimisers and schedules as a configuration asks for them."""

from __future__ import annotations

from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn
from torch.optim import Optimizer

from hard_ray.config.optim import OptimConfig
from hard_ray.errors import ModelError, suggestion


def build_optimizer(network: nn.Module, optim: OptimConfig) -> Optimizer:
    """Timm's optimiser.

    Raises:
        ModelError: timm knows none of that name.
    """
    known = [str(name) for name in list_optimizers()]
    if optim.opt.lower() not in known:
        raise ModelError(f"optim.opt {optim.opt!r} is no optimiser of timm; {suggestion(optim.opt, known, most=3)}")
    return create_optimizer_v2(
        network, opt=optim.opt, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.momentum
    )
