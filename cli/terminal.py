"""Printing on the terminal, and errors as messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typing_extensions import override

from hard_ray.errors import HardrayError


def print_nowhere() -> None:
    """Drop everything that is printed from now on: the terminal is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class LastingConsole(Console):
    """A console whose closed pipe does not end the job; rich would end the process."""

    @override
    def on_broken_pipe(self) -> None:
        print_nowhere()


console = LastingConsole()
errors = LastingConsole(stderr=True)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn a user's mistake into a message and an exit code instead of a traceback; decorates every verb."""
    try:
        yield
    except HardrayError as error:
        print_error(str(error))
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        problem = _full_disk(error)
        if problem is None:
            raise
        print_error(problem)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("stopped", highlight=False)
        raise typer.Exit(130) from None


def _full_disk(error: OSError) -> str | None:
    """The message for a disk or a quota that is full; None: the error is another one."""
    from hard_ray.files import NO_ROOM

    if error.errno not in NO_ROOM:
        return None
    what = f"{error.filename} cannot" if error.filename else "a file cannot"
    return (
        f"{what} be written: {error.strerror}; finished parts are intact: make room and give the same command again, "
        "for a run with --resume"
    )


def say(text: str) -> None:
    """Print a line as it is."""
    print_lines([escape(text)])


def print_lines(lines: Iterable[str], on: Console = console) -> None:
    """Print lines with rich's markup; the terminal wraps them, so that paths can be copied.

    A terminal that was closed, or a pipe that nobody reads any more, does not end a job.
    """
    try:
        for line in lines:
            on.print(line, highlight=False, soft_wrap=True)
    except OSError:
        print_nowhere()


def print_pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print rows of a heading and a text."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")  # a path that is longer than the line is not cut off
    for heading, text in rows:
        table.add_row(heading, escape(text))
    console.print(table)


def print_heading(verb: str, folder: Path | str) -> None:
    """Print which verb writes to which folder."""
    console.print(f"[bold]hardray {verb}[/bold] -> {escape(str(folder))}", highlight=False)


def print_error(text: str) -> None:
    """Print an error on stderr."""
    errors.print(f"[bold red]error:[/bold red] {escape(text)}", highlight=False, soft_wrap=True)


def print_note(text: str) -> None:
    """Print a line on stderr that is no error."""
    errors.print(f"[yellow]note:[/yellow] {escape(text)}", highlight=False, soft_wrap=True)


def usage_error(text: str) -> HardrayError:
    """An error in the words of a command line: exit code 2."""
    error = HardrayError(text)
    error.exit_code = 2
    return error
