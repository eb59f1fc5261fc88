"""A client of Ray's Jobs API that sends commands as jobs, and follows, lists and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from hard_ray.errors import ClusterError, SubmissionError
from hard_ray.orchestration.jobs.package import Package
from hard_ray.redaction import redacted, without_password

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CONNECT_TIMEOUT_S = 10.0
OVERRIDING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Variables that override the address given to Ray's client."""

STOP_WAIT_S = 120
"""Seconds before Ray kills a stopped job, which writes a checkpoint first (Ray's default: 3)."""

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
POLL_S = 0.5
LOST_S = 120.0
"""Seconds that the connection may be lost while a job is followed."""

SILENT_S = 60.0
"""Seconds without output after which the client reconnects, since a lost connection may go unnoticed."""

SHORTEST_SECRET = 8
"""Shorter values are not hidden in the output of a job, where a value such as 1 occurs everywhere."""

NO_SUCH_COMMAND = 127


@dataclass(frozen=True, slots=True)
class RayJob:
    """A job as Ray reports it, without its environment variables."""

    id: str
    status: str
    command: str
    message: str
    started: datetime | None
    ended: datetime | None
    exit_code: int | None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, with success or without."""
        return self.status in ENDED


class Jobs:
    """The Jobs API of one cluster."""

    def __init__(self, address: str, *, secrets: Sequence[str] = ()) -> None:
        """Connect to the dashboard at `address`, `http://HOST:8265`; `secrets` are hidden in messages and output.

        Raises SubmissionError if the address is not valid, and ClusterError if nothing listens there, there is no Jobs
        API, or the token is refused.
        """
        self.secrets = tuple(secrets)
        self.shown = without_password(address)
        self._address = address
        _knock(address, self.shown)
        with self._readable("asked for its version"), _only_the_given_address():
            from ray.job_submission import JobSubmissionClient

            self._client: JobSubmissionClient = JobSubmissionClient(address)

    def submit(self, words: Sequence[str], package: Package, variables: Mapping[str, str]) -> str:
        """Send a command with the files that it reads, and return the job's id.

        `words` are `hardray` and its arguments. Raises ClusterError if the cluster did not accept the job.
        """
        given = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), "PYTHONUNBUFFERED": "1", **variables}
        with TemporaryDirectory(prefix="hardray-") as place, self._readable("sent a job"):
            runtime_env: dict[str, Any] = {"env_vars": given}
            if package.files:
                path = Path(place) / "package.zip"
                package.write(path)
                runtime_env["working_dir"] = str(path)
            return str(self._client.submit_job(entrypoint=shlex.join(words), runtime_env=runtime_env))

    def all(self) -> list[RayJob]:
        """All submitted jobs, the newest first."""
        with self._readable("asked for its jobs"):
            details = [job for job in self._client.list_jobs() if job.submission_id is not None]
        return [_job(item) for item in sorted(details, key=lambda job: job.start_time or 0, reverse=True)]

    def job(self, name: str) -> RayJob:
        """The job with this id."""
        with self._readable("asked for the job", name):
            return _job(self._client.get_job_info(name))

    def logs(self, name: str, start: int = 0) -> str:
        """The output of a job so far, after its first `start` characters."""
        with self._readable("asked for the output of the job", name):
            return self._hidden(str(self._client.get_job_logs(name))[start:])

    def stop(self, name: str) -> bool:
        """Ask a job to end, and return whether it was running."""
        with self._readable("asked to stop the job", name):
            return bool(self._client.stop_job(name))

    def follow(self, name: str, write: Callable[[str], None]) -> RayJob:
        """Write the output of a job until it has ended, and return how it ended.

        A lost connection is made again, without repeating output; raises ClusterError if it is lost for longer than
        `LOST_S`.
        """
        self.job(name)  # raises if there is no such job
        shown = 0
        lost: float | None = None
        while True:
            shown = asyncio.run(self._tail(name, shown, write))
            try:
                _knock(self._address, self.shown)
                job = self.job(name)
                if job.is_over:
                    write(self.logs(name, shown))  # the last lines may come after the connection's end
                    return job
                lost = None
            except ClusterError:
                lost = time.monotonic() if lost is None else lost
                if time.monotonic() - lost > LOST_S:
                    raise ClusterError(f"the connection to {self.shown} is lost; the job {name} may go on") from None
            time.sleep(POLL_S)

    async def _tail(self, name: str, skip: int, write: Callable[[str], None]) -> int:
        """Write the output after the first `skip` characters, and return how many have been written in all."""
        came, texts = 0, self._client.tail_job_logs(name)
        # the end, silence, errors of the websocket and of Ray: the caller asks for the job's status
        with contextlib.suppress(Exception):
            while True:
                async with asyncio.timeout(SILENT_S):
                    text = await anext(texts)
                new = text[max(0, skip - came) :]
                came += len(text)
                if new:
                    write(self._hidden(new))
        return max(came, skip)

    def _hidden(self, text: str) -> str:
        return redacted(text, self.secrets, shortest=SHORTEST_SECRET)

    @contextlib.contextmanager
    def _readable(self, asked: str, name: str | None = None) -> Iterator[None]:
        """Turn the various errors of Ray's client, some with a traceback of the server, into a ClusterError."""
        try:
            yield
        except ClusterError:
            raise
        except Exception as error:
            text = redacted(_last_line(error), self.secrets)
            if type(error).__name__ == "AuthenticationError":
                raise ClusterError(
                    f"the cluster at {self.shown} refuses the token: set RAY_AUTH_TOKEN to the cluster's, or "
                    "RAY_AUTH_TOKEN_PATH to a file that holds it, and RAY_AUTH_MODE=token"
                ) from None
            if name is not None and ("404" in str(error) or "does not exist" in str(error)):
                raise ClusterError(
                    f"the cluster at {self.shown} has no job {name}; `hardray jobs list` shows all"
                ) from None
            if "404" in str(error):
                raise ClusterError(_no_api(self.shown)) from None
            subject = f"{asked} {name}" if name else asked
            raise ClusterError(f"the cluster at {self.shown}, {subject}, answered: {text}") from None


