"""The teacher pool: actors that host the frozen teacher, and the client that a student worker asks.

A request carries everything that answering it needs. A replica that dies costs a resend and nothing else: the
answer is the same bits whichever replica gives it, so a run in which teachers died ends with the same weights.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError, WorkerCrashedError

from hard_ray.config.runtime import TeacherRuntime
from hard_ray.errors import HardrayError, TeacherError
from hard_ray.objectives import TeacherObjective
from hard_ray.precision import Pixels
from hard_ray.teacher import ContextArrays, GradientAnswer, Teacher, TeacherSpec, Ticket

logger = logging.getLogger(__name__)

POLL_S = 5.0
RESEND_PAUSE_S = 0.2

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Reply(Generic[Answer]):
    """An answer, and who gave it."""

    identity: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class PoolAddress:
    """How a worker finds the pool."""

    namespace: str
    names: tuple[str, ...]
    max_in_flight: int
    timeout_s: float


# ------------------------------------------------------------------------ replicas


class Replica:
    """One teacher in one actor. The network is loaded with the first request, or by `warm_up`."""

    def __init__(self, spec: TeacherSpec) -> None:
        """Nothing is loaded yet: the weights may not have been trained."""
        self.spec = spec
        self._teacher: Teacher | None = None

    @property
    def teacher(self) -> Teacher:
        """The teacher, loaded when first asked for."""
        if self._teacher is None:
            self._teacher = Teacher.build(self.spec)
        return self._teacher

    def identity(self) -> str:
        """The teacher's identity."""
        return self.teacher.identity()

    def logits(self, images: Pixels) -> Reply[NDArray[np.float32]]:
        """Logits, shape (batch, classes)."""
        return Reply(self.teacher.identity(), self.teacher.logits(images))

    def loss_and_grad(
        self, images: Pixels, objective: TeacherObjective, context: ContextArrays
    ) -> Reply[GradientAnswer]:
        """Loss per image, its gradient to the images, and logits."""
        return Reply(self.teacher.identity(), self.teacher.loss_and_grad(images, objective, context))


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that waits to be joined with others; equal to itself alone, because arrays have no one answer."""

    images: Pixels
    objective: TeacherObjective | None
    context: ContextArrays
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def joins(self) -> tuple[Any, ...]:
        """Requests with equal keys can be one batch."""
        return (self.objective, self.images.dtype.str, self.images.shape[1:], tuple(sorted(self.context)))


class JoiningReplica:
    """A replica that joins waiting requests up to `max_batch` images, waiting `max_wait_ms` for more.

    Another batch size gives other last bits, so that runs with joining are not repeatable bit for bit.
    """

    def __init__(self, spec: TeacherSpec, *, max_batch: int, max_wait_ms: float) -> None:
        """The network is loaded with the first request."""
        self.replica = Replica(spec)
        self.max_batch = max_batch
        self.max_wait_s = max_wait_ms / 1000.0
        self.batches = 0
        self._queue: list[_Waiting] = []
        self._more = asyncio.Event()
        self._kernels = ThreadPoolExecutor(max_workers=1)  # one thread, so that thread counts stay as they were set
        self._server: asyncio.Task[None] | None = None

    async def identity(self) -> str:
        """The teacher's identity."""
        return await asyncio.get_running_loop().run_in_executor(self._kernels, self.replica.identity)

    async def logits(self, images: Pixels) -> Reply[NDArray[np.float32]]:
        """Logits, shape (batch, classes)."""
        reply: Reply[NDArray[np.float32]] = await self._wait(_Waiting(images, None, {}))
        return reply

    async def loss_and_grad(
        self, images: Pixels, objective: TeacherObjective, context: ContextArrays
    ) -> Reply[GradientAnswer]:
        """Loss per image, its gradient to the images, and logits."""
        reply: Reply[GradientAnswer] = await self._wait(_Waiting(images, objective, context))
        return reply

    async def served_batches(self) -> int:
        """How many batches the kernels saw."""
        return self.batches

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
            except Exception as error:  # whatever the network raises belongs to those who asked
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
        """The oldest request, and those after it that join it, in their order."""
        group = [self._queue.pop(0)]
        size = len(group[0].images)
        for waiting in list(self._queue):
            if waiting.joins == group[0].joins and size + len(waiting.images) <= self.max_batch:
                self._queue.remove(waiting)
                group.append(waiting)
                size += len(waiting.images)
        return group

    def _answer(self, group: Sequence[_Waiting]) -> list[Reply[Any]]:
        self.batches += 1
        images = np.concatenate([waiting.images for waiting in group])
        cuts = list(itertools.accumulate(len(waiting.images) for waiting in group))[:-1]
        objective = group[0].objective
        if objective is None:
            reply = self.replica.logits(images)
            return [Reply(reply.identity, part) for part in np.split(reply.answer, cuts)]
        context = {name: np.concatenate([w.context[name] for w in group]) for name in group[0].context}
        joined = self.replica.loss_and_grad(images, objective, context)
        parts = (np.split(rows, cuts) for rows in (joined.answer.loss, joined.answer.grad, joined.answer.logits))
        return [Reply(joined.identity, GradientAnswer(*rows)) for rows in zip(*parts, strict=True)]


