"""A job on a cluster, followed through lost connections; no message shows a secret."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from hard_ray_cli.cluster_jobs import follow_job

from hard_ray.errors import ClusterError
from hard_ray.orchestration.jobs import client as module
from hard_ray.orchestration.jobs.client import Jobs, RayJob, exit_code, problem_of
from tests.cli.commands import SECRET, invoke


def test_where_nothing_listens_one_message_says_so(place: Path):
    done = invoke("jobs", "list", "--address", "http://127.0.0.1:1")
    assert done.exit_code == 1
    assert "nothing answers at http://127.0.0.1:1 (Connection refused)" in done.output


class Server(BaseHTTPRequestHandler):
    """A dashboard that answers each path as a test says."""

    answers: dict[str, tuple[int, str]] = {}

    def do_GET(self) -> None:
        code, text = self.answers.get(self.path, (404, "nothing here"))
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Server, "answers", {"/api/version": (200, json.dumps({"ray_version": "2.60.0"}))})
    made = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


def test_something_that_is_no_dashboard_is_told_from_one(server: str):
    Server.answers["/api/version"] = (200, "<html>")
    with pytest.raises(ClusterError, match="has no Jobs API of Ray"):
        Jobs(server)
    Server.answers.clear()
    with pytest.raises(ClusterError, match="has no Jobs API of Ray"):
        Jobs(server)


def test_a_dashboard_without_jobs_is_told(server: str):
    with pytest.raises(ClusterError, match="has no Jobs API of Ray"):
        Jobs(server).all()


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_token_is_told(server: str, code: int):
    Server.answers["/api/version"] = (code, "Unauthorized")
    with pytest.raises(ClusterError, match="refuses the token: set RAY_AUTH_TOKEN"):
        Jobs(server)


def test_the_address_that_was_given_is_asked_whatever_ray_address_says(server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    Server.answers["/api/jobs/"] = (200, "[]")
    assert Jobs(server).all() == []


def test_an_error_of_the_server_is_shown_without_the_variables(server: str, place: Path):
    Server.answers["/api/jobs/"] = (500, f"Traceback\n  lines\nValueError: cannot use {{'A': '{SECRET}'}}")
    done = invoke("submit", "--address", server, "--env", f"A={SECRET}", "--", "show")
    assert done.exit_code == 1
    assert "cannot use" in done.output
    assert "***" in done.output
    assert SECRET not in done.output


def job(status: str, code: int | None = None, message: str = "") -> RayJob:
    return RayJob("j", status, "hardray show", message, datetime(2026, 1, 1), None, code)


def test_the_exit_code_is_the_jobs():
    assert [exit_code(item) for item in (job("SUCCEEDED", 0), job("FAILED", 2), job("FAILED"), job("STOPPED"))] == [
        0, 2, 1, 1,
    ]  # fmt: skip
    assert problem_of(job("SUCCEEDED", 0)) == ""
    assert problem_of(job("FAILED", 2)) == "the job j failed with exit code 2"
    assert "no `hardray` on its PATH" in problem_of(job("FAILED", 127))
    assert problem_of(job("FAILED", message="no node")) == "the job j failed: no node"


class Client:
    """Ray's client, whose connection breaks once in the middle."""

    text = f"one\ntwo {SECRET}\nthree\n"

    def __init__(self) -> None:
        self.tries = 0

    async def tail_job_logs(self, name: str):
        self.tries += 1
        yield "one\n"
        yield f"two {SECRET}\n"
        if self.tries == 1:
            raise RuntimeError("closed")

    def get_job_logs(self, name: str) -> str:
        return self.text

    def get_job_info(self, name: str):
        return SimpleNamespace(
            submission_id=name,
            job_id=None,
            status="FAILED" if self.tries > 1 else "RUNNING",
            entrypoint="x",
            message="",
            start_time=1,
            end_time=2,
            driver_exit_code=3,
        )


@pytest.fixture
def broken(server: str, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(module, "POLL_S", 0.0)
    made = Jobs.__new__(Jobs)
    made.secrets, made.shown, made._address, made._client = (SECRET,), "http://h", server, Client()
    return made


def test_a_broken_connection_is_made_again_and_no_line_comes_twice_or_is_missing(broken: Jobs):
    shown: list[str] = []
    assert broken.follow("j", shown.append).exit_code == 3
    assert "".join(shown) == "one\ntwo ***\nthree\n"
    assert broken._client.tries == 2


class SilentClient(Client):
    """Ray's client, whose connection is gone once, and nothing says so."""

    async def tail_job_logs(self, name: str):
        try:
            async for text in super().tail_job_logs(name):
                yield text
        except RuntimeError:
            await asyncio.sleep(3600)


@pytest.mark.timeout(30)
def test_a_connection_that_is_gone_unnoticed_is_made_again(broken: Jobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SILENT_S", 0.1)
    broken._client = SilentClient()
    shown: list[str] = []
    assert broken.follow("j", shown.append).exit_code == 3
    assert "".join(shown) == "one\ntwo ***\nthree\n"
    assert broken._client.tries == 2


class LateClient(Client):
    """Ray's client, whose connection holds longer than it may be gone, and whose head does not answer at once after."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = [False, True]

    async def tail_job_logs(self, name: str):
        await asyncio.sleep(0.3)
        async for text in super().tail_job_logs(name):
            yield text

    def get_job_info(self, name: str):
        if self.refuses and self.refuses.pop(0):
            raise RuntimeError("the head restarts")
        return super().get_job_info(name)


def test_how_long_a_connection_is_gone_counts_from_its_end(broken: Jobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LOST_S", 0.2)
    broken._client = LateClient()
    assert broken.follow("j", lambda _: None).exit_code == 3
    assert broken._client.refuses == []


@pytest.mark.timeout(30)
def test_a_dashboard_that_takes_connections_and_never_answers_is_lost_after_a_while(
    broken: Jobs, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(module, "LOST_S", 0.1)
    asked = [broken._client.get_job_info("j")]
    monkeypatch.setattr(broken._client, "get_job_info", lambda name: asked.pop() if asked else time.sleep(3600))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broken._address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match="the connection to http://h is lost; the job j may go on"):
            broken.follow("j", lambda _: None)


def test_ctrl_c_leaves_the_job_and_says_how_to_go_on(broken: Jobs, monkeypatch: pytest.MonkeyPatch, capsys):

    def interrupted(name: str, write: object) -> RayJob:
        raise KeyboardInterrupt

    monkeypatch.setattr(broken, "follow", interrupted)
    with pytest.raises(typer.Exit) as caught:
        follow_job(broken, "j")
    assert caught.value.exit_code == 130
    text = " ".join(capsys.readouterr().out.split())
    for words in ("the job j goes on", "hardray jobs logs j --follow --address http://h", "hardray jobs stop j"):
        assert words in text
