"""A proxy in front of a server, that fails one request: before the server has it, or after, when the answer is lost."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Failure = Literal["lost request", "lost answer", "500", "late"]


class QuietHandler(BaseHTTPRequestHandler):
    """Logs nothing, and can reset the connection."""

    def reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):  # what a reset leaves
            return


class FailingProxy(ThreadingHTTPServer):
    """Passes requests on, and counts them."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.seen: list[str] = []
        self.fail_at = 0
        """Number of the request that fails, from 1; 0: none."""
        self.failure: Failure = "500"
        self.late_s = 0.0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def begin(self, fail_at: int = 0, failure: Failure = "500") -> None:
        """Count from one again."""
        self.seen, self.fail_at, self.failure = [], fail_at, failure


class _Handler(QuietHandler):
    server: FailingProxy

    def _pass_on(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.seen.append(f"{self.command} {self.path.partition('?')[0]}")
        failing = len(proxy.seen) == proxy.fail_at
        if failing and proxy.failure == "lost request":
            return self.reset()
        if failing and proxy.failure == "500":
            return self._answer(500, {}, b"<html>no</html>")
        behind = http.client.HTTPConnection("127.0.0.1", proxy.behind, timeout=60)
        behind.request(self.command, self.path, body, {**dict(self.headers), "Connection": "close"})
        answer = behind.getresponse()
        content = answer.read()
        behind.close()
        if failing and proxy.failure == "lost answer":
            return self.reset()
        if failing and proxy.failure == "late":
            time.sleep(proxy.late_s)
            return self.reset()
        return self._answer(answer.status, dict(answer.getheaders()), content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name in ("Content-Type",):
            if name in headers or name.lower() in headers:
                self.send_header(name, headers.get(name) or headers[name.lower()])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815  (the names of the base class)


@contextmanager
def failing_proxy(port: int) -> Iterator[FailingProxy]:
    """A proxy of a port on loopback."""
    proxy = FailingProxy(port)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(10)
