"""A real S3 server on loopback, and a server in front of it that fails as buckets do."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from tests.support.failing_proxy import QuietHandler

KEYS = {
    "AWS_ACCESS_KEY_ID": "planted-access-key",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-key",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}
"""What a client of these servers has in its environment; tests search for the first two."""


ONE_TRIAL = """
base: {config: mine.yaml}
parameters:
  optim.lr: {loguniform: [0.01, 0.1]}
search: random
scheduler: none
trials: 1
"""
"""A space of one trial, with its base beside it."""


@dataclass
class Server:
    """A server of buckets on a port of loopback."""

    port: int

    def url(self, bucket: str, key: str = "") -> str:
        return f"s3://{bucket}/{key}?endpoint_override=127.0.0.1:{self.port}&region=us-east-1&scheme=http"

    def remote(self, bucket: str, key: str = "") -> Remote:
        return Remote.parse(self.url(bucket, key))

    def make_bucket(self, bucket: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("PUT", f"/{bucket}")
        assert connection.getresponse().status == 200
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server(log: Path) -> Iterator[Server]:
    """moto's server in a process of its own."""
    port = _free_port()
    program = "import sys; from moto.server import main; main(sys.argv[1:])"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(port)],
            stdout=out,
            stderr=out,
            env={**os.environ, **KEYS},
        )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
        yield Server(port)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def server_with(log: Path, *buckets: str) -> Iterator[Server]:
    """A server with these buckets, and its keys in the environment for as long."""
    with pytest.MonkeyPatch.context() as patch:
        set_keys(patch)
        with s3_server(log) as started:
            for bucket in buckets:
                started.make_bucket(bucket)
            yield started


def set_keys(patch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    for name, value in KEYS.items():
        patch.setenv(name, value)


def holds_no_key(folder: Path) -> None:
    """No file below a folder has one of the planted keys."""
    for path in folder.rglob("*"):
        if path.is_file():
            assert not _has_key(path.read_bytes()), path


def holds_no_key_remotely(remote: Remote) -> None:
    """No object below an address has one of the planted keys."""
    for one in objects.listing(remote):
        assert not _has_key(objects.read(remote / one.key)), one.key


def _has_key(content: bytes) -> bool:
    return any(KEYS[name].encode() in content for name in list(KEYS)[:2])


Fault = Callable[["_Handler"], bool]
"""Answers a request itself, and says whether it did."""


@dataclass
class Faults:
    """What a server in front does to requests whose line matches, so many times."""

    rules: list[tuple[re.Pattern[str], str, int]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, pattern: str, fault: str, times: int = 10**9) -> None:
        self.rules.append((re.compile(pattern), fault, times))

    def of(self, line: str) -> str | None:
        with self.lock:
            self.seen.append(line)
            for number, (pattern, fault, times) in enumerate(self.rules):
                if times > 0 and pattern.search(line):
                    self.rules[number] = (pattern, fault, times - 1)
                    return fault
        return None


ERRORS = {
    "slow": (503, "SlowDown", "Please reduce your request rate."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "unknown key": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "signature": (403, "SignatureDoesNotMatch", "The request signature we calculated does not match."),
    "lost": (404, "NoSuchKey", "The specified key does not exist."),
    "internal": (500, "InternalError", "We encountered an internal error. Please try again."),
}


class FaultyServer(ThreadingHTTPServer):
    """Passes requests on to a server of buckets, unless a rule of `faults` says otherwise."""

    daemon_threads = True

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.faults = Faults()


class _Handler(QuietHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self._body()
        fault = self.server.faults.of(f"{self.command} {self.path}")
        if fault in ERRORS:
            status, code, text = ERRORS[fault]
            content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
            return self._answer(status, {"Content-Type": "application/xml"}, content)
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "")
        if not chunked:
            headers["Content-Length"] = str(len(body))
        behind.request(self.command, self.path, iter([body]) if chunked else body, headers, encode_chunked=chunked)
        answer = behind.getresponse()
        content = answer.read()
        found = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server")
        }
        length = answer.getheader("Content-Length")
        behind.close()
        if fault == "reset":
            self._head(answer.status, found, len(content))
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            time.sleep(0.02)
            self.reset()
            return None
        if fault == "truncated":  # an honest length, and fewer bytes
            self._head(answer.status, found, len(content))
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return None
        if fault == "short":  # a length that fits the bytes, which are too few
            return self._answer(answer.status, found, content[: len(content) // 2])
        return self._answer(answer.status, found, content, length)

    def _body(self) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        if "100-continue" in (self.headers.get("Expect") or "").lower():
            pass  # the base class has answered
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _head(self, status: int, headers: dict[str, str], length: int | str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, length: str | None = None) -> None:
        if self.command == "HEAD":
            return self._head(status, headers, length or 0)
        self._head(status, headers, len(content))
        if status != 204:
            self.wfile.write(content)
        return None

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _pass_on  # noqa: N815  (the names of the base class)


@contextmanager
def faulty_server(behind: Server) -> Iterator[tuple[Server, Faults]]:
    """A server that fails, in front of one that does not."""
    server = FaultyServer(behind.port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Server(server.server_address[1]), server.faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
