"""What of a working directory goes to a cluster with a command: small text files, and nothing that is secret.

A file is sent because it is allowed, never because nothing forbids it. What is left out has a reason that can be
shown, and no message holds a secret: it names the file, the line and the key.
"""

from __future__ import annotations

import os
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.errors import ConfigError, SubmissionError
from hard_ray.redaction import is_secret_name, secret_of_file

TEXTS = (".yaml", ".yml", ".json", ".txt", ".toml")
"""Suffixes of what a command reads: configurations, spaces, class names, losses."""

LARGEST_FILE = 256 * 1024
LARGEST_PACKAGE = 8 * 1024 * 1024
MOST_FILES = 1000
"""In one folder; more are data."""


FOLDERS = {
    "runs": "runs stay where they are",
    "mlruns": "records of MLflow",
    "mlartifacts": "records of MLflow",
    "data": "data are not sent",
    "datasets": "data are not sent",
    "checkpoints": "weights are not sent",
    "__pycache__": "made by Python",
    "node_modules": "installed packages",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is not sent."""

    path: str
    """Below the working directory; a pattern where it stands for several files."""
    reason: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Package:
    """What is sent of a working directory, and what is not."""

    folder: Path
    files: tuple[Path, ...]
    """Below the folder, in order."""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.folder / path).stat().st_size for path in self.files)

    def write(self, path: Path) -> None:
        """As a zip file whose bytes are a function of names and contents alone."""
        with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as made:
            for name in self.files:
                made.writestr(zipfile.ZipInfo(name.as_posix()), (self.folder / name).read_bytes())


def choose(folder: Path, named: Iterable[Path], *, whole: bool) -> Package:
    """Decide what is sent.

    Args:
        folder: the working directory.
        named: files of it that the command reads, relative to it.
        whole: whether its other small text files are sent as well.

    Raises:
        SubmissionError: a file that the command needs is not there, or must not be sent.
    """
    folder = folder.resolve()
    files, left_out = set(named), list[LeftOut]()
    for path in files:
        _check_needed(folder, path)
    if whole:
        for path, reason in _walk(folder):
            if path in files:
                continue
            if reason is None:
                files.add(path)
            else:
                left_out.append(LeftOut(f"{path.as_posix()}/" if (folder / path).is_dir() else path.as_posix(), reason))
    package = Package(folder, tuple(sorted(files)), tuple(_joined(left_out)))
    if package.size > LARGEST_PACKAGE:
        raise SubmissionError(
            f"the text files of {folder} have {package.size:,} bytes, more than the {LARGEST_PACKAGE:,} that are "
            "sent; name a smaller folder with --working-dir"
        )
    return package


def _check_needed(folder: Path, path: Path) -> None:
    """Raises: a file that the command names cannot be sent."""
    whole = folder / path
    if not whole.is_file():
        raise SubmissionError(
            f"{path}: there is no such file in {folder}; what the command reads by a relative path is sent from there"
        )
    if not whole.resolve().is_relative_to(folder):
        raise SubmissionError(f"{path} lies outside of {folder}; name a folder that holds it with --working-dir")
    reason = _refused(whole)
    if reason is not None:
        raise SubmissionError(f"{path} is not sent: {reason}; {_advice(reason)}")


def _advice(reason: str) -> str:
    if "size" in reason:
        return "put it where every node reaches it, and give its absolute path"
    return "take it out and give it by --env, such as --env MLFLOW_TRACKING_URI"


def _walk(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Everything of a folder with the reason why it is not sent; None: it is. Folders left out are not entered."""
    for place, inner, names in os.walk(folder):
        here = Path(place)
        for name in sorted(inner):
            reason = _closed(here / name)
            if reason is not None:
                inner.remove(name)
                yield (here / name).relative_to(folder), reason
        inner.sort()
        for name in sorted(names):
            path = here / name
            yield path.relative_to(folder), "a link" if path.is_symlink() else _refused(path)


def _closed(folder: Path) -> str | None:
    """Why nothing of a folder is sent."""
    known = {
        "a link": folder.is_symlink(),
        "hidden": folder.name.startswith("."),
        FOLDERS.get(folder.name.lower(), ""): folder.name.lower() in FOLDERS,
        "a virtual environment": (folder / "pyvenv.cfg").exists(),
        "a run": any((folder / name).exists() for name in ("metrics.jsonl", "outcome.json", "trials")),
    }
    return next((reason for reason, holds in known.items() if holds), None) or _too_full(folder)


def _too_full(folder: Path) -> str | None:
    try:
        with os.scandir(folder) as entries:
            many = sum(1 for _ in entries) > MOST_FILES
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"more than {MOST_FILES:,} entries: data are not sent" if many else None


def _refused(path: Path) -> str | None:
    """Why a file is not sent."""
    if is_secret_name(path.name):
        return "its name is that of a secret"
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in TEXTS:
        return f"not a text file that hardray reads ({', '.join(TEXTS)})"
    return _unfit(path)


def _unfit(path: Path) -> str | None:
    """Why a text file is not sent for what it holds."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return f"its size is above {LARGEST_FILE // 1024} KiB"
        text = path.read_text(encoding="utf-8")
        return secret_of_file(text, _parsed(text))
    except UnicodeDecodeError:
        return "not text"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _parsed(text: str) -> Any:
    try:
        return parse_yaml(text, "the file", repeated_keys=True)
    except ConfigError:
        return None


def _joined(left_out: Sequence[LeftOut]) -> Iterator[LeftOut]:
    """Many files of a kind in one folder become one line."""
    groups: dict[tuple[str, str, str], list[LeftOut]] = defaultdict(list)
    for item in left_out:
        path = Path(item.path)
        groups[str(path.parent), path.suffix, item.reason].append(item)
    for (parent, suffix, reason), items in groups.items():
        if len(items) <= 3:
            yield from items
        else:
            yield LeftOut((Path(parent) / f"*{suffix}").as_posix(), reason, len(items))


# ------------------------------------------------------------------------- secrets
