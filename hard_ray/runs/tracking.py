"""MLflow follows the run folder: training never waits for it.

The folder is the record. A follower sends what a checkpoint covers, marks each part that is there, and goes on from
its marks after the server was down, after a resume, or with `hardray sync RUN`. Sending twice is harmless: a point has
the time of its measurement, and MLflow keeps one of two equal points.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hard_ray.config.run import RunConfig
from hard_ray.redaction import without_password
from hard_ray.runs.address import check_address, default_uri, ignored_variables, tracking_uri
from hard_ray.runs.experiment import find_experiment, is_deleted
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.local_database import TrackingError, UnreachableError
from hard_ray.runs.log import LogTail
from hard_ray.runs.logged_model import KEY, log_model
from hard_ray.runs.mlflow_client import mlflow_client, mlflow_settings, readable_problem
from hard_ray.runs.mlflow_names import LONGEST_NAME, plain_text, shortened
from hard_ray.runs.origin import origin_tags
from hard_ray.runs.parts import Parts
from hard_ray.runs.sent import Sent

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "Follower",
    "TrackingError",
    "UnreachableError",
    "check_address",
    "default_uri",
    "ignored_variables",
    "log_evaluation",
    "readable_problem",
    "tracking_uri",
]

FOLDER = "hardray.folder"


@dataclass(slots=True)
class Follower:
    """Sends one run folder to one MLflow run."""

    folder: RunFolder
    config: RunConfig
    name: str
    uri: str
    parent: Follower | None = None
    """The run of which this is a control, or the search of which it is a trial."""
    ended: str | None = None
    """MLflow's status of the ended run; None: it goes on."""
    verb: str = "distill"
    """The command that makes the run."""
    say: Callable[[str], None] = lambda _: None
    """A callback for what a user should know."""
    given_up: bool = False
    """Whether nobody waits any more: then nothing more is sent or marked, for another process may do so."""
    sent: Sent = field(init=False)
    _parts: Parts = field(init=False)
    _known: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.sent = Sent.read(self.folder.tracking)
        self._parts = Parts(self.folder, self._remember)

    @property
    def run_id(self) -> str:
        """The id of the MLflow run, which must exist."""
        if self.sent.run_id is None:
            raise RuntimeError("the MLflow run has not been made yet")
        return self.sent.run_id

    @property
    def _can_start(self) -> bool:
        is_begun = self.folder.config.is_file()
        return is_begun and (self.parent is None or self.parent.sent.run_id is not None)

    def sync(self) -> None:
        """Send what is new. Raises whatever the client raises; each part that is there is marked."""
        self._send()

    def follow(self) -> None:
        """Send what is new; if the run has ended, end the MLflow run too. Raises as `sync` does."""
        if self.ended is None:
            self.sync()
        elif self.sent.status != self.ended or not self.sent.whole:
            self.close(self.ended)

    def close(
        self,
        status: str,
        description: str | None = None,
        *,
        metrics: Mapping[str, float] | None = None,
        table: str | None = None,
    ) -> None:
        """Send the rest, and end the run.

        What is wanted is noted first, so that `hardray sync` ends the run where this cannot.

        Args:
            status: FINISHED, FAILED or KILLED.
            description: the text of the run's page, in Markdown.
            metrics: numbers that the run has in the end.
            table: the name of an artifact with `columns` and `data` that is listed among MLflow's tables.
        """
        if not self.folder.config.is_file():
            return
        tags = {} if description is None else {"mlflow.note.content": description}
        if table is not None:
            tags["mlflow.loggedArtifacts"] = json.dumps([{"path": table, "type": "table"}])
        self._note_end(status, {**self.sent.last_tags, **tags}, {**self.sent.last_metrics, **(metrics or {})})
        self._known = False
        self._send()

    def _note_end(self, status: str, tags: dict[str, str], metrics: dict[str, float]) -> None:
        sent = self.sent
        if (sent.ended, sent.last_tags, sent.last_metrics) == (status, tags, metrics):
            return
        if sent.last_metrics != metrics:
            sent.last_time = time.time()
        sent.ended, sent.last_tags, sent.last_metrics, sent.whole = status, tags, metrics, False
        self._remember()

    def reopen(self) -> None:
        """Let the MLflow run be running again when it is next told something, after a resume."""
        if self.ended is None and not self.folder.is_finished and self.sent.ended is not None:
            self.sent.ended, self.sent.whole = None, False
            self._remember()

    def _send(self) -> None:
        """Send every part; if the run turns out to be deleted there, once more to a new one."""
        from mlflow.exceptions import MlflowException

        if not self._can_start:
            return
        with mlflow_settings():
            client = mlflow_client(self.uri)
            if not self._known:
                self._forget_if_gone(client)
                self._known = True
            try:
                self._send_parts(client)
            except MlflowException:
                if not self._forget_if_gone(client):
                    raise
                self._send_parts(client)

    def _send_parts(self, client: MlflowClient) -> None:
        """Records first. Files may lie elsewhere: where they cannot be sent, the run is ended all the same."""
        if self.sent.run_id is None:
            self._start(client)
        sent, parts, ended = self.sent, self._parts, self.sent.ended
        if ended is None and sent.status is not None:
            client.update_run(self.run_id, status="RUNNING")
            sent.status = None
            self._remember()
        parts.tags(client, sent, {**self._tags(), **sent.last_tags})
        parts.params(client, sent)
        parts.data(client, sent, self._dataset())
        parts.points(client, sent, self.folder.metrics, self._covered())
        parts.points(client, sent, self.folder.path / "system.jsonl", None)
        if not sent.whole:
            parts.last_metrics(client, sent)
        problem = self._send_files(client)
        if ended is not None and sent.status != ended:
            client.set_terminated(self.run_id, ended, end_time=self._end_time())
            sent.status = ended
            self._remember()
        if problem is not None:
            raise problem
        if ended is not None and not sent.whole:
            sent.whole = True
            self._remember()

    def _send_files(self, client: MlflowClient) -> Exception | None:
        """Send files, pictures, a later evaluation and the model; gives the first error."""
        sent, parts = self.sent, self._parts
        ways: list[Callable[[], None]] = [
            lambda: parts.files(client, sent, ended=sent.ended is not None),
            lambda: parts.pictures(client, sent),
            lambda: parts.evaluation(client, sent),
        ]
        if self._wants_model():
            ways.append(lambda: log_model(client, self.folder, self.config, sent, self._remember))
        problem: Exception | None = None
        for way in ways:
            try:
                way()
            except Exception as error:  # client, store and network raise errors of any kind
                problem = problem or error
        return problem

    def _wants_model(self) -> bool:
        is_part = self.parent is not None or "mlflow.parentRunId" in self.sent.tags
        is_due = self.sent.ended == "FINISHED" and not is_part and not self.sent.model
        return is_due and self.folder.student.is_dir()

    def _forget_if_gone(self, client: MlflowClient) -> bool:
        """Whether the run was deleted, or the database is another one; the marks are then those of a new run.

        Raises:
            TrackingError: the whole experiment was deleted, and can be restored with this run.
        """
        address, is_copy = without_password(self.uri), self._is_copy()
        if self.sent.address not in (None, address):
            self._look_elsewhere(client, address)
            is_copy = False  # its database was copied too
        old, self.sent.address = self.sent, address
        if old.run_id is None or not (is_copy or is_deleted(client, old.run_id)):
            return False
        if is_copy:
            self.say(f"{self.folder.path} is a copy of {old.tags[FOLDER]}; it gets an MLflow run of its own")
        else:
            self.say(
                f"the MLflow run {old.run_id} of {self.folder.path} was deleted there, so that a new one is made; "
                f"`mlflow runs restore --run-id {old.run_id}` brings the old one back"
            )
        self.sent = Sent(address=address, elsewhere=old.elsewhere)
        self.sent.wants(old)
        self._parts = Parts(self.folder, self._remember)
        return True

    def _is_copy(self) -> bool:
        """Whether the folder that the marks were made in is still there, and another one."""
        before = Path(self.sent.tags.get(FOLDER, self.folder.path))
        try:
            if before.samefile(self.folder.path):
                return False
        except OSError:  # it is gone, or cannot be looked into
            return False
        return Sent.read(RunFolder(before).tracking).key == self.sent.key

    def _look_elsewhere(self, client: MlflowClient, address: str) -> None:
        """Take the marks of another address, unless the run is there under the same id: then its folder was moved."""
        is_known = address in self.sent.elsewhere
        if is_known or self.sent.run_id is None or is_deleted(client, self.sent.run_id):
            self.sent = self.sent.at(address)
            self._parts = Parts(self.folder, self._remember)

    def _start(self, client: MlflowClient) -> None:
        """Make the run, or find the one that a request made whose answer was lost."""
        experiment = self._experiment(client)
        self._remember()  # the key is known before anything can bear it
        made = client.search_runs([experiment], filter_string=f"tags.`{KEY}` = '{self.sent.key}'", max_results=1)
        if made:
            self.sent.run_id = made[0].info.run_id
        else:
            origin = {name: plain_text(value) for name, value in origin_tags(self.verb).items()}
            tags = {**origin, **self._tags(), KEY: self.sent.key}
            run = client.create_run(experiment, start_time=self._start_time(), tags=tags)
            self.sent.run_id, self.sent.tags = run.info.run_id, tags
        self._remember()

    def _experiment(self, client: MlflowClient) -> str:
        """The experiment by its name; that of the parent, where there is one: it may have been renamed meanwhile."""
        if self.parent is not None:
            return str(client.get_run(self.parent.run_id).info.experiment_id)
        found = find_experiment(client, self.config.tracking.experiment, self.uri)
        assert found is not None
        return found

    def _tags(self) -> dict[str, str]:
        tags = {
            "mlflow.runName": shortened(plain_text(self.name), LONGEST_NAME),
            FOLDER: plain_text(str(self.folder.path)),
        }
        if self.parent is not None and self.parent.sent.run_id is not None:
            tags["mlflow.parentRunId"] = self.parent.sent.run_id
        return tags

    def _dataset(self) -> Path:
        own = self.folder.dataset
        return own if self.parent is None or own.is_file() else self.parent.folder.dataset

    def _start_time(self) -> int:
        """When the run began: the time of its first point if that is past."""
        now, first = time.time(), next(LogTail().read(self.folder.metrics), {})
        return int(1000 * min(now, float(first.get("time", now))))

    def _end_time(self) -> int | None:
        """When a finished training ended; None: now."""
        return int(1000 * self.folder.outcome.stat().st_mtime) if self.folder.is_finished else None

    def _covered(self) -> int | None:
        """The update of the newest checkpoint; None: training has ended, and all points are final."""
        if self.folder.is_finished:
            return None
        steps = [int(path.name.removeprefix("step-")) for path in self.folder.checkpoints.glob("step-*")]
        return max(steps, default=0)

    def _remember(self) -> None:
        if self.given_up:
            raise UnreachableError("nobody waits for MLflow any more; `hardray sync` sends the rest")
        self.sent.remember(self.folder.tracking)


def log_evaluation(run: RunFolder, config: RunConfig, folder: Path) -> str | None:
    """Send an evaluation of a finished student to its MLflow run, if there is one; gives why that failed.

    The folder is noted with the run, so that `hardray sync` sends what could not be sent.
    """
    sent = Sent.read(run.tracking)
    sent.later = os.path.relpath(folder, run.path)
    sent.remember(run.tracking)
    if sent.run_id is None:
        return None
    own = run.path.name if run.main == run else f"{run.main.path.name}/{run.path.name}"
    name = sent.tags.get("mlflow.runName", own)
    try:
        Follower(run, config, name, tracking_uri(config.tracking, run.main)).sync()
    except Exception as error:  # the server's errors are of any kind; the folder has it all
        return readable_problem(error)
    return None
