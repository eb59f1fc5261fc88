"""What a file or folder is that was given as weights, told from its content, and what to do if it holds none."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HEAD = 4096
"""Bytes at the start of a file that are looked at."""
LARGEST_HEADER = 100_000_000
"""Largest header of a safetensors file, in bytes; its own reader allows no more."""
WANTED = "want a safetensors file, or a torch file of model.state_dict()"
AGAIN = "download or copy it again"
SAVE = "load it where it was made, and save model.state_dict() alone"

Format = Literal["safetensors", "torch", "unknown"]


@dataclass(frozen=True, slots=True)
class FileKind:
    """How a file can be read, or why it holds no weights and what to do."""

    format: Format
    problem: str = ""
    """What the file is; empty if a reader of `format` is to try it."""
    remedy: str = ""


def no_weights(what: str, remedy: str) -> FileKind:
    """The kind of a file that holds no weights."""
    return FileKind("unknown", what, remedy)


def path_problem(path: Path) -> FileKind | None:
    """Why a path is no readable file; None if it is one."""
    if path.is_symlink() and not path.exists():
        return no_weights(f"it is a link to {path.readlink()}, where nothing is", "put the file there, or name another")
    if path.is_dir():
        return folder_kind(path)
    if not path.exists():
        return no_weights("there is no such file", "look at the path")
    if not path.is_file():
        return no_weights("it is no regular file", "name a file")
    return None


def folder_kind(folder: Path) -> FileKind:
    """What a folder is that was given where a file of weights is wanted."""
    names = {entry.name for entry in folder.iterdir()}
    problem = _foreign_folder(names)
    if problem is not None:
        return problem
    if "config.json" in names and names & {"model.safetensors", "pytorch_model.bin"}:
        return no_weights("it is a folder in timm's layout", "give it as teacher.checkpoint or student.checkpoint")
    if (folder / "student" / "config.json").is_file():
        return no_weights("it is the folder of a run", f"give the student in it, {folder / 'student'}")
    files = sorted(name for name in names if Path(name).suffix in SUFFIXES)
    hint = f"name a file in it, such as {folder / files[0]}" if files else "name a file of weights"
    return no_weights("it is a folder", hint)


SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".th", ".tar")


def _foreign_folder(names: set[str]) -> FileKind | None:
    """The kind of a folder that another tool wrote as a checkpoint in parts; None if it is none."""
    if "zero_to_fp32.py" in names or any(name.startswith("mp_rank_") for name in names):
        return no_weights("it is a checkpoint of DeepSpeed in parts", "join them: python zero_to_fp32.py FOLDER OUTPUT")
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return no_weights(
            "it is a distributed checkpoint (FSDP) in parts",
            "join them: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE",
        )
    if any(name.endswith(".index.json") for name in names):
        return no_weights("its weights are in several parts", f"join them in one file: {JOIN}")
    if "saved_model.pb" in names:
        return no_weights("it is a model of TensorFlow", "convert it to a state dict of PyTorch")
    return None


_PART = re.compile(r"-(\d{5})-of-(\d{5})\.")
"""The end of the name of a file that holds a part of a model's weights."""
JOIN = "load all parts into the model, and save model.state_dict()"


def file_kind(path: Path) -> FileKind:
    """Look at a file's name and content; raises OSError if it cannot be read."""
    part = _PART.search(path.name)
    if part is not None and int(part[2]) > 1:
        return no_weights(
            f"it is part {int(part[1])} of {int(part[2])} of the weights", f"join them in one file: {JOIN}"
        )
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if not size:
        return no_weights("it is empty", AGAIN)
    if not any(head):
        return no_weights(f"it begins with {len(head):,} zeros, as a file does that was not written to its end", AGAIN)
    return _text(path, head) or _packed(path, head) or _foreign(head) or _binary(head, size)


def _text(path: Path, head: bytes) -> FileKind | None:
    """The kind of a text file; None if it is none."""
    text = _decoded(head)
    if text is None:
        return None
    start = text.lstrip().lower()
    for marks, what, remedy in _TEXTS:
        if start.startswith(marks):
            return no_weights(what, remedy)
    if start.startswith(("{", "[")):
        return _json(path)
    first = " ".join(text.split())[:40]
    return no_weights(f"it is a text file that begins with {first!r}", "name the file of the weights")


_POINTER = "it is a pointer of {}, not the file that it stands for"
_TEXTS = (
    (("version https://git-lfs",), _POINTER.format("Git LFS"), "fetch the file: git lfs pull"),
    (("/annex/objects/", "../.git/annex"), _POINTER.format("git-annex"), "fetch the file: git annex get"),
    (("outs:", "md5:"), _POINTER.format("DVC"), "fetch the file: dvc pull"),
    (
        ("<!doctype html", "<html", "<head", "<!--", "<?xml", "<error"),
        "it is a web page, as a download gives that needs a login or another address",
        "download the file itself",
    ),
)
"""Beginnings of texts that stand where a file of weights should, what they are, and what to do."""


