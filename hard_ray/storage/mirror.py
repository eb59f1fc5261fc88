"""A folder kept at a URL: a local working copy, objects named by their content, and a manifest that is written last.

At the URL are `manifest.json`, which names every file with its size and SHA-256, and contents as `files/SHA256/NAME`.
A changed file gets a new object, so no object that the present manifest names is ever overwritten: an interrupted push
leaves the state before. An object is removed only when neither the present manifest nor the one before names it.

Several nodes may each have a working copy. Every copy remembers the state that it last agreed on with the URL; a push
sends what changed in the copy since then, and a pull takes what changed at the URL. The first manifest at a URL draws
an id that later ones keep: a copy of what was there before the URL was emptied is removed, and nothing of it is sent.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hard_ray.errors import MissingObjectError, StorageError
from hard_ray.files import cache_folder, read_json, write_json
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.cache import download

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = ".mirror.json"
"""The state of a working copy that was last agreed on with the URL."""
SMALL = 16 * 2**20
"""A file up to this size, in bytes, is hashed and sent from memory: it may be appended to meanwhile."""
MLFLOWS = ("mlflow.db", "mlartifacts")
"""Names of MLflow's database and files, which are beside the working copies."""
LOOKS = 5
"""How often a folder that changes while it is looked at is looked at again."""
LEFT_AFTER_S = 3600.0
"""An object that no manifest names and that is older than this was left by an interrupted push."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a manifest."""

    size: int
    sha256: str

    def key(self, name: str) -> str:
        """The object that holds it, relative to the URL."""
        return f"files/{self.sha256}/{PurePosixPath(name).name}"


Files = dict[str, Entry]


def working_copy(remote: Remote) -> Path:
    """The local folder of a URL on this machine, below hardray's cache folder.

    The copies of URLs in the same folder are in one folder, which holds MLflow's database of these runs.
    """
    if remote.name.startswith(MLFLOWS):
        raise StorageError(
            f"{remote.shown}: the name {remote.name} is one of MLflow's files beside runs; choose another"
        )
    beside = str(remote.parent) if remote.key else f"the whole of {remote}"
    digest = hashlib.sha256(beside.encode()).hexdigest()[:16]
    return cache_folder() / "runs" / digest / remote.name


def url_of(path: Path) -> str | None:
    """The URL of which a folder, or one of its parents, is the working copy; None: it is of none."""
    for folder in (path, *path.parents):
        if (folder / STATE).is_file():
            with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
                rest = path.relative_to(folder).as_posix()
                remote = Remote.parse(read_json(folder / STATE)["url"])
                return str(remote if rest == "." else remote / rest)
    return None


def shown_path(path: Path) -> str:
    """A folder as messages and commands name it: the URL, if it is the working copy of one."""
    return url_of(path) or str(path)


def is_mirrored(name: str) -> bool:
    """Whether a file belongs to the state: hidden files, requests to stop and Ray's own records do not."""
    parts = PurePosixPath(name).parts
    return not any(part.startswith(".") for part in parts) and parts[0] != "ray" and name != "stop"


