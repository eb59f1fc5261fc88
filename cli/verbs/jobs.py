"""`hardray jobs`: shows and stops the jobs of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from ..cluster_jobs import Address, connect, follow_job
from ..terminal import console, print_lines, say, usage_error

if TYPE_CHECKING:
    from hard_ray.orchestration.jobs.client import RayJob


def jobs(
    action: Annotated[Literal["list", "status", "logs", "stop"], typer.Argument(help="What to do.")],
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="The job's id; `list` shows all.")] = None,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="With `logs`: show new output until the job ends.")] = False,
) -> None:
    """Show the jobs of a cluster, or stop one.

    A stopped run writes a checkpoint first and can be resumed.
    """
    if (action == "list") != (job is None):
        raise usage_error(
            "list takes no job" if action == "list" else f"{action} needs a job; `hardray jobs list` shows all"
        )
    cluster = connect(address)
    if job is None:
        console.print(_table(cluster.all()))
    elif action == "status":
        print_lines(_status_lines(cluster.job(job)))
    elif action == "stop":
        was_running = cluster.stop(job)
        say(f"{job} has been asked to stop" if was_running else f"{job} has already ended")
    elif follow:
        follow_job(cluster, job)
    else:
        sys.stdout.write(cluster.logs(job))


def _table(found: Sequence[RayJob]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("job", "status", "started", "command"):
        table.add_column(name, overflow="fold")
    for job in found:
        started = "" if job.started is None else f"{job.started:%Y-%m-%d %H:%M:%S}"
        table.add_row(escape(job.id), job.status, started, escape(job.command))
    return table


def _status_lines(job: RayJob) -> list[str]:
    lines = [f"job      {escape(job.id)}", f"status   {job.status}", f"command  {escape(job.command)}"]
    lines += [f"started  {job.started:%Y-%m-%d %H:%M:%S}"] if job.started else []
    lines += [f"ended    {job.ended:%Y-%m-%d %H:%M:%S}"] if job.ended else []
    lines += [f"exit     {job.exit_code}"] if job.exit_code is not None else []
    return [*lines, f"message  {escape(job.message.strip())}"] if job.message else lines