def _decoded(head: bytes) -> str | None:
    """The text of a file's start; None if it is binary."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head.decode("utf-16", errors="replace")
    else:
        if b"\0" in head:
            return None
        text = head.decode("utf-8-sig", errors="replace")
    strange = sum(not char.isprintable() and not char.isspace() for char in text) + text.count("\ufffd")
    return text if strange <= len(text) // 50 else None


def _json(path: Path) -> FileKind:
    """The kind of a file of JSON: an index of parts, the answer of a server, or settings."""
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size < LARGEST_HEADER else None
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and isinstance(content.get("weight_map"), dict):
        parts = len({str(part) for part in content["weight_map"].values()})
        return no_weights(
            f"it is an index of weights in {parts} part{'s' if parts != 1 else ''}", f"join them in one file: {JOIN}"
        )
    if isinstance(content, dict) and ("error" in content or "message" in content):
        said = str(content.get("error") or content.get("message"))[:80]
        return no_weights(f"it is a server's answer in place of the file: {said!r}", "download the file itself")
    return no_weights("it is JSON, not weights", "name the file of the weights beside it")


_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_ARCHIVES = {b"7z\xbc\xaf": "7z", b"Rar!": "RAR"}


def _packed(path: Path, head: bytes) -> FileKind | None:
    """The kind of a compressed file or an archive; None if it is neither."""
    for start, name in {**_PACKED, **_ARCHIVES}.items():
        if head.startswith(start):
            return no_weights(f"it is compressed by {name}", "unpack it, and name the file in it")
    if head.startswith(b"PK"):
        return _zip(path)
    if head[257:262] == b"ustar":
        return _tar(path)
    return None


def _zip(path: Path) -> FileKind:
    """The kind of a zip archive, which torch's own format is."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return no_weights(
            f"it is a torch file or zip archive whose end is missing; {path.stat().st_size:,} bytes are there", AGAIN
        )
    inner = {name.partition("/")[2] or name for name in names}
    if "data.pkl" in inner and "constants.pkl" not in inner:
        return FileKind("torch")
    for marks, what, remedy in _IN_ZIP:
        if any(name.endswith(marks) for name in inner | set(names)):
            return no_weights(what, remedy)
    return no_weights(
        f"it is a zip archive of {names[0]!r} and others" if names else "it is an empty zip archive", UNZIP
    )


_IN_ZIP = (
    (
        ("constants.pkl",),
        "it is a TorchScript program, not weights alone",
        "load it with torch.jit.load, and save its state_dict()",
    ),
    (
        ("archive_format", "serialized_exported_program.json"),
        "it is a program of torch.export",
        "load it with torch.export.load, and save its state_dict",
    ),
    (
        (".npy",),
        "it holds arrays of NumPy, as JAX's weights are kept",
        "load it with model.load_pretrained of timm, and save model.state_dict()",
    ),
    (
        (".weights.h5", "saved_model.pb", "keras_metadata.pb"),
        "it is a model of Keras or TensorFlow",
        "convert it to a state dict of PyTorch",
    ),
)
"""Ends of names in a zip archive, what the archive is, and what to do."""
UNZIP = "unpack it, and name the file in it"


def _tar(path: Path) -> FileKind:
    try:
        with tarfile.open(path, "r:") as archive:
            names = [archive.next() for _ in range(8)]
    except (tarfile.TarError, OSError, EOFError, ValueError):
        names = []
    inner = {Path(member.name).name for member in names if member is not None}
    if {"storages", "tensors"} & inner:
        return no_weights("it is in torch's format before version 0.1.10", "load and save it again with torch 1.x")
    return no_weights("it is a tar archive", UNZIP)


_STARTS = (
    (
        b"\x89HDF\r\n\x1a\n",
        "it is an HDF5 file, as Keras and TensorFlow write",
        "convert it to a state dict of PyTorch",
    ),
    (b"\x93NUMPY", "it is one array of NumPy", "name the file of the weights"),
    (b"GGUF", "it is a quantised model (GGUF)", "name the model that it was made from"),
    (b"\x89PNG", "it is a picture", "name the file of the weights"),
    (b"\xff\xd8\xff", "it is a picture", "name the file of the weights"),
)
"""First bytes of other files, what they are, and what to do."""


def _foreign(head: bytes) -> FileKind | None:
    """The kind of a file of another program; None if it is none that is known."""
    for start, what, remedy in _STARTS:
        if head.startswith(start):
            return no_weights(what, remedy)
    if head[4:8] == b"TFL3":
        return no_weights("it is a model of TensorFlow Lite", "name the PyTorch model that it was made from")
    is_onnx = head[0] == 0x08 and head[1] < 0x20 and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a")
    if is_onnx:
        return no_weights("it is a graph of ONNX, whose layers have other names", "name the model it was exported from")
    return None


def _binary(head: bytes, size: int) -> FileKind:
    """Safetensors, torch's format before zip archives, or neither."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 0 < length <= LARGEST_HEADER:
        return (
            FileKind("safetensors")
            if length + 8 <= size
            else no_weights(f"it is a safetensors file that is cut off; {size:,} bytes are there", AGAIN)
        )
    if head[0] == 0x80 and head[1] <= 5:
        if TORCH_MAGIC in head[:32]:
            return FileKind("torch")
        return no_weights("it is a pickle of Python, which would have to be run", SAVE)
    return no_weights(f"it is of no known format; it begins with the bytes {head[:8].hex(' ')}", AGAIN)


TORCH_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")
"""The number that torch's format before zip archives begins with."""
