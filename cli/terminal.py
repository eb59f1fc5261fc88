"""The terminal: where text goes, and errors as messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from hard_ray.errors import HardrayError

console = Console()
errors = Console(stderr=True)


@contextmanager
def readable_errors() -> Iterator[None]:
    """A user's mistake is a message and an exit code, not a traceback."""
    try:
        yield
    except HardrayError as error:
        errors.print(f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        errors.print("stopped", highlight=False)
        raise typer.Exit(130) from None


def say(text: str) -> None:
    """A line of progress."""
    console.print(escape(text), highlight=False, soft_wrap=True)


def usage(text: str) -> HardrayError:
    """A mistake in how a command was called: exit code 2."""
    error = HardrayError(text)
    error.exit_code = 2
    return error
