"""Keep secrets out of messages, logs and uploads: in addresses, in texts, and in the names of files."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator
from typing import Any

_USER = re.compile(r"(?<=://)(?:[^\s/]*|[^\s/@:]*:(?!\d+/)[^\s@'\"]*)@")
"""User and password of an address, up to the last @: a password may contain one, or slashes."""

_NAMED = r"passw(?:or)?d|pwd|secret|token|api[_-]?key|access[_-]?key|credentials?|signature"

_SECRET = re.compile(
    rf"([?&;](?:[\w.-]{{0,40}}(?:{_NAMED})[\w.-]{{0,40}}|sig|sas)=)[^\s&;'\"]+",
    re.IGNORECASE,
)
"""A parameter whose name says that it is secret, and its value."""

_WEB = ("http://", "https://")


def masked(text: str) -> str:
    """The text with `***` for the user, password and secret parameters of every address in it."""
    return _SECRET.sub(r"\1***", _USER.sub("***@", text))


def without_password(address: str) -> str:
    """An address without its user and password, and with `***` for its secret parameters."""
    return masked(address).replace("://***@", "://")


def holds_secret(address: str) -> bool:
    """Whether an address holds a password, a secret parameter or, on the web, any user: that may be a token."""
    user = _USER.search(address)
    named = user is not None and (address.startswith(_WEB) or user[0].partition(":")[2] not in ("", "@"))
    return named or _SECRET.search(address) is not None


SECRET_NAMES = (
    ".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "*.gpg", "*.asc", "*.ppk",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*credential*", "*secret*", "*token*", "*passw*", "kubeconfig*",
    ".netrc", ".pgpass", ".htpasswd",
)  # fmt: skip

NO_VALUE = ("", "null", "none", "~", "true", "false", "...", "***")

_WORD = r"(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"

_SECRET_KEY = re.compile(rf".*{_WORD}", re.IGNORECASE)

_ASSIGNED = re.compile(rf"(?P<key>{_WORD})[\"']?\s{{0,9}}[:=]\s{{0,9}}[\"']?(?P<value>[^\s\"',}}#&]*)", re.IGNORECASE)

_IN_ADDRESS = re.compile(
    r"\b\w[\w+.-]{0,30}://(?:[^\s/@:'\"]*:(?:[^\s/@'\"]+|(?!\d+/)[^\s@'\"]+)@)|\bhttps?://[^\s/@'\"]+@"
)

_KNOWN = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "an access key": re.compile(r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}"),
    "an access token": re.compile(
        r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|xox[abp]-|sk-)[\w-]{16,}|\beyJ[\w-]{10,400}\.[\w-]{10,400}\."
    ),
    "a signature": re.compile(r"[?&](?:sig|sas|x-(?:amz|goog)-signature)=[^\s&'\"]+", re.IGNORECASE),
    "an authorization": re.compile(r"\b(?:bearer|basic)\s+[\w+/=.-]{16,}", re.IGNORECASE),
}


def is_secret_name(name: str) -> bool:
    """Whether a file of this name counts as secret, whatever it holds."""
    return any(fnmatch.fnmatch(name.lower(), pattern) for pattern in SECRET_NAMES)


def secret_of_file(text: str, parsed: Any) -> str | None:
    """The first thing in a text, or in its YAML if `parsed`, that looks like a secret, and its place, not its value."""
    for number, line in enumerate(text.splitlines(), start=1):
        found = secret_in(line)
        if found is not None:
            return f"line {number} holds {found}"
    key = next(_secret_keys(parsed), None)
    return None if key is None else f"the key {key} holds what looks like a secret"


def secret_in(text: str) -> str | None:
    """Describe what looks like a secret in a line, without its value; None if nothing does."""
    for what, pattern in _KNOWN.items():
        if pattern.search(text):
            return f"what looks like {what}"
    if _IN_ADDRESS.search(text):
        return "an address with a password"
    for match in _ASSIGNED.finditer(text):
        if _is_value(match["value"]):
            return f"what looks like a secret ({match['key']})"
    return None


def _is_value(text: str) -> bool:
    """Whether a text is a value, rather than empty, a placeholder or a variable's name."""
    return text.lower() not in NO_VALUE and not text.startswith("$")


def _secret_keys(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            name = f"{prefix}{key}"
            if _is_secret(str(key), inner):
                yield name
            else:
                yield from _secret_keys(inner, f"{name}.")
    elif isinstance(value, list):
        for inner in value:
            yield from _secret_keys(inner, prefix)


def _is_secret(key: str, value: Any) -> bool:
    if isinstance(value, str) and secret_in(value) is not None:
        return True
    return isinstance(value, str | int) and _SECRET_KEY.fullmatch(key) is not None and _is_value(str(value))


def redacted(text: str, secrets: Iterable[str], *, shortest: int = 1) -> str:
    """Replace every secret of `shortest` characters or more; those below eight only where they are whole words."""
    for secret in sorted({secret for secret in secrets if len(secret) >= shortest}, key=len, reverse=True):
        pattern = re.escape(secret)
        text = re.sub(pattern if len(secret) >= 8 else rf"(?<!\w){pattern}(?!\w)", "***", text)
    return text


def refuse_password(address: str | None, variable: str) -> str | None:
    """Return the address; ValueError: it holds a secret, which would be kept in the run's folder and in MLflow."""
    if address is not None and holds_secret(address):
        raise ValueError(
            "the address holds a password or a token, which would be kept with the run; give it in the environment, as "
            f"{variable}"
        )
    return address
