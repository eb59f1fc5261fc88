"""Jobs on a cluster: its address, a connection to it, and following a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hard_ray.errors import command_line

from .terminal import console, print_error, say, usage_error

if TYPE_CHECKING:
    from hard_ray.orchestration.jobs.client import Jobs

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"

Address = Annotated[
    str | None, typer.Option("--address", help=f"The cluster's dashboard, http://HOST:8265; unset: {ADDRESS_VARIABLE}.")
]


def connect(address: str | None, *, secrets: Sequence[str] = ()) -> Jobs:
    """Connect to the dashboard at this address, or at the environment's; `secrets` are hidden in all output."""
    from hard_ray.orchestration.jobs.client import Jobs

    where = address or os.environ.get(ADDRESS_VARIABLE)
    if not where:
        raise usage_error(f"give --address http://HOST:8265, the cluster's dashboard, or set {ADDRESS_VARIABLE}")
    return Jobs(where, secrets=secrets)


def follow_job(jobs: Jobs, job: str) -> None:
    """Print a job's output until it ends, and exit with its exit code."""
    from hard_ray.orchestration.jobs.client import exit_code, problem_of

    try:
        done = jobs.follow(job, _write)
    except KeyboardInterrupt:
        console.print(f"\nthe job {job} goes on", highlight=False)
        print_handles(job, jobs.shown)
        raise typer.Exit(130) from None
    problem = problem_of(done)
    if problem:
        print_error(problem)
    raise typer.Exit(exit_code(done))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def print_handles(job: str, address: str) -> None:
    """Print the commands that follow a job again and that stop it."""
    say(f"look again  {command_line('jobs', 'logs', job, '--follow', '--address', address)}")
    say(f"stop it     {command_line('jobs', 'stop', job, '--address', address)}")
