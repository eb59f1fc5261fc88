"""Addresses of servers as they may be shown, logged or kept: without who asks and their password."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^\s/]*@")
"""Up to the last @: a password may hold one."""

_SECRET = re.compile(
    r"([?&;][\w.-]{0,40}(?:passw(?:or)?d|pwd|secret|token|api[_-]?key|access[_-]?key|credentials?)[\w.-]{0,40}=)[^\s&;'\"]+",
    re.IGNORECASE,
)
"""A parameter that is one by its name, and its value."""

_WEB = ("http://", "https://")


def masked(text: str) -> str:
    """The text with `***` for name, password and secret parameters of every address in it."""
    return _SECRET.sub(r"\1***", _USER.sub("***@", text))


def without_password(address: str) -> str:
    """An address without the user, password and secret parameters that may stand in it."""
    return masked(address).replace("://***@", "://")


def holds_secret(address: str) -> bool:
    """Whether an address has a password, a secret parameter, or on the web anybody: a name alone is a token there."""
    user = _USER.search(address)
    named = user is not None and (address.startswith(_WEB) or user[0].partition(":")[2] not in ("", "@"))
    return named or _SECRET.search(address) is not None
