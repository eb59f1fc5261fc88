"""Large objects that are put into Ray's object store once and read by many tasks and actors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import ray

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shipped(Generic[T]):
    """A reference to an object in the store, which the tasks and actors that receive it read with `get`.

    Ray replaces a reference that is itself an argument of a task or an actor by the object. The object would then have
    to arrive before the function starts, as part of every call. A reference inside another object is passed as it is,
    which is why this class wraps one: each call carries a few bytes, and a node fetches the object once.
    """

    _reference: ray.ObjectRef[T]

    @classmethod
    def put(cls, value: T) -> Shipped[T]:
        """Put a value into the object store."""
        return cls(ray.put(value))

    def get(self) -> T:
        """Read the value; its arrays stay in shared memory and are read-only."""
        return ray.get(self._reference)
