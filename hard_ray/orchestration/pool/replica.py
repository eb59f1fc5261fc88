"""A replica of the teacher pool: one frozen teacher in one actor."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hard_ray.distillation.messages import ContextArrays, GradientAnswer, Reply
from hard_ray.distillation.objectives import TeacherObjective
from hard_ray.distillation.teacher import FrozenNetwork, TeacherSpec
from hard_ray.networks.precision import Images
from hard_ray.orchestration.cluster.processes import give_way
from hard_ray.orchestration.pool.sharing import Handle, Place, opened, own_place


class Replica:
    """One teacher in one actor. The first request loads the network."""

    def __init__(self, spec: TeacherSpec) -> None:
        """Keep the specification; the weights may not have been trained yet."""
        self.spec = spec
        self._teacher: FrozenNetwork | None = None

    @property
    def teacher(self) -> FrozenNetwork:
        """The teacher, loaded on first use."""
        if self._teacher is None:
            give_way()
            self._teacher = FrozenNetwork.build(self.spec)
        return self._teacher

    def identity(self) -> str:
        """The teacher's identity."""
        return self.teacher.identity()

    def place(self) -> Place:
        """Where this process is, by which a worker knows whether it can open handles."""
        return own_place()

    def logits(self, images: Images | Handle) -> Reply[NDArray[np.float32]]:
        """Logits, shape (batch, classes)."""
        return Reply(self.teacher.identity(), self.teacher.logits(opened(images)))

    def loss_and_grad(
        self, images: Images | Handle, objective: TeacherObjective, context: ContextArrays
    ) -> Reply[GradientAnswer]:
        """Loss per image, its gradient to the images, and logits."""
        return Reply(self.teacher.identity(), self.teacher.loss_and_grad(opened(images), objective, context))


@dataclass(slots=True, eq=False)
class _Waiting:
    """A waiting request. It equals only itself, since comparing arrays gives no single truth value."""

    images: Images
    objective: TeacherObjective | None
    context: ContextArrays
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def joins(self) -> tuple[Any, ...]:
        """The key of requests that can share a batch."""
        return (
            self.objective,
            type(self.images),
            str(self.images.dtype),
            self.images.shape[1:],
            tuple(sorted(self.context)),
        )


class JoiningReplica:
    """A replica that joins waiting requests to batches of up to `max_batch` images.

    It waits up to `max_wait_ms` for more. The last bits of an answer depend on the batch size, so runs with joining
    are not reproducible bit for bit.
    """

    def __init__(self, spec: TeacherSpec, *, max_batch: int, max_wait_ms: float) -> None:
        self.replica = Replica(spec)
        self.max_batch = max_batch
        self.max_wait_s = max_wait_ms / 1000.0
        self._queue: list[_Waiting] = []
        self._more = asyncio.Event()
        self._kernels = ThreadPoolExecutor(max_workers=1)  # one thread, so that thread counts stay as they were set
        self._server: asyncio.Task[None] | None = None

    async def identity(self) -> str:
        """The teacher's identity."""
        return await asyncio.get_running_loop().run_in_executor(self._kernels, self.replica.identity)

    async def place(self) -> Place:
        """Where this process is."""
        return await asyncio.get_running_loop().run_in_executor(self._kernels, self.replica.place)

    async def logits(self, images: Images | Handle) -> Reply[NDArray[np.float32]]:
        """Logits, shape (batch, classes)."""
        reply: Reply[NDArray[np.float32]] = await self._wait(_Waiting(opened(images), None, {}))
        return reply

    async def loss_and_grad(
        self, images: Images | Handle, objective: TeacherObjective, context: ContextArrays
    ) -> Reply[GradientAnswer]:
        """Loss per image, its gradient to the images, and logits."""
        reply: Reply[GradientAnswer] = await self._wait(_Waiting(opened(images), objective, context))
        return reply

    async def _wait(self, waiting: _Waiting) -> Any:
        if self._server is None or self._server.done():
            self._server = asyncio.get_running_loop().create_task(self._serve())
        self._queue.append(waiting)
        self._more.set()
        return await waiting.done

    async def _serve(self) -> None:
        while True:
            while not self._queue:
                self._more.clear()
                await self._more.wait()
            await self._until_full_or_late()
            group = self._take_group()
            try:
                answers = await asyncio.get_running_loop().run_in_executor(self._kernels, self._answer, group)
            except Exception as error:  # every request of the batch gets the error
                for waiting in group:
                    waiting.done.set_exception(error)
            else:
                for waiting, answer in zip(group, answers, strict=True):
                    waiting.done.set_result(answer)

    async def _until_full_or_late(self) -> None:
        deadline = time.monotonic() + self.max_wait_s
        while sum(len(w.images) for w in self._queue) < self.max_batch and time.monotonic() < deadline:
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), deadline - time.monotonic())
            except TimeoutError:
                return

    def _take_group(self) -> list[_Waiting]:
        """Remove the oldest request from the queue, with later ones that can join it, in order."""
        group = [self._queue.pop(0)]
        size = len(group[0].images)
        for waiting in list(self._queue):
            if waiting.joins == group[0].joins and size + len(waiting.images) <= self.max_batch:
                self._queue.remove(waiting)
                group.append(waiting)
                size += len(waiting.images)
        return group

    def _answer(self, group: Sequence[_Waiting]) -> list[Reply[Any]]:
        images = _joined([waiting.images for waiting in group])
        cuts = list(itertools.accumulate(len(waiting.images) for waiting in group))[:-1]
        objective = group[0].objective
        if objective is None:
            reply = self.replica.logits(images)
            return [Reply(reply.identity, part) for part in np.split(reply.answer, cuts)]
        context = {name: np.concatenate([w.context[name] for w in group]) for name in group[0].context}
        joined = self.replica.loss_and_grad(images, objective, context)
        parts = (np.split(rows, cuts) for rows in (joined.answer.loss, joined.answer.grad, joined.answer.logits))
        return [Reply(joined.identity, GradientAnswer(*rows)) for rows in zip(*parts, strict=True)]


def _joined(parts: Sequence[Images]) -> Images:
    """Images of one kind, one after the other."""
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if tensors:
        return torch.cat(tensors)
    arrays: NDArray[Any] = np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    return arrays
