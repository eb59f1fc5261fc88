"""A worker's client of the teacher pool: a bounded number of requests ahead, resent when a replica dies.

A request contains all that is needed to answer it, and every replica gives the same bits. So a replica that dies costs
a resend and nothing else: a run in which teachers died, or the pool grew and shrank, ends with the same weights.

This module does not import torch, so a process that only sends requests starts without it.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from hard_ray.config.runtime import Transport
from hard_ray.distillation.messages import Answer, ContextArrays, GradientAnswer, Reply, Ticket, checked, short
from hard_ray.errors import HardrayError, TeacherError
from hard_ray.orchestration.pool.sharing import CannotOpenError, Lender, Lent, in_main_memory

if TYPE_CHECKING:
    from hard_ray.distillation.objectives import TeacherObjective
    from hard_ray.networks.precision import Images

logger = logging.getLogger(__name__)

POLL_S = 5.0
RESEND_PAUSE_S = 0.2
EXCHANGE_EVERY_S = 0.5
"""Seconds between a worker's reports of its waiting requests to a pool that follows its load."""


@dataclass(frozen=True, slots=True)
class PoolAddress:
    """The names and limits by which a worker uses the pool."""

    namespace: str
    names: tuple[str, ...]
    max_in_flight: int
    timeout_s: float
    board: str | None = None
    """The actor that lists the replicas of a pool that grows and shrinks; None: the replicas are always `names`."""
    transport: Transport = "object_store"


