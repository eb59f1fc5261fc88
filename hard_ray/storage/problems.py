"""What the errors of file systems mean, in one sentence each, and which of them pass by themselves."""

from __future__ import annotations

import errno
import re

from hard_ray.errors import DeniedError, MissingObjectError, StorageError
from hard_ray.redaction import masked
from hard_ray.storage.address import Remote

_PASSING = re.compile(
    r"SLOW_?DOWN|THROTTL|TOO_?MANY_?REQUESTS|SERVICE_?UNAVAILABLE|INTERNAL_?(?:FAILURE|ERROR|SERVER)|REQUEST_?TIMEOUT"
    r"|NETWORK_CONNECTION|HTTP status (?:429|5\d\d)|\b(?:429|50[0234])\b(?! bytes)|\bRESET|TIMED? ?OUT|TRUNCATED"
    r"|CONNECTION (?:ABORTED|BROKEN)|INCOMPLETE ?READ|CURLCODE: (?:18|52|55|56|92)\b|UNAVAILABLE",
    re.IGNORECASE,
)

_NO_NETWORK = re.compile(
    r"curlCode: (?:5|6|7)\b|resolve host|Name or service not known|name resolution|Connection refused|unreachable",
    re.IGNORECASE,
)

_CREDENTIALS = "; renew what the environment holds, or the role of the node or service account"

_DENIED = re.compile(
    r"ACCESS_?DENIED|HTTP status 40[13]\b|\b40[13] (?:Client|Forbidden|Unauth)|PERMISSION|GatedRepo", re.IGNORECASE
)

_MEANINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"EXPIRED_?TOKEN|token (?:has |is )?expired|REQUEST_?EXPIRED|TokenRefreshRequired|invalid_grant", re.I
        ),
        f"{{what}}: the credentials have expired{_CREDENTIALS}",
    ),
    (
        re.compile(
            r"INVALID_?ACCESS_?KEY|INVALID_?CLIENT_?TOKEN|UNRECOGNIZED_?CLIENT|InvalidToken|INVALID_?TOKEN", re.I
        ),
        f"{{what}}: the server does not know these credentials{_CREDENTIALS}",
    ),
    (
        re.compile(r"SIGNATURE_?DOES_?NOT_?MATCH|INVALID_?SIGNATURE", re.I),
        f"{{what}}: the secret key does not belong to the access key{_CREDENTIALS}",
    ),
    (
        re.compile(r"TIME_?TOO_?SKEWED|IN_?THE_?FUTURE", re.I),
        "{what}: this machine's clock is wrong; set it, the server refuses requests whose time is off",
    ),
    (
        re.compile(r"no credentials|could not (?:find|create) (?:default )?credentials|MISSING_?AUTHENTICATION", re.I),
        "{what}: there are no credentials; set them in the environment, give the node or service account a role, or "
        "say ?anonymous=true for a public bucket",
    ),
    (
        _DENIED,
        "{what}: access is denied; allow this identity to list, read and, for runs, write there (the environment's "
        "credentials, or the role of the node or service account)",
    ),
    (
        re.compile(r"NO_?SUCH_?BUCKET|bucket does not exist|RepositoryNotFound|ContainerNotFound", re.I),
        "{what}: there is no bucket {bucket}; check the name and the endpoint",
    ),
    (
        re.compile(r"PERMANENT_?REDIRECT|HTTP status 30[17]\b|AuthorizationHeaderMalformed", re.I),
        "{what}: the bucket is in another region; add ?region=REGION to the URL",
    ),
)

_MISSING = re.compile(r"NO_?SUCH_?KEY|RESOURCE_NOT_FOUND|HTTP status 404|EntryNotFound|BlobNotFound", re.I)


def is_passing(error: BaseException) -> bool:
    """Whether an error may be gone at the next try: throttling, a reset, a truncated body."""
    return not isinstance(error, FileNotFoundError) and _PASSING.search(_without_names(str(error))) is not None


def is_no_network(error: BaseException) -> bool:
    """Whether the server could not be reached at all."""
    return _NO_NETWORK.search(_without_names(str(error))) is not None


def is_missing(error: BaseException) -> bool:
    """Whether an object was not found."""
    return isinstance(error, FileNotFoundError) or _MISSING.search(_without_names(str(error))) is not None


def _without_names(text: str) -> str:
    """An error's text without the quoted names of buckets and keys, which may be words such as `presets`."""
    return re.sub(r"'[^'\n]*'", "''", text)


def problem(remote: Remote, error: BaseException) -> StorageError:
    """The sentence for an error; it holds no secret, since the address holds none and the error's text is masked."""
    if isinstance(error, StorageError):
        return error
    text = str(error)
    told = _without_names(text)
    for pattern, meaning in _MEANINGS:
        if pattern.search(told):
            kind = DeniedError if pattern is _DENIED else StorageError
            return kind(meaning.format(what=remote.shown, bucket=remote.authority))
    return _other(remote, error, _reason(text) or type(error).__name__)


def _other(remote: Remote, error: BaseException, reason: str) -> StorageError:
    if is_no_network(error):
        meaning = "the server cannot be reached; check the network, and endpoint_override if it is set"
    elif is_missing(error):
        return MissingObjectError(f"{remote.shown} does not exist; check the name")
    elif is_passing(error):
        meaning = f"the server kept failing ({reason}); give the command again later, it goes on from what is there"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        meaning = "it cannot be written, the disk is full; make room"
    else:
        meaning = f"it cannot be used: {reason}"
    return StorageError(f"{remote.shown}: {meaning}")


def _reason(text: str) -> str:
    """The telling part of a file system's error, in one line."""
    line = masked((text.strip() or "no reason given").splitlines()[0])
    found = re.search(r"AWS Error .*", line)
    line = re.sub(r"\s*\(Request ID: [^)]*\)", "", found[0] if found else line)
    return line if len(line) <= 200 else f"{line[:200]}..."
