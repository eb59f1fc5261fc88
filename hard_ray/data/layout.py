"""Kinds of files by name and content: images, images that cannot be read, hidden files, and everything else."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from hard_ray.errors import DataError

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"]
)

UNREADABLE_SUFFIXES = frozenset(
    [
        *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".svg", ".svgz", ".psd", ".psb", ".xcf", ".ai"),
        *(".eps", ".ps", ".exr", ".hdr", ".tga", ".pcx", ".ico", ".icns", ".dds", ".dcm", ".raw", ".cr2"),
        *(".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2", ".raf", ".pef"),
        *(".srw", ".x3f", ".erf", ".kdc", ".mrw", ".3fr", ".mef", ".mos"),
    ]
)
"""Images of formats that are not decoded; several of the cameras' begin as TIFF files do."""

OTHER_SUFFIXES = frozenset(
    [
        *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".md", ".rst"),
        *(".html", ".htm", ".pdf", ".log", ".py", ".ipynb", ".sh", ".m", ".mat", ".npy", ".npz", ".pkl"),
        *(".pt", ".pth", ".h5", ".hdf5", ".db", ".sqlite", ".parquet", ".arrow", ".mp4", ".avi", ".mov"),
        *(".mkv", ".webm", ".wav", ".mp3", ".cls", ".bbox", ".caf", ".lock", ".md5", ".sha256", ".crc"),
        *(".url", ".lnk", ".ini", ".cfg"),
    ]
)
"""Usual neighbours of images; files with other suffixes are opened to see whether they hold an image."""

ARCHIVE_SUFFIXES = frozenset([".tar", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"])

TEMPORARY_SUFFIXES = frozenset(
    [
        *(".part", ".partial", ".crdownload", ".download", ".incomplete", ".aria2", ".tmp", ".temp"),
        *(".swp", ".bak", ".orig", ".old"),
    ]
)

SYSTEM_NAMES = frozenset(
    [
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "__pycache__"),
        *("@eadir", "@__thumb", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "lost+found"),
        *("$recycle.bin", "recycler", "system volume information", "network trash folder", "temporary items"),
    ]
)
"""Files and folders that operating systems and storage devices make, in lower case."""

HIDDEN = "hidden, or made by an operating system"
TEMPORARY = "a temporary or backup file"
NO_IMAGE = "no image"
ARCHIVE = "an archive, which is not unpacked"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden (`.DS_Store`, `._x.jpg`), or made by an operating system (`@eaDir`)."""
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in SYSTEM_NAMES


def suffix_of(name: str) -> str:
    """The last suffix of a name in lower case, with its dot; empty if there is none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def suffix_among(suffixes: Collection[str]) -> Callable[[str], str]:
    """A function that gives a name's suffix, in lower case and with its dot, if it is one of these; else nothing.

    It is asked for each of millions of files, whose suffixes are few.
    """
    known: dict[str, str] = {}

    def among(name: str) -> str:
        end = name.rpartition(".")[2]
        if end not in known:
            known[end] = suffix if (suffix := f".{end.lower()}") in suffixes else ""
        return known[end] if len(end) + 1 < len(name) else ""

    return among


def why_no_image(name: str) -> str | None:
    """The reason why a file is not taken for an image, by its name; empty if it is one, None if its content decides."""
    suffix = suffix_of(name)
    if is_hidden(name):
        return HIDDEN
    if suffix in IMAGE_SUFFIXES:
        return ""
    if suffix in UNREADABLE_SUFFIXES:
        return f"{suffix} images are not read: convert them to JPEG or PNG"
    if suffix in TEMPORARY_SUFFIXES or name.endswith("~"):
        return TEMPORARY
    if suffix in ARCHIVE_SUFFIXES:
        return ARCHIVE
    return NO_IMAGE if suffix in OTHER_SUFFIXES else None


HEAD = 32
"""Bytes at the beginning of a file by which its format is known."""

_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM....\0\0\0\0|RIFF....WEBP|II\*\0|MM\0\*|P[1-6]\s+[#\d]"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xffO\xffQ|....ftypavi[fs]",
    re.DOTALL,
)
_MAGIC_UNREADABLE = re.compile(
    rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1|crx )|8BPS|\xff\x0a|\0\0\0\x0cJXL |%!PS|v/1\x01", re.DOTALL
)


def why_no_image_inside(head: bytes) -> str:
    """The reason why content is no image that can be read, from its first `HEAD` bytes; empty if it is one."""
    if _MAGIC.match(head):
        return ""
    return (
        "an image of a format that is not read: convert it to JPEG or PNG"
        if _MAGIC_UNREADABLE.match(head)
        else NO_IMAGE
    )


def require_folder(path: Path) -> Path:
    """The absolute path of a folder; raises DataError if it does not exist, or is not a folder."""
    folder = path.expanduser()
    if not folder.exists():
        raise DataError(f"data.path {path}: there is no such folder; set data.path to the folder of the data")
    if not folder.is_dir():
        raise DataError(f"data.path {path}: want a folder, this is a file; set data.path to the folder that holds it")
    return folder.resolve()


def some(names: Sequence[str]) -> str:
    """The first ten names, for a message."""
    shown = ", ".join(repr(name) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "nothing"
