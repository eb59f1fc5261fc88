"""Communication between the ranks of a run. With one rank, nothing is sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hard_ray.errors import AgreedError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank of this process among those that train one student together."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """The rank in torch.distributed's group; without a group, the only one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the run folder."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks; every rank gets the same bits."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, item: Item) -> list[Item]:
        """Every rank's item, in the order of ranks, on every rank."""
        if self.size == 1:
            return [item]
        items: list[Item | None] = [None] * self.size
        dist.all_gather_object(items, item)
        return [item for item in items if item is not None]

    def agree(self, error: Exception | None) -> None:
        """Raise an AgreedError on every rank if any rank has an error, with the first text; every rank calls this."""
        texts = [text for text in self.gather("" if error is None else str(error)) if text]
        if texts:
            raise AgreedError(texts[0]) from error

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over ranks, in one message."""
        if self.size == 1:
            return
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not grads:
            return
        flat = self.sum(torch.cat([grad.flatten() for grad in grads])) / self.size
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))