class RayPool:
    """A worker's connection to the pool."""

    def __init__(self, address: PoolAddress, *, first: int = 0) -> None:
        """Connect; `first` is the replica of the first request, and differs between workers."""
        self.address = address
        self.resent = 0
        self._turn = first
        self._expected: str | None = None
        self._open: list[ray.ObjectRef[Any]] = []
        self.lender = Lender() if address.transport == "shared_memory" else None
        """Makes handles to images; None: they go as bytes."""
        self._listing = Listing(address) if address.board is not None else None
        names = address.names if self._listing is None else self._listing.first()
        self._replicas = [ray.get_actor(name, namespace=address.namespace) for name in names]

    def identity(self) -> str:
        """The teacher's identity, which every later answer must have; raises TeacherError if replicas differ."""
        found = {RayTicket[str](self, "identity", (), replica=number).result() for number in range(len(self._replicas))}
        if len(found) > 1:
            raise TeacherError(
                f"the pool's replicas are different teachers: {', '.join(sorted(map(short, found)))}; every node must "
                "load the same weights, and compile them if one does (runtime.teacher.compile)"
            )
        self._expected = found.pop()
        if self.lender is not None:
            self.lender.meet(self._replicas)
        return self._expected

    @property
    def takes_tensors(self) -> bool:
        """Whether a replica can open tensors on this process's GPU; else they had to go by way of main memory."""
        return self.lender is not None and self.lender.meets_on_card()

    def logits(self, images: Images) -> Ticket[NDArray[np.float32]]:
        """Ask for logits, shape (batch, classes)."""
        return RayTicket(self, "logits", (images,))

    def loss_and_grad(
        self, images: Images, objective: TeacherObjective, context: ContextArrays
    ) -> Ticket[GradientAnswer]:
        """Ask for a loss per image and its gradient to the images."""
        return RayTicket(self, "loss_and_grad", (images, objective, dict(context)))

    @property
    def size(self) -> int:
        """The number of replicas that this worker knows."""
        return len(self._replicas)

    def next_replica(self) -> int:
        """The next replica, in turn."""
        self._turn += 1
        return (self._turn - 1) % len(self._replicas)

    def send(self, verb: str, arguments: tuple[Any, ...], replica: int, *, as_bytes: bool = False) -> Sent:
        """Send a request once fewer than `max_in_flight` are open; raises TeacherError after `timeout_s` of waiting.

        Images go as a handle where the replica can open it, unless `as_bytes`.
        """
        deadline = time.monotonic() + self.address.timeout_s
        while len(self._open) >= self.address.max_in_flight:
            if time.monotonic() > deadline:
                raise TeacherError(
                    f"none of {len(self._open)} requests to the teacher was answered for {self.address.timeout_s:g} s "
                    "(runtime.teacher.timeout_s)"
                )
            _, self._open = ray.wait(self._open, num_returns=1, timeout=POLL_S, fetch_local=False)
            self.exchange()
        chosen = self._replicas[replica % len(self._replicas)]  # there may be fewer by now
        lent = None
        if arguments:
            images, *others = arguments
            lent = None if as_bytes or self.lender is None else self.lender.lend(images, chosen)
            arguments = (in_main_memory(images) if lent is None else lent.handle, *others)
        ref: ray.ObjectRef[Any] = getattr(chosen, verb).remote(*arguments)
        self._open.append(ref)
        return Sent(ref, chosen, lent)

    def exchange(self) -> None:
        """Before each wait: report the waiting requests to a pool that follows its load, and update its replicas."""
        if self._listing is not None:
            self._replicas = self._listing.exchange(self._open) or self._replicas

    def close(self, sent: Sent) -> None:
        """Forget a request that was answered or failed, and free the memory of its images."""
        self._open = [other for other in self._open if other != sent.ref]
        if sent.lent is not None:
            sent.lent.free()

    def unwrap(self, reply: object, arguments: tuple[Any, ...]) -> Any:
        """The answer in a reply; raises TeacherError if it is another teacher's, of a wrong shape, or not finite."""
        if not isinstance(reply, Reply):
            return reply
        if self._expected is not None and reply.identity != self._expected:
            raise TeacherError(
                f"a replica answered as teacher {short(reply.identity)}, this run learns from {short(self._expected)}; "
                "its weights, or its node's compiler, changed while the run was going on"
            )
        return checked(reply.answer, arguments[0], arguments[2] if len(arguments) > 2 else None)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that is under way to a replica."""

    ref: ray.ObjectRef[Any]
    replica: ActorHandle[Any]
    lent: Lent | None
    """The memory of its images, if they went as a handle."""


@dataclass(slots=True)
class Listing:
    """One worker's view of a pool that grows and shrinks.

    The exchange with the board is asynchronous, so that an update never waits for it; only `first` does.
    """

    address: PoolAddress
    worker: str = field(default_factory=lambda: uuid.uuid4().hex)
    _handles: dict[str, ActorHandle[Any]] = field(default_factory=dict)
    _asked: ray.ObjectRef[Any] | None = None
    _next: float = 0.0

    def _actor(self, name: str | None) -> Any:
        return ray.get_actor(name or "", namespace=self.address.namespace)

    def first(self) -> tuple[str, ...]:
        """The names of the replicas when a worker starts; waits for the board."""
        names: tuple[str, ...] = ray.get(
            self._actor(self.address.board).exchange.remote(self.worker, 0), timeout=self.address.timeout_s
        )
        return names

    def exchange(self, requests: list[ray.ObjectRef[Any]]) -> list[ActorHandle[Any]] | None:
        """Report how many of these requests wait for an answer, and return the replicas if a new list has come."""
        replicas, now = None, time.monotonic()
        # 1. Take the board's answer to the last report, if it has come.
        if self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
            replicas, self._asked = self._received(self._asked), None
        # 2. Report again once the last answer has come and `EXCHANGE_EVERY_S` has passed.
        if self._asked is None and now >= self._next:
            ready = ray.wait(requests, num_returns=len(requests), timeout=0, fetch_local=False)[0] if requests else []
            self._asked = self._actor(self.address.board).exchange.remote(self.worker, len(requests) - len(ready))
            self._next = now + EXCHANGE_EVERY_S
        return replicas

    def _received(self, ref: ray.ObjectRef[Any]) -> list[ActorHandle[Any]] | None:
        try:
            names = ray.get(ref)
            found = {name: self._handles.get(name) or self._actor(name) for name in names}
        except (RayError, ValueError):  # the board or a replica is being replaced: use the next answer
            return None
        self._handles = found
        return list(found.values())


class RayTicket(Generic[Answer]):
    """A request to the pool, which keeps its arguments until it is answered so that it can be resent."""

    def __init__(self, pool: RayPool, verb: str, arguments: tuple[Any, ...], *, replica: int | None = None) -> None:
        self.pool = pool
        self.verb = verb
        self.arguments = arguments
        self.replica = pool.next_replica() if replica is None else replica
        self._pinned = replica is not None
        self._answer: Answer | None = None
        self._sent: Sent | None = pool.send(verb, arguments, self.replica)

    def result(self) -> Answer:
        """Wait for the answer, and resend while replicas die.

        Raises TeacherError if no replica answered within `runtime.teacher.timeout_s`, or an answer was wrong.
        """
        deadline = time.monotonic() + self.pool.address.timeout_s  # resending does not extend it
        while self._sent is not None:
            self.pool.exchange()
            try:
                reply = ray.get(self._sent.ref, timeout=POLL_S)
            except GetTimeoutError:  # 1. no answer yet: exchange again, since the pool may have grown
                self._give_up_after(deadline, "has not answered")
            except RayTaskError as error:  # 2. the teacher failed, as it would on every replica
                if not isinstance(error.cause, CannotOpenError):  # or only this one cannot open the images
                    self.pool.close(self._sent)
                    raise _cause(error) from None
                self._resend_as_bytes(self._sent, str(error.cause))
            except RayError as error:  # 3. the replica died, or the node with its answer: ask another
                self._give_up_after(deadline, f"died ({type(error).__name__})")
                self._resend(self._sent)
            else:  # 4. answered: the arguments are not needed any more
                self.pool.close(self._sent)
                self._answer = self.pool.unwrap(reply, self.arguments)
                self._sent, self.arguments = None, ()
        return self._answer  # type: ignore[return-value]

    def _resend(self, lost: Sent) -> None:
        self.pool.close(lost)
        if self.pool.lender is not None:
            self.pool.lender.forget(lost.replica)
        self.pool.resent += 1
        logger.warning("teacher-%d died; the request is sent again", self.replica)
        time.sleep(RESEND_PAUSE_S)
        self.replica = self.replica if self._pinned else self.pool.next_replica()  # Ray restarts a pinned one
        self._sent = self.pool.send(self.verb, self.arguments, self.replica, as_bytes=True)

    def _resend_as_bytes(self, refused: Sent, reason: str) -> None:
        self.pool.close(refused)
        if self.pool.lender is not None:
            self.pool.lender.refused(refused.replica, reason)
        self._sent = self.pool.send(self.verb, self.arguments, self.replica, as_bytes=True)

    def _give_up_after(self, deadline: float, problem: str) -> None:
        if time.monotonic() > deadline:
            raise TeacherError(
                f"teacher-{self.replica} {problem}, and no replica answered for "
                f"{self.pool.address.timeout_s:g} s (runtime.teacher.timeout_s)"
            )


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, HardrayError):
        return cause if type(cause) is not HardrayError else TeacherError(str(cause))
    return TeacherError(f"the teacher failed: {type(cause).__name__}: {cause}")
