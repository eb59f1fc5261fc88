"""Parts of a job that its results do not need: pictures, plots and pages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from hard_ray.errors import readable


@contextlib.contextmanager
def extra(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Make something that the results do not need: its failure is said, and the job goes on."""
    try:
        yield
    except Exception as error:  # of matplotlib, of the disk, of a picture that cannot be read
        say(
            f"{what} could not be made ({readable(error)}); nothing else is missing, and `hardray doctor` tries what "
            "pictures need"
        )
