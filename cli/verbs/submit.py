"""`hardray submit`: runs a command on a cluster, as a job."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from hard_ray.errors import suggestion

from ..cluster_jobs import Address, connect, follow_job, print_handles
from ..options import load
from ..terminal import console, say, usage_error

if TYPE_CHECKING:
    from hard_ray.orchestration.jobs.package import Package

LOCAL_VERBS = ("submit", "jobs", "ui")
"""Verbs that cannot be a job."""


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
        named = _check(command, context.find_root().command)
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


def _check(command: Sequence[str], root: Any) -> list[Path]:
    """Check a command as it would check itself, and return the files of the working directory that it reads."""
    verb, arguments = command[0], list(command[1:])
    known = [name for name in root.commands if name not in LOCAL_VERBS]
    if verb not in known:
        why = (
            "runs here, not on a cluster"
            if verb in LOCAL_VERBS
            else f"is not a verb of hardray; {suggestion(verb, known)}"
        )
        raise usage_error(f"{verb!r} {why}")
    try:
        with root.commands[verb].make_context(verb, arguments) as context:
            given = context.params
    except typer.Exit:
        raise
    except Exception as error:  # typer keeps its class of usage errors private
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        raise usage_error(f"hardray {verb}: {text}") from None
    return _files(verb, given)


def _files(verb: str, given: dict[str, Any]) -> list[Path]:
    """The files that a command reads by relative paths; everything else it names must be on the cluster."""
    from hard_ray.orchestration.jobs import checks as submission

    overrides, files = given.get("overrides") or [], list(given.get("config") or [])
    if verb == "tune" and given["space"] is not None:
        made = submission.space_files(given["space"], overrides)
    else:
        made = [path for path in files if not path.is_absolute()]
        missing = next((path for path in made if not path.is_file()), None)
        if missing is not None:
            raise usage_error(
                f"-c {missing}: there is no such file in {Path.cwd()}, where the command's files are sent from"
            )
        if "preset" in given and all(path.is_file() for path in files):
            known = {name: given.get(name) for name in ("teacher", "data") if name in given}
            submission.check_config(
                load(files, given["preset"], overrides, trains_teacher=verb == "train-teacher", **known)
            )
    for name, value in given.items():
        if name == "config" or (name == "data" and "preset" in given):
            continue
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and not path.is_absolute():
                if not path.is_file():
                    raise usage_error(f"{path}: {submission.STAYS}; give an absolute path that every node reaches")
                made.append(path)
    writes = "output" in given and not (given.get("resume") or given.get("dry_run"))
    if writes and given["output"] is None:
        raise usage_error(f"give --output: {submission.STAYS}; want an absolute path that every node reaches")
    return made


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
