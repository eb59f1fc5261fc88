"""File systems of addresses: pyarrow's own for S3, Google, Azure and local files, fsspec's for the others."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from hard_ray.errors import StorageError
from hard_ray.storage.address import ALIASES, Remote

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0

PACKAGES = {"hf": "huggingface_hub", "az": "adlfs", "oss": "ossfs"}
"""The packages that fsspec needs, by scheme."""


def file_system(remote: Remote) -> tuple[FileSystem, str]:
    """The file system of an address, and the address's path in it.

    A file system is made once in a process: clients of S3 do not survive a fork.

    Raises:
        StorageError: a package is missing, or an option cannot be read.
    """
    try:
        system, base = _system(os.getpid(), remote.scheme, remote.authority, remote.query)
    except (OSError, ValueError, TypeError) as error:
        from hard_ray.storage.problems import problem

        raise problem(remote, error) from None
    return system, f"{base}/{remote.key}" if remote.key and base != "/" else f"{base}{remote.key}"


@functools.lru_cache(maxsize=64)
def _system(process: int, scheme: str, authority: str, query: tuple[tuple[str, str], ...]) -> tuple[FileSystem, str]:
    """A file system, and the path in it of an empty key."""
    from pyarrow import fs

    options: dict[str, Any] = dict(query)
    match ALIASES.get(scheme, scheme):
        case "file":
            return fs.LocalFileSystem(), "/"
        case "s3":
            return _s3(authority, options), authority
        case "gs":
            options["anonymous"] = _truth(options.get("anonymous", "false"))
            return fs.GcsFileSystem(**options), authority
        case "abfss":
            found = fs.FileSystem.from_uri(f"{scheme}://{authority}/{f'?{urlencode(options)}' if options else ''}")
            return found[0], str(found[1])
        case _:
            return _through_fsspec(scheme, authority, options), authority


def _s3(bucket: str, options: dict[str, Any]) -> FileSystem:
    from pyarrow import fs

    for name in ("connect_timeout", "request_timeout"):
        if name in options:
            options[name] = float(options[name])
    for name in ("anonymous", "force_virtual_addressing"):
        if name in options:
            options[name] = _truth(options[name])
    endpoints = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if "region" not in options:
        own = "endpoint_override" in options or any(map(os.environ.get, endpoints))
        named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        options["region"] = named if own else fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        # Retries are made above the client, where the length of a body is checked, too.
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        allow_delayed_open=True,  # a small object is then one request, and arrives whole or not at all
        **{"connect_timeout": CONNECT_TIMEOUT_S, "request_timeout": REQUEST_TIMEOUT_S, **options},
    )


def _through_fsspec(scheme: str, authority: str, options: dict[str, Any]) -> FileSystem:
    import fsspec
    from pyarrow import fs

    if "anon" in options:
        options["anon"] = _truth(options["anon"])
    try:
        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme, **options)))
    except ImportError:
        package = PACKAGES[scheme]
        raise StorageError(
            f"{scheme}://{authority} is read through the package {package}, which is not installed; run "
            f"`pip install {package}`"
        ) from None


def _truth(text: str) -> bool:
    return text.lower() in ("true", "1", "yes")
