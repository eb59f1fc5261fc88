"""Where data lie: a local folder, or the URL of one in a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, InstanceOf, PlainSerializer, WithJsonSchema

from hard_ray.errors import StorageError
from hard_ray.storage.address import Remote, is_url

StorageOptions = Mapping[str, str | int | float | bool]


def address_or_path(path: str | Path) -> Path | Remote:
    """What a path of the command line means; raises StorageError if it is a URL that cannot be read."""
    found: Path | Remote = Remote.parse(path) if is_url(path) else Path(path)
    return Path(f"/{found.key}") if isinstance(found, Remote) and found.scheme == "file" else found


def _address(value: Any) -> Any:
    """A URL as an address, of local files as a path; anything else as it is."""
    if not isinstance(value, str | Path) or not is_url(value):
        return value
    try:
        return address_or_path(value)
    except StorageError as error:
        raise ValueError(str(error)) from None


def _text(value: Path | Remote) -> str:
    return str(value)


DataPath = Annotated[
    Path | Annotated[InstanceOf[Remote], WithJsonSchema({"type": "string", "format": "uri"})],
    BeforeValidator(_address),
    PlainSerializer(_text, return_type=str, when_used="json"),
]
"""A path, or a URL such as `s3://bucket/images`."""


def checked_model(name: str) -> str:
    """A model's name; the URL in `local-dir:URL` must be one that can be read."""
    source, _, place = name.partition(":")
    if source == "local-dir" and is_url(place):
        try:
            return f"{source}:{Remote.parse(place)}"
        except StorageError as error:
            raise ValueError(str(error)) from None
    return name


ModelName = Annotated[str, AfterValidator(checked_model)]
"""The name of a model: timm's, `hf-hub:ORG/NAME`, or `local-dir:` and a folder or the URL of one."""


def with_options(path: Path | Remote, options: StorageOptions) -> Path | Remote:
    """An address with the options of its file system; raises ValueError if it has no such options, or is a path."""
    if not options:
        return path
    if isinstance(path, Path):
        raise ValueError(f"storage_options are those of a bucket, and path {path} is local; leave them out")
    try:
        return Remote.parse(str(path), options)
    except StorageError as error:
        raise ValueError(str(error)) from None


def local_only(value: Any) -> Any:
    """Refuse a URL where a local folder is wanted; raises ValueError."""
    if isinstance(value, str | Path) and is_url(value):
        raise ValueError(
            f"{value} is a URL, and this is read from a local folder; copy it, or use data.kind=image_folder, images, "
            "parquet or webdataset, which are read from buckets"
        )
    return value
