"""The files of a working directory that go to a cluster with a command: small text files without secrets.

Only allowed kinds of files are sent. Each file left out has a reason that can be shown, and no message contains a
secret: it names the file, the line and the key.
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
"""Suffixes of files that a command reads: configurations, spaces, class names, losses."""

LARGEST_FILE = 256 * 1024
LARGEST_PACKAGE = 8 * 1024 * 1024
MOST_FILES = 1000
"""The most entries of a folder; one with more holds data."""


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
    """A file, or several of a kind, that is not sent."""

    path: str
    """Relative to the working directory; a pattern if it stands for several files."""
    reason: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Package:
    """The files of a working directory that are sent, and those that are not."""

    folder: Path
    files: tuple[Path, ...]
    """Relative to the folder, sorted."""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def size(self) -> int:
        """The total size of the files in bytes."""
        return sum((self.folder / path).stat().st_size for path in self.files)

    def write(self, path: Path) -> None:
        """Write a zip file whose bytes depend only on names and contents."""
        with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as made:
            for name in self.files:
                made.writestr(zipfile.ZipInfo(name.as_posix()), (self.folder / name).read_bytes())


def choose(folder: Path, named: Iterable[Path], *, whole: bool) -> Package:
    """Choose the files to send: those `named`, relative to the folder, and if `whole` other small text files as well.

    Raises SubmissionError if a needed file is missing or must not be sent, or the files are too large.
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
    """Yield each path of a folder with the reason why it is not sent, or None; folders left out are not entered."""
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
    """The reason why nothing of a folder is sent, if any."""
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
    """The reason why a file is not sent, if any."""
    if is_secret_name(path.name):
        return "its name is that of a secret"
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in TEXTS:
        return f"not a text file that hardray reads ({', '.join(TEXTS)})"
    return _unfit(path)


def _unfit(path: Path) -> str | None:
    """The reason in its size or content why a text file is not sent, if any."""
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
        return parse_yaml(text, "the file", reading="tolerant")
    except ConfigError:
        return None


def _joined(left_out: Sequence[LeftOut]) -> Iterator[LeftOut]:
    """Join many files of a kind in one folder into one entry."""
    groups: dict[tuple[str, str, str], list[LeftOut]] = defaultdict(list)
    for item in left_out:
        path = Path(item.path)
        groups[str(path.parent), path.suffix, item.reason].append(item)
    for (parent, suffix, reason), items in groups.items():
        if len(items) <= 3:
            yield from items
        else:
            yield LeftOut((Path(parent) / f"*{suffix}").as_posix(), reason, len(items))
