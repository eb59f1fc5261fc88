"""Addresses that are not of a cluster's head are refused within seconds, with what they are."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hard_ray.errors import ClusterError
from hard_ray.orchestration.cluster import address as module
from hard_ray.orchestration.cluster.address import check_address


@contextmanager
def server(says: bytes, *, first: bool = False) -> Iterator[str]:
    """A server that sends these bytes, at once or after the first that it gets."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            if not first:
                connection.recv(1000)
            if says:
                connection.sendall(says)
            else:
                time.sleep(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    thread.join(5)
    listening.close()


def refusal(address: str) -> str:
    began = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        check_address(address)
    assert time.monotonic() - began < 11
    text = str(caught.value)
    assert "runtime.address" in text
    assert "RAY_ADDRESS" in text
    return text


def test_a_web_server_such_as_the_dashboard_is_told():
    made = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    text = refusal(f"127.0.0.1:{made.server_address[1]}")
    made.shutdown()
    made.server_close()
    assert "is a web server, not Ray's head" in text
    assert "its cluster usually 127.0.0.1:6379" in text


@pytest.mark.parametrize(
    ("says", "what"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "answers 'SSH-2.0-OpenSSH_9.6'"),
        (b"-ERR unknown command 'PRI'\r\n", "answers '-ERR unknown command"),
        (b"220 mail ready\r\n", "answers '220 mail ready'"),
    ],
)
def test_another_server_is_told_by_its_first_words(says: bytes, what: str):
    with server(says, first=says.startswith(b"SSH")) as address:
        assert what in refusal(address)


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.2)
    with server(b"") as address:
        assert "does not answer as Ray does" in refusal(address)


def test_a_head_is_let_through():
    with server(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))) as address:
        check_address(address)
    check_address("auto")


def test_nothing_listens_there():
    assert "no Ray cluster answers at 127.0.0.1:1 (Connection refused)" in refusal("127.0.0.1:1")
    assert "no Ray cluster answers at nowhere.invalid:6379" in refusal("nowhere.invalid:6379")


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("http://h:8265", "is a web address, such as a dashboard has"),
        ("https://h", "is a web address"),
        ("ray://h:10001", "is an address of Ray Client"),
        ("h", "is not an address with a port"),
        ("h:port", "is not an address"),
        ("redis://h:6379", "is not an address with a port"),
        ("", "is not an address with a port"),
        ("::1", "is not an address"),
    ],
)
def test_what_is_no_address_of_a_head_is_refused_at_once(address: str, what: str):
    text = refusal(address)
    assert what in text
    assert "want HOST:PORT of Ray's head" in text


def test_a_password_is_not_shown():
    assert "hunter2" not in refusal("http://u:hunter2@h:8265")
