"""Images of a request as a handle to memory that worker and replica share, instead of bytes in Ray's object store.

Images on a GPU stay there: the replica opens the worker's tensor on the same card (CUDA IPC). Images in main memory are
copied into a segment in /dev/shm, which a replica on the same node maps. Whoever makes a handle keeps the memory until
the answer is there, or until the request was sent again, as bytes.

This module imports torch only where it handles tensors.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import mmap
import os
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from hard_ray.data.batch import Pixels
from hard_ray.errors import HardrayError

if TYPE_CHECKING:
    from torch import Tensor

    from hard_ray.networks.precision import Images

logger = logging.getLogger(__name__)

SEGMENTS = Path("/dev/shm")  # noqa: S108  every name there is a random one
"""Where Linux shows POSIX shared memory as files; on systems without it, images go as bytes."""

PLACES_S = 10.0
"""Seconds that a worker waits at its start for the replicas to say where they are; later it does not wait."""


class CannotOpenError(HardrayError):
    """A handle leads to memory that this process cannot open; the images have to come as bytes."""


@dataclass(frozen=True, slots=True)
class Place:
    """The node and the physical card of a process."""

    node: str
    card: str = ""
    """The UUID of its current GPU; empty: none."""


def own_place() -> Place:
    """Where this process is. It counts its GPUs from 0 whatever the others do, so the UUID tells which one it has."""
    import torch

    return Place(_node(), card_of(torch.cuda.current_device()) if torch.cuda.is_available() else "")


def card_of(index: int | None) -> str:
    """The UUID of the GPU with this number in this process."""
    import torch

    return str(torch.cuda.get_device_properties(index).uuid)


def _node() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


@dataclass(frozen=True, slots=True)
class SegmentHandle:
    """Images in a segment of a node's shared memory."""

    place: Place
    name: str
    shape: tuple[int, ...]
    dtype: str

    def open(self) -> Pixels:
        """Map the images, read-only; the mapping ends with the array, whether the segment still has its name or not."""
        own = _node()
        if own != self.place.node:
            raise CannotOpenError(f"the images are on node {self.place.node[:8]}, this is node {own[:8]}")
        try:
            with (SEGMENTS / self.name).open("rb") as file:
                pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # another container on the node, or the sender is gone
            raise CannotOpenError(f"{SEGMENTS / self.name} cannot be mapped ({error})") from None
        count = int(np.prod(self.shape))
        images: Pixels = np.frombuffer(pages, np.dtype(self.dtype), count).reshape(self.shape)
        return images


@dataclass(frozen=True, slots=True)
class CardHandle:
    """Images on a GPU, as torch takes a tensor apart for another process."""

    place: Place
    rebuild: Callable[..., Tensor]
    arguments: tuple[Any, ...]

    def open(self) -> Tensor:
        """Open the tensor of the other process. Kernels started from here on wait for those that make its values."""
        own = own_place()
        if own != self.place:
            raise CannotOpenError(f"the images are on {_named(self.place)}, this process is on {_named(own)}")
        import torch

        try:
            return self.rebuild(*renumbered(self.rebuild, self.arguments, torch.cuda.current_device()))
        except RuntimeError as error:
            raise CannotOpenError(f"the tensor of the other process cannot be opened ({error})") from None


Handle = SegmentHandle | CardHandle


def renumbered(rebuild: Callable[..., Tensor], arguments: tuple[Any, ...], device: int) -> tuple[Any, ...]:
    """Arguments of torch's function that opens a tensor, with this process's number of the card for the sender's."""
    position = list(inspect.signature(rebuild).parameters).index("storage_device")
    return (*arguments[:position], device, *arguments[position + 1 :])


def opened(images: Images | Handle) -> Images:
    """The images of a request, whichever way they came; raises CannotOpenError."""
    return images.open() if isinstance(images, Handle) else images


def in_main_memory(images: Images) -> Pixels:
    """Images as an array, which Ray's object store and segments take."""
    if isinstance(images, np.ndarray):
        return images
    from hard_ray.networks.precision import to_main_memory

    return to_main_memory(images.detach())


class Lent:
    """Images that another process may open, until `free` is called or this object is gone."""

    def __init__(self, handle: Handle, segment: SharedMemory | None = None) -> None:
        """Own `segment`, which holds the images; of a tensor the request itself keeps the memory."""
        self.handle = handle
        self._unlink = None if segment is None else weakref.finalize(self, _unlink, segment)

    def free(self) -> None:
        """Give the memory back; who has opened it keeps it."""
        if self._unlink is not None:
            self._unlink()