# -------------------------------------------------------------------------- server


@dataclass(slots=True)
class PoolServer:
    """The pool's actors, owned by the process that started them: they end with it."""

    address: PoolAddress
    actors: list[ActorHandle[Any]]

    def stop(self) -> None:
        """End every replica."""
        for actor in self.actors:
            ray.kill(actor, no_restart=True)


def start_pool(spec: TeacherSpec, runtime: TeacherRuntime, *, namespace: str, num_gpus: float) -> PoolServer:
    """Start the replicas; returns at once, they load their network with the first request.

    Args:
        spec: what each replica becomes.
        runtime: how many, and what is reserved for each.
        namespace: Ray namespace of the replicas' names.
        num_gpus: GPUs reserved for each replica.
    """
    names = tuple(f"teacher-{number}" for number in range(runtime.replicas))
    actors: list[Any] = []
    for name in names:
        options: dict[str, Any] = {
            "name": name,
            "namespace": namespace,
            "num_cpus": runtime.num_cpus,
            "num_gpus": num_gpus,
            "max_restarts": -1,  # Ray replaces a replica that died, on another node if need be
            "max_task_retries": 0,  # the client resends, to whichever replica answers
        }
        if runtime.max_batch is None:
            actors.append(ray.remote(Replica).options(**options).remote(spec))
        else:
            options["max_concurrency"] = 1000
            joining = ray.remote(JoiningReplica).options(**options)
            actors.append(joining.remote(spec, max_batch=runtime.max_batch, max_wait_ms=runtime.max_wait_ms))
    return PoolServer(PoolAddress(namespace, names, runtime.max_in_flight, runtime.timeout_s), actors)


# -------------------------------------------------------------------------- client


