"""Addresses of objects in buckets: parsed from URLs, without credentials.

Nothing here opens anything, and neither pyarrow nor NumPy is imported: configurations check addresses, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

from hard_ray.errors import StorageError, suggestion

SCHEMES = ("s3", "gs", "gcs", "abfss", "abfs", "hf", "az", "oss", "file")
"""The first four, `abfs` and `file` are pyarrow's own; the others come through fsspec."""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "s3": (
        "region", "endpoint_override", "scheme", "anonymous", "force_virtual_addressing", "role_arn", "session_name",
        "connect_timeout", "request_timeout", "tls_ca_file_path",
    ),
    "gs": ("endpoint_override", "scheme", "anonymous", "project_id", "target_service_account"),
    "abfss": (
        "account_name", "blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme",
        "client_id", "tenant_id",
    ),
    "hf": ("endpoint",),
    "az": ("account_name", "anon"),
    "oss": ("endpoint",),
    "file": (),
}  # fmt: skip
"""What a URL's query and `storage_options` may say, by scheme; none of it is secret."""

ALIASES: Mapping[str, str] = {"gcs": "gs", "abfs": "abfss"}

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_FOREIGN = ("s3a", "s3n", "wasb", "wasbs", "adl", "hdfs", "dbfs", "http", "https", "ftp", "ftps")
"""Schemes that people write and that cannot be read."""

_COLLAPSED = re.compile(rf"({'|'.join((*SCHEMES, *_FOREIGN))}):/(?!/)", re.IGNORECASE)
"""What pathlib makes of a URL: it joins two slashes to one."""

_COLLAPSED_INSIDE = re.compile(r"(?<=[=&?])(https?):/(?!/)", re.IGNORECASE)
"""The same of an address in the query."""

_SECRET = re.compile(r"key|secret|token|passw|pwd|sas|sig|cred", re.IGNORECASE)

_NO_CREDENTIALS = (
    "; credentials come from the environment (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or from the role of "
    "the node or service account: take it out"
)


def is_url(text: str | Path) -> bool:
    """Whether a text is a URL rather than a local path; also one whose `//` pathlib has joined to `/`."""
    return _URL.match(str(text)) is not None or _COLLAPSED.match(str(text)) is not None


def local_path(path: str | Path) -> Path:
    """A path where a URL is not taken; StorageError: it is a URL."""
    if is_url(path):
        raise StorageError(
            f"{_bare(_restored(str(path)))} is a URL, and this is read or written in a local folder; give a path"
        )
    return Path(path)


@dataclass(frozen=True, slots=True)
class Remote:
    """The address of an object, or of a folder of objects; `str()` gives a URL that `Remote.parse` reads back."""

    scheme: str
    authority: str
    """The bucket; for Azure `container@account.dfs.core.windows.net`; empty for `file`."""
    key: str
    """The name in the bucket, without a slash at either end and without URL encoding."""
    query: tuple[tuple[str, str], ...] = ()
    """Options of the file system, such as `region`, sorted by name."""

    @classmethod
    def parse(cls, url: str | Path, options: Mapping[str, object] | None = None) -> Remote:
        """Read a URL; names in it are percent-encoded as in every URL.

        Args:
            url: such as `s3://bucket/images?region=eu-west-1&endpoint_override=minio:9000&scheme=http`.
            options: `storage_options`; what the query says comes first.

        Raises:
            StorageError: it is no URL, its scheme or an option is unknown, or it holds a credential.
        """
        text = _restored(str(url))
        scheme, found, rest = text.partition("://")
        scheme = scheme.lower()
        if not found or scheme not in SCHEMES:
            raise StorageError(
                f"{_bare(text)} is no address that can be read; want a path, or a URL that begins with "
                f"{', '.join(f'{known}://' for known in SCHEMES)}"
            )
        place, _, query = rest.partition("?")
        authority, _, key = place.partition("/")
        _refuse_user(scheme, authority, text)
        if any(part in (".", "..") for part in unquote(key).split("/")):
            raise StorageError(f"{_bare(text)} leads to a folder above; name that folder itself")
        if not authority and scheme != "file":
            raise StorageError(f"{_bare(text)} names no bucket; want {scheme}://BUCKET/NAME")
        if authority and scheme == "file":
            raise StorageError(f"{_bare(text)} names a machine, {authority}; want file:///PATH")
        given = {name: _text(value) for name, value in (options or {}).items() if value is not None}
        given |= dict(parse_qsl(query, keep_blank_values=True))
        for name in given:
            _check_option(scheme, name, _bare(text))
        return cls(scheme, authority, _clean(unquote(key)), tuple(sorted(given.items())))

    def __truediv__(self, name: str) -> Remote:
        return replace(self, key="/".join(part for part in (self.key, _clean(name)) if part))

    @property
    def name(self) -> str:
        """The last part of the key; of a whole bucket, the bucket's name."""
        return self.key.rpartition("/")[2] or self.authority

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot, such as `.tar`; empty if there is none."""
        return Path(self.name).suffix

    @property
    def parent(self) -> Remote:
        """The folder that holds this one; a whole bucket is its own parent."""
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def shown(self) -> str:
        """The URL without its options, for messages."""
        return f"{self.scheme}://{self.authority}/{self.key}"

    @property
    def options(self) -> dict[str, str]:
        """The options of the file system by name."""
        return dict(self.query)

    def __str__(self) -> str:
        query = f"?{urlencode(self.query, safe=':/')}" if self.query else ""
        return f"{self.scheme}://{self.authority}/{quote(self.key, safe=_PLAIN)}{query}"


_PLAIN = "/!$'()*+,;:@=~"
"""Characters that a key may hold as they are."""


def _restored(text: str) -> str:
    """A URL with the slashes that pathlib took."""
    place, mark, query = text.partition("?")
    found = _COLLAPSED.match(place)
    if found is not None:
        place = f"{found[1]}://{'/' if found[1].lower() == 'file' else ''}{place[found.end() :]}"
    return place + _COLLAPSED_INSIDE.sub(r"\1://", mark + query)


def _clean(key: str) -> str:
    return key.strip("/")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bare(text: str) -> str:
    """A URL as a message may show it: without user, password and query."""
    scheme, found, rest = text.partition("?")[0].partition("://")
    place, slash, key = rest.partition("/")
    if ":" in place and "@" in key:  # a password with a slash
        return f"{scheme}{found}{rest.rpartition('@')[2]}"
    return f"{scheme}{found}{place.rpartition('@')[2]}{slash}{key}"


def _refuse_user(scheme: str, authority: str, text: str) -> None:
    user, found, _ = authority.rpartition("@")
    is_azure = ALIASES.get(scheme, scheme) == "abfss"
    if (found or ":" in authority) and not (is_azure and ":" not in user):
        if found or "@" in text:
            raise StorageError(f"{_bare(text)} was given with a user or password in it{_NO_CREDENTIALS}")
        raise StorageError(
            f"{_bare(text)} has a colon in the bucket's name; the address of a server is the option endpoint_override"
            f"{_NO_CREDENTIALS}"
        )


def _check_option(scheme: str, name: str, shown: str) -> None:
    known = OPTIONS[ALIASES.get(scheme, scheme)]
    if name in known:
        return
    if _SECRET.search(name):
        raise StorageError(f"{shown} was given with the credential {name}{_NO_CREDENTIALS}")
    tail = suggestion(name, known) if known else "it takes none"
    raise StorageError(f"{shown}: {scheme}:// has no option {name}; {tail}")
