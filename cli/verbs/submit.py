"""`hardray submit`: runs a command on a cluster, as a job."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..cluster_jobs import Address, connect, follow_job, print_handles
from ..job_command import check_command
from ..terminal import console, say, usage_error

if TYPE_CHECKING:
    from hard_ray.orchestration.jobs.package import Package


def submit(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="The command without `hardray`, after `--`: distill --preset digits."),
    ],
    address: Address = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder that relative paths start from; all its small text files are sent. "
            "Unset: this folder, and only the files that the command names."
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY[=VALUE]", help="A variable of the job; without a value, its value here."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show the output until the job ends, or return at once.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list what would be sent and what not, and stop.")
    ] = False,
) -> None:
    """Run a hardray command on a cluster, as a Ray job.

    The command is checked here first. Data, weights and secrets are not sent: the cluster must have them. The exit code
    is the job's.
    """
    from hard_ray.orchestration.jobs import checks as submission
    from hard_ray.orchestration.jobs import package as packaging

    variables = submission.environment(env or [])
    submission.check_words(command)
    folder = (working_dir or Path()).expanduser()
    if not folder.is_dir():
        raise usage_error(f"--working-dir {folder}: there is no such folder")
    with contextlib.chdir(folder):
        named = check_command(command, context.find_root().command)
    package = packaging.choose(folder, named, whole=working_dir is not None)
    if dry_run:
        _print_package(package, ["hardray", *command], variables)
        return
    jobs = connect(address, secrets=list(variables.values()))
    job = jobs.submit(["hardray", *command], package, variables)
    console.print(f"[bold]job[/bold] {job} at {escape(jobs.shown)}", highlight=False, soft_wrap=True)
    if follow:
        follow_job(jobs, job)
    else:
        print_handles(job, jobs.shown)


def _print_package(package: Package, words: Sequence[str], variables: dict[str, str]) -> None:
    say(f"command    {shlex.join(words)}")
    say(f"variables  {', '.join(variables) or 'none'}")
    say(f"sent       {len(package.files)} files of {package.folder}, {package.size:,} bytes")
    for path in package.files:
        say(f"  {path}")
    if package.left_out:
        say("not sent")
    for item in package.left_out:
        count = f" ({item.count} files)" if item.count > 1 else ""
        say(f"  {item.path}{count}: {item.reason}")