class RayPool:
    """A worker's connection to the pool: requests ahead, bounded, resent when a replica dies."""

    def __init__(self, address: PoolAddress, *, first: int = 0) -> None:
        """`first` is the replica that the first request goes to; workers start at different ones."""
        self.address = address
        self.resent = 0
        self._turn = first
        self._expected: str | None = None
        self._open: list[ray.ObjectRef[Any]] = []
        self._replicas = [ray.get_actor(name, namespace=address.namespace) for name in address.names]

    def identity(self) -> str:
        """The teacher's identity, which every later answer must bear.

        Raises:
            TeacherError: replicas differ, or none answers.
            ModelError: the teacher cannot be loaded.
        """
        found = {RayTicket[str](self, "identity", (), replica=number).result() for number in range(len(self._replicas))}
        if len(found) > 1:
            raise TeacherError(
                f"the pool's replicas are different teachers: {', '.join(sorted(i[:12] for i in found))}; "
                "every node must load the same weights"
            )
        self._expected = found.pop()
        return self._expected

    def logits(self, images: Pixels) -> Ticket[NDArray[np.float32]]:
        """Ask for logits, shape (batch, classes)."""
        return RayTicket(self, "logits", (images,))

    def loss_and_grad(
        self, images: Pixels, objective: TeacherObjective, context: ContextArrays
    ) -> Ticket[GradientAnswer]:
        """Ask for a loss per image and its gradient to the images."""
        return RayTicket(self, "loss_and_grad", (images, objective, dict(context)))

    def next_replica(self) -> int:
        """In turn."""
        self._turn += 1
        return (self._turn - 1) % len(self._replicas)

    def send(self, verb: str, arguments: tuple[Any, ...], replica: int) -> ray.ObjectRef[Any]:
        """Send once there is room among the requests in flight."""
        while len(self._open) >= self.address.max_in_flight:
            _, self._open = ray.wait(self._open, num_returns=1, fetch_local=False)
        ref: ray.ObjectRef[Any] = getattr(self._replicas[replica], verb).remote(*arguments)
        self._open.append(ref)
        return ref

    def close(self, ref: ray.ObjectRef[Any]) -> None:
        """A request was answered, or failed."""
        self._open = [other for other in self._open if other != ref]

    def unwrap(self, reply: object, arguments: tuple[Any, ...]) -> Any:
        """The answer in a reply.

        Raises:
            TeacherError: it is from another teacher, of a wrong shape, or not finite.
        """
        if not isinstance(reply, Reply):
            return reply
        if self._expected is not None and reply.identity != self._expected:
            raise TeacherError(
                f"a replica answered as teacher {reply.identity[:12]}, this run learns from {self._expected[:12]}; "
                "its weights changed while the run was going on"
            )
        logits = reply.answer.logits if isinstance(reply.answer, GradientAnswer) else reply.answer
        rows = len(arguments[0])
        if logits.ndim != 2 or len(logits) != rows:
            raise TeacherError(f"the teacher answered with shape {logits.shape} for {rows} images")
        if not np.isfinite(logits).all():
            raise TeacherError(
                f"the teacher's logits are not finite for {int((~np.isfinite(logits)).any(axis=1).sum())} of {rows} "
                "images; try runtime.teacher.dtype=float32"
            )
        return reply.answer


class RayTicket(Generic[Answer]):
    """A request to the pool. It keeps what it asked until it is answered."""

    def __init__(self, pool: RayPool, verb: str, arguments: tuple[Any, ...], *, replica: int | None = None) -> None:
        """Sent at once."""
        self.pool = pool
        self.verb = verb
        self.arguments = arguments
        self.replica = pool.next_replica() if replica is None else replica
        self._pinned = replica is not None
        self._answer: Answer | None = None
        self._ref: ray.ObjectRef[Any] | None = pool.send(verb, arguments, self.replica)

    def result(self) -> Answer:
        """Wait for the answer; resend while replicas die.

        Raises:
            TeacherError: no replica answered within `runtime.teacher.timeout_s`, or a replica answered wrongly.
        """
        deadline = time.monotonic() + self.pool.address.timeout_s
        while self._ref is not None:
            try:
                reply = ray.get(self._ref, timeout=POLL_S)
            except GetTimeoutError:
                self._give_up_after(deadline, "has not answered")
            except (RayActorError, WorkerCrashedError) as error:
                self._give_up_after(deadline, f"died ({type(error).__name__})")
                self._resend()
            except RayTaskError as error:
                raise _cause(error) from None
            else:
                self.pool.close(self._ref)
                self._answer = self.pool.unwrap(reply, self.arguments)
                self._ref, self.arguments = None, ()
        return self._answer  # type: ignore[return-value]

    def _resend(self) -> None:
        if self._ref is not None:
            self.pool.close(self._ref)
        self.pool.resent += 1
        logger.warning("teacher-%d died; the request is sent again", self.replica)
        time.sleep(RESEND_PAUSE_S)
        self.replica = self.replica if self._pinned else self.pool.next_replica()
        self._ref = self.pool.send(self.verb, self.arguments, self.replica)

    def _give_up_after(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise TeacherError(
                f"teacher-{self.replica} {what}, and no replica answered for "
                f"{self.pool.address.timeout_s:g} s (runtime.teacher.timeout_s)"
            )


def _cause(error: RayTaskError) -> Exception:
    """What the teacher raised, readable."""
    cause = error.cause
    if isinstance(cause, HardrayError):
        return cause if type(cause) is not HardrayError else TeacherError(str(cause))
    return TeacherError(f"the teacher failed: {type(cause).__name__}: {cause}")
