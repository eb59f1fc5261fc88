"""Optimisers that update all weights by one kernel."""

from __future__ import annotations

import inspect
from typing import Any

from timm.optim import get_optimizer_info
from torch import nn


def fused_argument(network: nn.Module, opt: str) -> dict[str, Any]:
    """`fused=True` for a network on a GPU, where timm builds the optimiser from a class that takes it; else nothing."""
    on_gpu = all(parameter.is_cuda for parameter in network.parameters())
    return {"fused": True} if on_gpu and has_fused(opt) else {}


def has_fused(opt: str) -> bool:
    """Whether timm builds this optimiser from a class of torch that has a fused kernel."""
    if "_" in opt:  # an optimiser around another one
        return False
    kind = get_optimizer_info(opt.lower()).opt_class
    return not isinstance(kind, str) and "fused" in inspect.signature(kind).parameters
