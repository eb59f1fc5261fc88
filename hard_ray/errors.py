"""Errors whose text is written for the user."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence


def suggestion(got: str, known: Sequence[str], *, most: int = 1, otherwise: str | None = None) -> str:
    """`did you mean a or b?`; where nothing is close, `otherwise`, or all that is known."""
    close = difflib.get_close_matches(got, known, n=most)
    return f"did you mean {' or '.join(close)}?" if close else otherwise or f"there are {', '.join(known)}"


def readable(error: BaseException) -> str:
    """Another library's error in one line: its type and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


def command_line(*words: object) -> str:
    """A `hardray` command as a shell takes it: every command in a message is made by this, so that paths are quoted."""
    return shlex.join(["hardray", *map(str, words)])


class HardrayError(Exception):
    """A problem that the user can fix; the text says what was found, what is wanted and what to do."""

    exit_code = 1


class ConfigError(HardrayError):
    """All mistakes of one configuration."""

    exit_code = 2

    def __init__(self, problems: Sequence[str], source: str) -> None:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__("\n".join([f"{count} in {source}:", *(f"  {problem}" for problem in problems)]))
        self.problems = tuple(problems)


class DataError(HardrayError):
    """Images or labels that cannot be used."""


class StorageError(DataError):
    """An object or a bucket that cannot be used, read or written."""


class MissingObjectError(StorageError):
    """There is no object of this name."""


class DeniedError(StorageError):
    """The identity has no right to what it asked for; S3 says so of missing objects, too, where it may not list."""


class ModelError(HardrayError):
    """A network, checkpoint or class order that cannot be used."""


class ClusterError(HardrayError):
    """Ray cannot be reached, or lacks what the run needs."""


class TeacherError(HardrayError):
    """The teacher cannot answer, or is not the one that the run began with."""


class RunFolderError(HardrayError):
    """The output folder cannot be used, read or written."""


class AgreedError(HardrayError):
    """An error that every rank of a run raises at the same update, so that no rank waits for another."""


class DivergedError(AgreedError):
    """The loss is non-finite; every rank raises this at the same update."""


class SubmissionError(HardrayError):
    """A command that cannot be sent to a cluster as it is; nothing was sent."""

    exit_code = 2


class StoppedError(HardrayError):
    """The user stopped the run; the text says whether a checkpoint was written."""

    exit_code = 130