@dataclass(slots=True)
class Mirror:
    """A URL and its working copy on this machine. One process at a time pushes; see `hard_ray.storage.lock`."""

    remote: Remote
    folder: Path
    check: Callable[[], None] = lambda: None
    """Called before a manifest is written; raises if another process owns the URL."""
    _thread: threading.Thread | None = field(init=False, default=None)
    _wanted: threading.Event = field(init=False, default_factory=threading.Event)
    _closing: bool = field(init=False, default=False)
    _problem: str | None = field(init=False, default=None)
    _named: set[str] | None = field(init=False, default=None)
    """Objects that earlier manifests name; None: nothing was pushed yet."""
    _id: str | None = field(init=False, default=None)
    """The id of the last manifest that was read or written; None: there was none, or it has none."""

    @classmethod
    def of(cls, remote: Remote) -> Mirror:
        """The mirror of a URL in this machine's working copy of it."""
        return cls(remote, working_copy(remote))

    def exists(self) -> bool:
        """Whether there is a state at the URL; StorageError: it cannot be asked."""
        return objects.stat(self.remote / MANIFEST) is not None

    def files(self) -> Files:
        """The files at the URL, by name, as its manifest has them now; StorageError: it cannot be read."""
        return self._manifest()[0]

    def is_found(self) -> bool:
        """Whether the manifest at the URL is that of a mirror; a copied folder may have a file of this name."""
        if not self.exists():
            return False
        try:
            text = json.loads(objects.read(self.remote / MANIFEST))
        except (MissingObjectError, ValueError):
            return False
        return isinstance(text, dict) and "serial" in text

    @classmethod
    def find(cls, remote: Remote) -> tuple[Mirror, str]:
        """The mirror that holds an address, and the address's name in it, such as `student`.

        Folders above the address that this identity may not read are passed over.

        Raises:
            MissingObjectError: neither the address nor a folder above it was written by a run.
            StorageError: the address itself cannot be read.
        """
        mirror, inside = cls.of(remote), ""
        if mirror.is_found():
            return mirror, inside
        while mirror.remote.key:
            inside = f"{mirror.remote.name}/{inside}".rstrip("/")
            mirror = cls.of(mirror.remote.parent)
            with contextlib.suppress(StorageError):
                if mirror.is_found():
                    return mirror, inside
        raise MissingObjectError(
            f"{remote.shown} holds no run: there is no {MANIFEST}, there or in a folder above; check the URL"
        )

    def push(self) -> bool:
        """Send what changed in the working copy, the manifest last; whether anything did.

        Raises:
            StorageError: something could not be sent; the URL shows the state before, and the next push sends it.
        """
        with self._locked():
            for _ in range(LOOKS):
                remote, serial = self._manifest()
                self._leave_earlier()
                base = self._state()[0]
                changed, removed, facts = self._changes(base)
                self._send(changed)
                if self._is_still_so(changed, facts):
                    break
            else:
                raise StorageError(f"{self.folder} changes faster than it can be sent; the next push tries again")
            new = {name: entry for name, entry in remote.items() if name not in removed} | changed
            if new != remote:
                self._write_manifest(new, serial + 1)
                self._tidy(remote, new)
            self._agree({name: entry for name, entry in base.items() if name not in removed} | changed, facts)
            return new != remote

    def pull(self, wanted: Callable[[str], bool] = lambda _: True) -> bool:
        """Bring what changed at the URL into the working copy; whether there is a state at the URL.

        A file that changed in the copy alone stays as it is.

        Args:
            wanted: chooses by name what is brought.

        Raises:
            StorageError: something could not be read or written; each file is as before or as at the URL.
        """
        with self._locked():
            for _ in range(LOOKS):  # a newer push may remove what an older manifest names
                remote, serial = self._manifest()
                self._leave_earlier()
                try:
                    self._bring({name: entry for name, entry in remote.items() if wanted(name)}, remote)
                except MissingObjectError:
                    if self._manifest()[1] == serial:
                        raise
                else:
                    return serial > 0
            raise StorageError(f"{self.remote.shown} changes faster than it can be read; try again")

    def match(self, part: Callable[[str], bool]) -> None:
        """Pull, and remove from the copy what the URL does not have, of the files whose names `part` accepts."""
        self.pull()
        with self._locked():
            remote, _ = self._manifest()
            for name in [name for name in _scan(self.folder) if part(name) and name not in remote]:
                (self.folder / name).unlink(missing_ok=True)

    def remove(self, part: Callable[[str], bool]) -> None:
        """Remove the files whose names `part` accepts, here and at the URL: they are made anew.

        Raises:
            StorageError: the URL cannot be read or written; nothing was removed there.
        """
        with self._locked():
            remote, serial = self._manifest()
            self._leave_earlier()
            base, facts = self._state()
            kept = {name: entry for name, entry in remote.items() if not part(name)}
            if kept != remote:
                self._write_manifest(kept, serial + 1)
                self._tidy(remote, kept)
            for name in filter(part, _scan(self.folder)):
                (self.folder / name).unlink(missing_ok=True)
            self._agree({name: entry for name, entry in base.items() if not part(name)}, facts)

    def adopt(self, files: Files) -> None:
        """Add files to the manifest whose contents other nodes have sent; the working copy need not have them.

        Raises:
            StorageError: the manifest could not be read or written; nothing was added.
        """
        with self._locked():
            remote, serial = self._manifest()
            self._leave_earlier()
            base, facts = self._state()
            self._write_manifest(remote | files, serial + 1)
            self._agree(base | files, facts)

    def push_later(self) -> None:
        """Push in the background, and return at once; if a push is under way, the newest state is pushed after it."""
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._push_wanted, name="mirror", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """End the background, and push the last state; StorageError: it could not be sent, and stays in the copy."""
        self._closing = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._closing = False
        self._wanted.clear()
        self.push()

    def _push_wanted(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closing:
                return
            try:
                self.push()
                self._problem = None
            except Exception as error:  # nothing here may end a training; what was not sent is sent later
                if self._problem is None:
                    logger.warning("%s; the files stay in %s and are sent with the next ones", error, self.folder)
                self._problem = str(error)

    def _leave_earlier(self) -> None:
        """Remove the working copy of what was at the URL before it was emptied, with what was not sent of it.

        The manifest was just read.
        """
        here = self._id_here()
        if here is None or self._id is None or here == self._id:
            return
        logger.warning(
            "%s holds another run than the copy in %s, which is removed: the URL was emptied and used again",
            self.remote.shown,
            self.folder,
        )
        for path in [path for path in self.folder.iterdir() if not path.name.startswith(".")]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        self._agree({}, {})

    def _id_here(self) -> str | None:
        """The id of the state that the copy last agreed on; None: none, or that of a version without ids."""
        try:
            found = read_json(self.folder / STATE, default={}).get("id")
        except (ValueError, AttributeError):
            return None
        return found if isinstance(found, str) else None

    def _manifest(self) -> tuple[Files, int]:
        """The files at the URL, and the serial number of their state; nothing and 0 where there is none."""
        try:
            text = json.loads(objects.read(self.remote / MANIFEST))
            files = {name: Entry(int(one["size"]), str(one["sha256"])) for name, one in text["files"].items()}
            serial = int(text["serial"])
            self._id = None if text.get("id") is None else str(text["id"])
        except MissingObjectError:
            self._id = None
            return {}, 0
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StorageError(f"{(self.remote / MANIFEST).shown} is no manifest of hardray; check the URL") from None
        for name, entry in files.items():
            inside = name and not name.startswith("/") and ".." not in PurePosixPath(name).parts
            if not inside or len(entry.sha256) != 64 or not is_mirrored(name):
                raise StorageError(f"{(self.remote / MANIFEST).shown} names a file outside its folder: {name!r}")
        return files, serial

    def _write_manifest(self, files: Files, serial: int) -> None:
        self.check()
        if self._id is None:
            self._id = secrets.token_hex(8)
        listed = {name: asdict(files[name]) for name in sorted(files)}
        text = {"format": 1, "id": self._id, "serial": serial, "files": listed}
        objects.write(self.remote / MANIFEST, json.dumps(text, indent=1).encode())

    def _state(self) -> tuple[Files, dict[str, list[int]]]:
        """The files last agreed on, and the facts of local files by which a change is noticed."""
        try:
            text = read_json(self.folder / STATE, default={})
            files = {name: Entry(one["size"], one["sha256"]) for name, one in text.get("files", {}).items()}
            return files, dict(text.get("facts", {}))
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}, {}

    def _agree(self, files: Files, facts: dict[str, list[int]]) -> None:
        listed = {name: asdict(one) for name, one in files.items()}
        text: dict[str, Any] = {"url": str(self.remote), "id": self._id, "files": listed}
        write_json(self.folder / STATE, {**text, "facts": {name: facts[name] for name in files if name in facts}})

    def _changes(self, base: Files) -> tuple[Files, set[str], dict[str, list[int]]]:
        """Files that differ from `base`, checkpoints that were deleted, and the facts of all that is there."""
        known = self._state()[1]
        found = _scan(self.folder)
        changed = Files()
        for name, facts in found.items():
            if known.get(name) == facts and name in base:
                continue
            entry = _entry(self.folder / name)
            if entry is not None and base.get(name) != entry:
                changed[name] = entry
        return changed, {name for name in base.keys() - found.keys() if self._is_pruned(name)}, found

    def _is_pruned(self, name: str) -> bool:
        """Whether a file is of a checkpoint that was deleted because there are newer ones.

        Other files that are missing were lost: cleaners of caches must not empty the bucket.
        """
        parts = PurePosixPath(name).parts
        if len(parts) < 3 or parts[-3] != "checkpoints":
            return False
        checkpoint = self.folder.joinpath(*parts[:-1])
        if checkpoint.exists() or not checkpoint.parent.is_dir():
            return False
        return any(other.name > checkpoint.name for other in checkpoint.parent.iterdir() if other.name[0] != ".")

    def _send(self, changed: Files) -> None:
        """Upload the contents of changed files; the entry of a file that grew meanwhile is made to fit."""
        for name, entry in list(changed.items()):
            path = self.folder / name
            try:
                if entry.size > SMALL:
                    there = objects.stat(self.remote / entry.key(name))  # of an earlier push that failed
                    if there is None or there.size != entry.size:
                        objects.write_file(self.remote / entry.key(name), path, size=entry.size)
                    continue
                content = path.read_bytes()
            except FileNotFoundError:
                return  # seen by `_is_still_so`
            changed[name] = now = Entry(len(content), hashlib.sha256(content).hexdigest())
            objects.write(self.remote / now.key(name), content)

    def _is_still_so(self, changed: Files, facts: dict[str, list[int]]) -> bool:
        """Whether what was sent belongs together: no file in a folder was replaced or deleted meanwhile."""
        for name in changed:
            try:
                now = _facts((self.folder / name).stat())
            except FileNotFoundError:
                return False
            if "/" in name and now[2] != facts[name][2]:
                return False
            if now != facts[name]:
                del facts[name]  # it is looked at again at the next push
        return True

    def _bring(self, files: Files, everything: Files) -> None:
        base, facts = self._state()
        for name, entry in files.items():
            path = self.folder / name
            if base.get(name) == entry and (path.exists() or self._is_pruned(name)):
                continue
            if _entry(path) != entry:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(f".{path.name}.pulled.tmp")
                temporary.touch()
                if download(self.remote / entry.key(name), entry.size, temporary) != entry.sha256:
                    temporary.unlink()
                    raise StorageError(f"{(self.remote / name).shown} is damaged: its checksum is not the manifest's")
                temporary.replace(path)
            base[name] = entry
            facts[name] = _facts(path.stat())
        for name in [name for name in base if name not in everything]:
            path = self.folder / name
            if _entry(path) == base[name]:
                path.unlink()
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
            del base[name]
        self._agree(base, facts)

    def _tidy(self, before: Files, now: Files) -> None:
        """Remove the objects that neither the present manifest nor the one before names; a failure is no error."""
        kept = {entry.key(name) for files in (before, now) for name, entry in files.items()}
        try:
            if self._named is None:
                listed = objects.listing(self.remote / "files")
                old = [one for one in listed if one.mtime is not None and time.time() - one.mtime > LEFT_AFTER_S]
                self._named = {f"files/{one.key}" for one in old}
            for key in self._named - kept:
                objects.delete(self.remote / key)
        except StorageError as error:
            logger.debug("old objects were not removed: %s", error)
        self._named = kept

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep the other processes and threads of this machine from the working copy."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".mirror.lock").open("a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StorageError(
                f"{error.filename or self.folder}, of the working copy of {self.remote.shown}, cannot be used "
                f"({error.strerror}); make room there, or set HARDRAY_CACHE to another folder"
            ) from None


def send_alone(remote: Remote, path: Path) -> Entry:
    """Send one file's content to where the manifest of a URL names it, for `Mirror.adopt`; StorageError: it failed."""
    entry = _entry(path)
    if entry is None:
        raise StorageError(f"{path} is gone, and was to be sent to {remote.shown}; give the command again")
    objects.write_file(remote / entry.key(path.name), path, size=entry.size)
    return entry


def _scan(folder: Path) -> dict[str, list[int]]:
    """The files of a folder by name, with the facts that tell a change."""
    found: dict[str, list[int]] = {}
    for parent, folders, files in os.walk(folder):
        inside = Path(parent).relative_to(folder)
        folders[:] = sorted(name for name in folders if is_mirrored((inside / name).as_posix()))
        for file in sorted(files):
            name = (inside / file).as_posix()
            if is_mirrored(name):
                with contextlib.suppress(FileNotFoundError):
                    found[name] = _facts((folder / name).stat())
    return found


def _facts(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _entry(path: Path) -> Entry | None:
    """The size and checksum of a file; None: it is gone."""
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return Entry(stream.tell(), digest)
    except (FileNotFoundError, NotADirectoryError):
        return None
