"""Jobs of a cluster: its address, a connection to it, and a job followed to its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from .terminal import console, errors, say, usage

if TYPE_CHECKING:
    from hard_ray.orchestration.jobs.client import Jobs

VARIABLE = "RAY_API_SERVER_ADDRESS"

Address = Annotated[
    str | None,
    typer.Option("--address", help=f"The cluster's dashboard, http://HOST:8265; unset: {VARIABLE}."),
]


def address_of(given: str | None) -> str:
    """The dashboard's address: the one given, or the environment's."""
    where = given or os.environ.get(VARIABLE)
    if not where:
        raise usage(f"give --address http://HOST:8265, the cluster's dashboard, or set {VARIABLE}")
    return where


def connect(address: str, *, secrets: Sequence[str] = ()) -> Jobs:
    """A connection to the dashboard; `secrets` are hidden in what it prints."""
    from hard_ray.orchestration.jobs.client import Jobs

    return Jobs(address, secrets=secrets)


def follow_job(jobs: Jobs, job: str) -> None:
    """Show a job's output to its end, and leave with its exit code."""
    from hard_ray.orchestration.jobs.client import exit_code, said

    try:
        done = jobs.follow(job, _write)
    except KeyboardInterrupt:
        console.print(f"\nthe job {job} goes on", highlight=False)
        print_handles(job, jobs.shown)
        raise typer.Exit(130) from None
    problem = said(done)
    if problem:
        errors.print(f"[bold red]error:[/bold red] {escape(problem)}", highlight=False, soft_wrap=True)
    raise typer.Exit(exit_code(done))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def print_handles(job: str, address: str) -> None:
    """The commands that show a job again and that stop it."""
    say(f"look again  hardray jobs logs {job} --follow --address {address}")
    say(f"stop it     hardray jobs stop {job} --address {address}")
