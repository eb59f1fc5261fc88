"""How networks compute: device, autocast type, memory layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Precision:
    """Where and in what a network computes."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def autocast(self) -> torch.autocast:
        """Mixed precision where `dtype` asks for it."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def widen(logits: Tensor) -> Tensor:
    """Logits in float32 at least: losses are computed in it whatever the network computed in."""
    return logits if logits.dtype == torch.float64 else logits.float()
