"""What answers at the address of a cluster, found within seconds and before Ray is asked, which would wait minutes."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from hard_ray.config.runtime import RuntimeConfig
from hard_ray.errors import ClusterError
from hard_ray.redaction import masked, without_password

ANSWER_TIMEOUT_S = 5.0
"""Seconds for a connection, and again for the first bytes of an answer."""

WORDS = ("auto",)
"""Addresses that Ray looks up on this machine by itself."""

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""The beginning of an HTTP/2 connection: its preface, and empty settings. Ray's head speaks HTTP/2; a server of
HTTP/1 answers in its own words."""

SETTINGS = 4
"""The type of the frame that every HTTP/2 server sends first, in byte 3."""

INSTEAD = (
    "want HOST:PORT of Ray's head, as `ray start --head` prints it (port 6379 by default), in runtime.address or "
    "RAY_ADDRESS; leave both unset to use this machine"
)


def address_of(runtime: RuntimeConfig) -> str | None:
    """The address of the cluster to join; None: one is started, also where Ray's word `local` asks for it."""
    address = runtime.address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def check_address(address: str) -> None:
    """Raise a ClusterError unless something like Ray's head answers at the address of a cluster to join."""
    if address in WORDS:
        return
    shown = without_password(address)
    host, port = _parts(address, shown)
    answer = _answer(host, port, shown)
    if (what := _meaning(answer)) is not None:
        raise ClusterError(f"{shown} is {what}, not Ray's head; {_advice(what, host)}")


def _parts(address: str, shown: str) -> tuple[str, int]:
    """Host and port; raises a ClusterError that says what the address is instead."""
    scheme, has_scheme, _ = address.partition("://")
    if has_scheme and scheme in ("http", "https"):
        raise ClusterError(
            f"{shown} is a web address, such as a dashboard has; {INSTEAD}; to send the command to the cluster "
            "instead, use `hardray submit --address`"
        )
    if has_scheme and scheme == "ray":
        raise ClusterError(
            f"{shown} is an address of Ray Client, and hardray's driver runs on a node of the cluster; {INSTEAD}, or "
            "send the command there by `hardray submit`"
        )
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ClusterError(f"runtime.address {shown!r} is not an address ({masked(str(error))}); {INSTEAD}") from None
    if has_scheme or host is None or port is None:
        raise ClusterError(f"runtime.address {shown!r} is not an address with a port; {INSTEAD}")
    return host, port


def _answer(host: str, port: int, shown: str) -> bytes:
    """The first bytes of an answer to an HTTP/2 greeting, empty if there is none; ClusterError: nothing listens."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_TIMEOUT_S) as connection:
            try:
                connection.sendall(HELLO)
                return connection.recv(4096)
            except OSError:  # it was closed, or nothing came
                return b""
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {shown} ({error.strerror or error}); start one with `ray start --head`, or "
            "leave runtime.address and RAY_ADDRESS unset to use this machine"
        ) from None


def _meaning(answer: bytes) -> str | None:
    """What sends such an answer; None: Ray's head may."""
    if os.environ.get("RAY_USE_TLS") == "1" or (len(answer) > SETTINGS and answer[3] == SETTINGS):
        return None
    if answer.startswith(b"HTTP/") or b"<html" in answer.lower() or b"<!doctype" in answer.lower():
        return "a web server"
    if not answer:
        return "a server that does not answer as Ray does"
    word = answer[:20].split(b"\r")[0].split(b"\n")[0].decode("ascii", "replace")
    return f"a server that answers {word!r}"


def _advice(what: str, host: str) -> str:
    if what == "a web server":
        return f"a dashboard has port 8265 and its cluster usually {host}:6379; {INSTEAD}"
    return INSTEAD
