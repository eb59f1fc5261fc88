"""Measures in processes of their own: one that fails, hangs or fills the card's memory leaves the others untouched.

A process is a copy of this one (fork), so that PyTorch is imported once. This process never touches the card: a copy of
a process that did could not use it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

Values = dict[str, Any]
Start = Literal["fork", "spawn"]

GRACE_S = 5.0
"""Seconds between the request to end and the end."""
NOT_MEASURED = "not measured"
NO_TIME = f"{NOT_MEASURED} (time)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a measure: its values, or why there are none."""

    values: Values
    error: str | None = None
    """None: it was measured."""
    details: str = ""
    """The traceback."""

    @property
    def failed(self) -> bool:
        """Whether it broke; one that lacked time or a package did not."""
        return self.error is not None and not self.error.startswith(NOT_MEASURED)


class PartError(Exception):
    """A part of a measure has no values; the measure ends as its part did."""

    def __init__(self, outcome: Outcome) -> None:
        """`outcome` is the part's."""
        super().__init__(outcome.error)
        self.outcome = outcome


class Isolated:
    """A measure that runs in a process of its own."""

    def __init__(self, call: Callable[[], Values], *, start: Start = "fork") -> None:
        """Start it; with `spawn`, `call` must be picklable."""
        context: Any = multiprocessing.get_context(start)
        self._answer, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_answer, args=(call, sender))
        self._process.start()
        sender.close()

    def result(self, until: float) -> Outcome:
        """Wait for its values, at most until this time (of time.monotonic()), and end the process."""
        late = True
        try:
            if not self._answer.poll(max(0.0, until - time.monotonic())):
                return Outcome({}, f"{NO_TIME}: stopped at its deadline")
            late = False
            found: Outcome = self._answer.recv()
            return found
        except EOFError:
            self._process.join(GRACE_S)
            return Outcome({}, f"its process ended with {self._process.exitcode}")
        finally:
            self._end(signal.SIGTERM if late else signal.SIGKILL)

    def _end(self, first: signal.Signals) -> None:
        """End the process and those that it started: compilers, a Ray cluster."""
        for number in (first, signal.SIGKILL):
            with suppress(ProcessLookupError):  # all have ended
                os.killpg(self._process.pid or 0, number)
            wait([self._process.sentinel], GRACE_S)
        self._process.join()


def _answer(call: Callable[[], Values], sender: Connection) -> None:
    """Run in the new process: measure and send the outcome."""
    os.setsid()
    try:
        outcome = Outcome(call())
    except PartError as error:
        outcome = error.outcome
    except ModuleNotFoundError as error:
        outcome = Outcome({}, f"{NOT_MEASURED} ({error.name} is not installed)")
    except Exception as error:  # whatever a network, a compiler or a driver raises
        outcome = Outcome({}, one_line(error), traceback.format_exc())
    sender.send(outcome)
    sender.close()


def one_line(error: Exception) -> str:
    """The error in one line of a table."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]
