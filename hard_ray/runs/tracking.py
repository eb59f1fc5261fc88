"""MLflow follows the run folder: training never waits for it.

The folder is the record. A follower sends what a checkpoint covers, remembers how far it came, and goes on from
there after the server was down, after a resume, or with `hardray sync RUN`. Sending twice is harmless: a point has
the time of its measurement, and MLflow keeps one of two equal points.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hard_ray.config.layers import dotted_values
from hard_ray.config.records import TrackingConfig
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.errors import readable
from hard_ray.files import read_json, write_json
from hard_ray.redaction import masked
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import LogTail

if TYPE_CHECKING:
    from mlflow import MlflowClient

POINTS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
MODEL_NAME = "student"
COUNTERS = ("step", "time", "from_update")


def default_uri(runs: Path) -> str:
    """The sqlite database that all runs in a folder share."""
    return f"sqlite:///{runs / 'mlflow.db'}"


def tracking_uri(config: TrackingConfig, folder: RunFolder) -> str:
    """The configured server, else MLFLOW_TRACKING_URI, else the database beside the run."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(folder.path.parent)


@dataclass(slots=True)
class Sent:
    """The part of a run that MLflow already has; kept in `tracking.json`."""

    run_id: str | None = None
    steps: dict[str, int] = field(default_factory=dict)
    """Last step that was sent, by log file."""
    files: dict[str, float] = field(default_factory=dict)
    """Modification time of each file that was sent."""
    model: bool = False
    status: str | None = None
    """The status that the run was closed with."""


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
    sent: Sent = field(init=False)
    _known: bool = field(init=False, default=False)
    _tails: dict[str, LogTail] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.sent = Sent(**read_json(self.folder.tracking, {}))

    @property
    def run_id(self) -> str:
        """The id of the MLflow run, which must exist."""
        if self.sent.run_id is None:
            raise RuntimeError("the MLflow run has not been made yet")
        return self.sent.run_id

    def sync(self) -> None:
        """Send what is new. Raises whatever the client raises; what was sent until then is remembered."""
        if not self.folder.config.is_file() or (self.parent is not None and self.parent.sent.run_id is None):
            return
        client = _client(self.uri)
        if not self._known:
            self._forget_if_gone(client)
        if self.sent.run_id is None:
            self._start(client)
        self._known = True
        try:
            self._send_points(client, self.folder.metrics, self._covered())
            self._send_points(client, self.folder.path / "system.jsonl", None)
            self._send_files(client)
        finally:
            self._remember()

    def follow(self) -> None:
        """Send what is new; if the run has ended, end the MLflow run too. Raises as `sync` does."""
        if self.ended is None:
            self.sync()
        elif self.sent.status != self.ended:
            self.close(self.ended)

    def close(self, status: str, description: str | None = None) -> None:
        """Send the rest, the description in Markdown and the model, and end the run as FINISHED, FAILED or KILLED."""
        self.sync()
        if self.sent.run_id is None or self.sent.status == status:
            return
        client = _client(self.uri)
        if description:
            client.set_tag(self.sent.run_id, "mlflow.note.content", description)
        if self.folder.metrics.is_file():  # has the reasons of phase switches, which are no MLflow metrics
            client.log_artifact(self.sent.run_id, str(self.folder.metrics))
        if status == "FINISHED" and self.parent is None and self.folder.student.is_dir() and not self.sent.model:
            log_model(self.folder, self.config, self.uri, self.sent.run_id)
            self.sent.model = True
            self._remember()
        client.set_terminated(self.sent.run_id, status)
        self.sent.status = status
        self._remember()

    def reopen(self) -> None:
        """Mark the MLflow run as running again, after a resume."""
        if self.ended is None and self.sent.run_id is not None and self.sent.status is not None:
            _client(self.uri).update_run(self.sent.run_id, status="RUNNING")
            self.sent.status = None
            self._remember()

    def _forget_if_gone(self, client: MlflowClient) -> None:
        """Start a new MLflow run if the database was deleted, or is another one."""
        from mlflow.exceptions import MlflowException

        if self.sent.run_id is None:
            return
        try:
            client.get_run(self.sent.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.sent = Sent()

    def _start(self, client: MlflowClient) -> None:
        tags = {"mlflow.runName": self.name, "hardray.folder": str(self.folder.path)}
        if self.parent is not None and self.parent.sent.run_id is not None:
            tags["mlflow.parentRunId"] = self.parent.sent.run_id
        experiment = _experiment(client, self.config.tracking.experiment, self.uri)
        run = client.create_run(experiment, tags=tags)
        self.sent.run_id = run.info.run_id
        self._remember()
        self._send_params(client)

    def _send_params(self, client: MlflowClient) -> None:
        from mlflow.entities import Param

        path = self.folder.config
        values = dotted_values(
            parse_yaml(path.read_text(encoding="utf-8"), str(path), reading="saved"), empty_blocks=True
        )
        params = [Param(key, str(value)[:6000]) for key, value in values.items()]
        for start in range(0, len(params), PARAMS_PER_REQUEST):
            client.log_batch(self.run_id, params=params[start : start + PARAMS_PER_REQUEST])

    def _covered(self) -> int | None:
        """The update of the newest checkpoint; None: training has ended, and all points are final."""
        if self.folder.is_finished:
            return None
        steps = [int(path.name.removeprefix("step-")) for path in self.folder.checkpoints.glob("step-*")]
        return max(steps, default=0)

    def _send_points(self, client: MlflowClient, path: Path, covered: int | None) -> None:
        from mlflow.entities import Metric

        sent, last = self.sent.steps.get(path.name, -1), -1
        metrics: list[Metric] = []
        tail = self._tails.setdefault(path.name, LogTail())
        for point in tail.read(path, until=covered):
            last = point["step"]
            stamp = int(1000 * point["time"])
            metrics += [
                Metric(key, float(value), stamp, last)
                for key, value in point.items()
                if last > sent and key not in COUNTERS and isinstance(value, int | float)
            ]
        for start in range(0, len(metrics), POINTS_PER_REQUEST):
            client.log_batch(self.run_id, metrics=metrics[start : start + POINTS_PER_REQUEST])
        tail.advance()
        self.sent.steps[path.name] = max(sent, last)

    def _send_files(self, client: MlflowClient) -> None:
        pictures = [(path, "gallery") for path in self.folder.pictures]
        for path, where in [*((path, None) for path in self.folder.records), *pictures]:
            if not path.is_file():
                continue
            changed = path.stat().st_mtime
            if self.sent.files.get(path.name) != changed:
                client.log_artifact(self.sent.run_id, str(path), where)
                self.sent.files[path.name] = changed

    def _remember(self) -> None:
        write_json(self.folder.tracking, asdict(self.sent))


def log_evaluation(run: RunFolder, config: RunConfig, result: Mapping[str, Any], folder: Path) -> str | None:
    """Send `evaluation.json` and the files beside it to a run's MLflow run, if there is one; gives why that failed."""
    from mlflow.entities import Metric

    sent = Sent(**read_json(run.tracking, {}))
    if sent.run_id is None:
        return None
    stamp, step = int(1000 * time.time()), max(sent.steps.get("metrics.jsonl", 0), 0)
    values = {
        _metric_name(suite, key, result["split"]): value
        for suite, found in result["suites"].items()
        for key, value in found.items()
        if isinstance(value, int | float) and key != "n"
    }
    try:
        client = _client(tracking_uri(config.tracking, run.main))
        client.log_batch(sent.run_id, metrics=[Metric(key, value, stamp, step) for key, value in values.items()])
        for path in sorted(folder.glob("*.*")):
            client.log_artifact(sent.run_id, str(path), "evaluation")
    except Exception as error:  # the server's errors are of any kind; the folder has it all
        return readable_problem(error)
    return None


def _metric_name(suite: str, key: str, split: str) -> str:
    return f"{split}/{key}" if suite == "clean" else f"ood/{suite.replace('-', '_')}/{key}"


def log_model(folder: RunFolder, config: RunConfig, uri: str, run_id: str) -> None:
    """Log the finished student as a model for inference: pt2, with an input example, any batch size.

    It takes images in [0, 1], shape (batch, channels, height, width), normalises them and returns logits.
    """
    from importlib.metadata import version

    import mlflow
    import numpy as np

    from hard_ray.config.networks import NetworkConfig
    from hard_ray.networks.network import ImageSpec, build_student

    classes = tuple(json.loads((folder.student / "config.json").read_text(encoding="utf-8"))["label_names"])
    images = ImageSpec(config.data.img_size, config.data.in_chans, classes)
    network = build_student(
        NetworkConfig(model=f"local-dir:{folder.student}", img_size=config.student.img_size), images
    )
    side = config.data.img_size
    example = np.zeros((2, config.data.in_chans, side, side), dtype=np.float32)
    with _tracking_to(uri), mlflow.start_run(run_id=run_id):
        mlflow.pytorch.log_model(
            network.eval(),
            name=MODEL_NAME,
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[f"{name}=={version(name)}" for name in ("torch", "torchvision", "mlflow")],
        )


@contextmanager
def _tracking_to(uri: str) -> Iterator[None]:
    """Set MLflow's global address, then reset it: it is an environment variable too, which the next run would use."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri("")  # empty: MLflow reads the variable again
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def show_best(uri: str, run_id: str, values: Mapping[str, float]) -> None:
    """Log the best trial's metrics in the search's own run."""
    client = _client(uri)
    for name, value in values.items():
        client.log_metric(run_id, f"best/{name}", value)


def show_table(uri: str, run_id: str, name: str) -> None:
    """List an artifact of a run, a JSON file with `columns` and `data`, among MLflow's tables."""
    shown = json.dumps([{"path": name, "type": "table"}])
    _client(uri).set_tag(run_id, "mlflow.loggedArtifacts", shown)


def _client(uri: str) -> MlflowClient:
    """A client that gives up soon, because the follower tries again."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment's id, which is created if needed; the artifacts of a local database are beside it."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        database = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else None
        location = (Path(database).parent / "mlartifacts" / name).as_uri() if database else None
        try:
            tags = {"mlflow.experimentKind": "custom_model_development"}  # MLflow then shows training runs, not chats
            return str(client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException:  # another run made it in the meantime
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def readable_problem(error: Exception) -> str:
    """One line about an error, without passwords."""
    return masked(readable(error))