def problem_of(job: RayJob) -> str:
    """One line about a job that failed or was stopped; empty after success."""
    if job.status == "SUCCEEDED":
        return ""
    if job.status == "STOPPED":
        return f"the job {job.id} was stopped"
    if job.exit_code == NO_SUCH_COMMAND:
        return f"the job {job.id} failed: the cluster's head node has no `hardray` on its PATH; install it there"
    code = "" if job.exit_code is None else f" with exit code {job.exit_code}"
    reason = "" if job.exit_code is not None else f": {job.message.splitlines()[0] if job.message else 'no reason'}"
    return f"the job {job.id} failed{code}{reason}"


def exit_code(job: RayJob) -> int:
    """The exit code of a command that waited for a job."""
    return 0 if job.status == "SUCCEEDED" else job.exit_code or 1


def _job(details: Any) -> RayJob:
    return RayJob(
        id=str(details.submission_id or details.job_id),
        status=str(getattr(details.status, "value", details.status)),
        command=str(details.entrypoint),
        message=str(details.message or ""),
        started=_time(details.start_time),
        ended=_time(details.end_time),
        exit_code=details.driver_exit_code,
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000) if milliseconds else None


def _knock(address: str, shown: str) -> None:
    """Raise an error within seconds if no dashboard answers at the address; Ray's client would wait forever."""
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise SubmissionError(f"--address {shown}: want the dashboard's address, such as http://HOST:8265")
    try:
        with urlopen(f"{address.rstrip('/')}/api/version", timeout=CONNECT_TIMEOUT_S) as answer:  # noqa: S310
            json.load(answer)["ray_version"]
    except HTTPError as error:
        if error.code not in (401, 403):  # Ray's client reports a missing token
            raise ClusterError(_no_api(shown)) from None
    except (ValueError, KeyError, TypeError, HTTPException):
        raise ClusterError(_no_api(shown)) from None
    except TimeoutError:
        raise ClusterError(f"{shown} does not answer within {CONNECT_TIMEOUT_S:g} s; is it the dashboard?") from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ConnectionResetError):
            raise ClusterError(_no_api(shown)) from None
        raise ClusterError(
            f"nothing answers at {shown} ({getattr(reason, 'strerror', None) or reason}); start the head node with "
            "`ray start --head --include-dashboard=true`, and give the address of its dashboard"
        ) from None


def _no_api(shown: str) -> str:
    return (
        f"{shown} answers, but has no Jobs API of Ray; want the dashboard of a cluster with ray[default], which is "
        "http://HOST:8265 unless --dashboard-port says otherwise"
    )


@contextlib.contextmanager
def _only_the_given_address() -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
