"""Progress of a long job, said every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from hard_ray.data.generated_shard import ShardHeader

SAY_EVERY_S = 5.0


class Progress:
    """Says every few seconds how far it is; speed is measured from the first shard on, actors start before."""

    def __init__(self, shards: int, say: Callable[[str], None]) -> None:
        """`shards` are all of the set."""
        self.shards = shards
        self.say = say
        self._images = 0
        self._began: float | None = None
        self._said = time.monotonic()

    def note(self, done: dict[int, ShardHeader], header: ShardHeader) -> None:
        """One more shard was made."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        else:
            self._images += header.rows
        if now - self._said > SAY_EVERY_S or len(done) == self.shards:
            self._said = now
            speed = f"  {self._images / (now - self._began):,.0f} images/s" if self._images else ""
            self.say(f"shard {len(done):>5} of {self.shards}{speed}")
