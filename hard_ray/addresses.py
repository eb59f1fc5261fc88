"""Addresses of servers as they may be shown, logged or kept: without who asks and their password."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@'\"]*:[^\s/@'\"]+(?=@)")


def masked(text: str) -> str:
    """The text with `***` for name and password of every address in it."""
    return _CREDENTIALS.sub("***", text)


def without_password(address: str) -> str:
    """An address without the user and password that may stand in it."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