def _unlink(segment: SharedMemory) -> None:
    with contextlib.suppress(FileNotFoundError):  # someone emptied /dev/shm
        segment.unlink()


def lend(images: Images, node: str) -> Lent:
    """Make a handle to images; raises OSError or RuntimeError if their memory cannot be shared."""
    return _lend_array(images, node) if isinstance(images, np.ndarray) else _lend_tensor(images, node)


def _lend_array(images: Pixels, node: str) -> Lent:
    segment = SharedMemory(f"hardray-{os.getpid()}-{uuid.uuid4().hex}", create=True, size=images.nbytes)
    lent = Lent(SegmentHandle(Place(node), segment.name, images.shape, images.dtype.str), segment)
    try:
        with (SEGMENTS / segment.name).open("r+b") as file:  # writing more than there is would end the process
            os.posix_fallocate(file.fileno(), 0, images.nbytes)
        np.ndarray(images.shape, images.dtype, buffer=segment.buf)[...] = images
    except OSError:
        lent.free()
        raise
    finally:
        segment.close()  # the name and what is in it remain
    return lent


def _lend_tensor(images: Tensor, node: str) -> Lent:
    from torch.multiprocessing.reductions import reduce_tensor

    # records an event on this thread's stream, for which the other process's stream waits
    rebuild, arguments = reduce_tensor(images.detach())
    return Lent(CardHandle(Place(node, card_of(images.device.index)), rebuild, arguments))


@dataclass(slots=True)
class Lender:
    """One worker's knowledge of which replicas can open its images."""

    node: str = field(default_factory=_node)
    lent: int = 0
    """Requests whose images went as a handle."""
    _places: dict[ActorHandle[Any], Place | None] = field(default_factory=dict)
    """None: it could not open a handle, and gets bytes."""
    _asked: dict[ActorHandle[Any], ray.ObjectRef[Any]] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def meet(self, replicas: list[ActorHandle[Any]]) -> None:
        """Ask the replicas where they are, and wait for their answers for a while."""
        for replica in replicas:
            self._place(replica)
        if self._asked:
            ray.wait(list(self._asked.values()), num_returns=len(self._asked), timeout=PLACES_S)
        for replica in replicas:
            self._place(replica)

    def lend(self, images: Images, replica: ActorHandle[Any]) -> Lent | None:
        """Make a handle for a replica; None: it gets bytes, since it cannot open one or has not said where it is."""
        place = self._place(replica)
        if isinstance(images, np.ndarray) or not images.is_cuda:
            images = in_main_memory(images)
        if place is None or not self._reach(images, place):
            return None
        try:
            lent = lend(images, self.node)
        except (OSError, RuntimeError) as error:
            self._say("images cannot be put into shared memory", str(error))
            return None
        self.lent += 1
        return lent

    def meets_on_card(self) -> bool:
        """Whether a replica is known to be on the GPU of this process."""
        cards = {place.card for place in self._places.values() if place is not None and place.node == self.node}
        return bool(cards - {""}) and own_place().card in cards

    def refused(self, replica: ActorHandle[Any], reason: str) -> None:
        """Remember that a replica could not open a handle."""
        self._places[replica] = None
        self._say("a teacher could not open images in shared memory", reason)

    def forget(self, replica: ActorHandle[Any]) -> None:
        """Ask a replica again where it is: it died, and may be restarted elsewhere."""
        self._places.pop(replica, None)
        self._asked.pop(replica, None)

    def _place(self, replica: ActorHandle[Any]) -> Place | None:
        if replica in self._places:
            return self._places[replica]
        asked = self._asked[replica] = self._asked.get(replica) or replica.place.remote()
        if not ray.wait([asked], timeout=0)[0]:
            return None
        del self._asked[replica]
        try:
            place: Place = ray.get(asked)
        except RayError:  # it is being restarted: ask again with the next request
            return None
        self._places[replica] = place
        return place

    def _reach(self, images: Images, place: Place) -> bool:
        if place.node != self.node:
            self._say("a teacher is on another node", f"{place.node[:8]}, this is {self.node[:8]}")
            return False
        if isinstance(images, np.ndarray) or place.card == card_of(images.device.index):
            return True
        self._say("a teacher is on another card", f"{place.card or 'none'}, this is {card_of(images.device.index)}")
        return False

    def _say(self, what: str, details: str) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning(
                "runtime.teacher.transport: %s (%s); such images go through Ray's object store", what, details
            )


def _named(place: Place) -> str:
    return f"node {place.node[:8]}, card {place.card or 'none'}"
