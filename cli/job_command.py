"""The command of a job: parsed by hardray's own parser and checked as it would check itself, before it is sent."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from hard_ray.errors import MissingObjectError, StorageError, suggestion

from .options import load, shorthands
from .terminal import print_note, usage_error

LOCAL_VERBS = ("submit", "jobs", "ui", "deploy")
"""Verbs that cannot be a job."""
NAMES_TEACHER = ("train-teacher", "fit-head")
"""Verbs with an option of another name for the teacher."""
TRAIN_NO_STUDENT = ("fit-head", "generate", "probe", "score-augmentations", "train-autoencoder")
"""Verbs that take a configuration and train no student, so that images without labels need no teacher in it."""


def check_command(command: Sequence[str], root: Any, *, sends: bool = True) -> list[Path]:
    """Check a command, without `hardray`, and return the files of the working directory that it reads.

    `root` is hardray's own command; `sends`: whether files of the working directory go with the command. Raises
    HardrayError for what the verb would refuse, and for a path that only this machine has.
    """
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
    _check_together(verb, given)
    if not sends:
        _check_files(verb, given)
    return [*_configured(verb, given), *_named(verb, given)]


def _check_files(verb: str, given: dict[str, Any]) -> None:
    """Raise an error for a file of the working directory."""
    from hard_ray.config.space import space_names
    from hard_ray.storage.address import is_url

    read = list(given.get("config") or [])
    if verb == "tune" and given["space"] and given["space"].removesuffix(".yaml") not in space_names():
        read.append(Path(given["space"]))
    for path in read:
        if not path.is_absolute() and not is_url(path):
            raise usage_error(
                f"{path}: a rendered job has no files of this folder; put it on the volume and give an absolute path, "
                f"such as /runs/{path.name}, or into the bucket and give its URL, or send the command with "
                "`hardray submit`"
            )


def _check_together(verb: str, given: dict[str, Any]) -> None:
    """Raise an error for options that the verb does not take together, or lacks."""
    from hard_ray.config.space import space_names

    if verb == "tune" and not given["space"] and not given["resume"]:
        raise usage_error(f"hardray tune: give --space FILE, or a shipped space: {', '.join(space_names())}")
    others = [name for name, value in given.items() if value and name not in ("resume", "space")]
    if given.get("resume") and others and not given.get("space"):
        raise usage_error(
            f"hardray {verb}: --resume takes everything from its folder, got {', '.join(others)} too; leave them out, "
            f"or write {shlex.join(['--output', str(given['resume']), '--continue'])} in the place of --resume"
        )


def _configured(verb: str, given: dict[str, Any]) -> list[Path]:
    """Check the configuration that a command describes, and return its files in the working directory."""
    from hard_ray.orchestration.jobs import checks as submission
    from hard_ray.storage.address import is_url

    overrides, files = given.get("overrides") or [], list(given.get("config") or [])
    if verb == "tune" and given["space"] is not None:
        known = {"teacher": given.get("teacher"), "data": given.get("data")}
        space = Path(given["space"])
        if space.is_absolute() and not space.exists():
            print_note(f"--space {space} is not on this machine: it is checked only when the job begins")
            return []
        made = submission.space_files(given["space"])
        with _from_here([space]):
            submission.check_space(given["space"], [*shorthands(**known), *overrides])
        return made
    made = [path for path in files if not path.is_absolute() and not is_url(path)]
    missing = next((path for path in made if not path.is_file()), None)
    if missing is not None:
        raise usage_error(
            f"-c {missing}: there is no such file in {Path.cwd()}, where the command's files are sent from"
        )
    unseen = [path for path in files if not is_url(path) and not path.is_file()]
    if unseen:
        print_note(f"-c {unseen[0]} is not on this machine: the configuration is checked only when the job begins")
    elif "preset" in given and not given.get("resume"):
        named = next((given[name] for name in ("teacher", "tower", "model") if given.get(name) is not None), None)
        known = {"teacher": named if verb in NAMES_TEACHER else given.get("teacher"), "data": given.get("data")}
        with _from_here(files):
            submission.check_config(
                load(
                    files,
                    given["preset"],
                    overrides,
                    trains_teacher=verb == "train-teacher",
                    trains=verb not in TRAIN_NO_STUDENT,
                    **known,
                )
            )
    return made


@contextlib.contextmanager
def _from_here(files: Sequence[Path]) -> Iterator[None]:
    """Only say it if a bucket cannot be read from this machine: the cluster may have other rights.

    StorageError: one of the files is at a URL that nobody can use, or the bucket has no such object.
    """
    from hard_ray.storage.address import Remote, is_url

    for path in files:
        if is_url(path):
            Remote.parse(path)
    try:
        yield
    except MissingObjectError:
        raise
    except StorageError as error:
        print_note(f"{error}; the configuration is checked only when the job begins")


def _check_texts(verb: str, given: dict[str, Any]) -> None:
    """Raise an error for what an option lacks, and for a folder of this machine that an option names as text."""
    from hard_ray.orchestration.jobs import checks as submission
    from hard_ray.storage.address import Remote, is_url

    if verb == "recommend" and not (given["budget"] or given["resume"]):
        raise usage_error("hardray recommend: give --budget, such as --budget 20m")
    named = any(part.startswith("teacher.model=") for part in given.get("overrides") or [])
    if verb == "fit-head" and not (given["tower"] or given["config"] or named):
        raise usage_error("hardray fit-head: name the tower with --tower")
    listed = [given.get("autoencoder"), *(given.get("suite") or []), given.get("labelled")]
    folders = [text.partition("=")[2] if "=" in text else text for text in listed if text and "/" in text]
    model = given.get("model")
    if isinstance(model, str) and verb != "train-teacher":
        folders += [model] if is_url(model) or Path(model).exists() else []
    for folder in folders:
        if is_url(folder):
            Remote.parse(folder)
        elif not folder.startswith(("/", "~", "hf-hub:")):
            raise usage_error(f"{folder}: {submission.STAYS}; give an absolute path that every node reaches")


def _named(verb: str, given: dict[str, Any]) -> list[Path]:
    """The other files that a command reads by relative paths; what else it names must be on the cluster."""
    from hard_ray.orchestration.jobs import checks as submission
    from hard_ray.orchestration.jobs.manifests import OF_RUN
    from hard_ray.storage.address import is_url

    _check_texts(verb, given)
    made = []
    for name, value in given.items():
        if name == "config" or (name == "data" and ("preset" in given or "space" in given)):
            continue
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and not path.is_absolute() and not is_url(path):
                if not path.is_file():
                    raise usage_error(f"{path}: {submission.STAYS}; give an absolute path that every node reaches")
                made.append(path)
    of_run = verb in OF_RUN and (given["model"].startswith("/") or is_url(given["model"]))
    writes = "output" in given and not (of_run or given.get("resume") or given.get("dry_run"))
    if writes and given["output"] is None:
        raise usage_error(f"give --output: {submission.STAYS}; want an absolute path that every node reaches")
    return made
