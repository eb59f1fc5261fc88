"""The parts of a run that MLflow is sent; each has a mark in `tracking.json` once it is there."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hard_ray.config.layers import dotted_values
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.files import read_json
from hard_ray.runs.dataset import dataset_input
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import LogTail
from hard_ray.runs.mlflow_names import LONGEST_TAG, LONGEST_VALUES, batches, key_of, plain_text, shortened, unique_keys
from hard_ray.runs.sent import Sent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

POINTS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
BYTES_PER_REQUEST = 900_000
SMALL_SIDE = 256
"""Longest side of the small copy of a picture, in pixels."""
COUNTERS = ("step", "time", "from_update")


@dataclass(slots=True)
class Parts:
    """Sends the parts of one folder, and marks each in `sent`."""

    folder: RunFolder
    remember: Callable[[], None]
    """Write the marks; raises what ends the sending."""
    _tails: dict[str, LogTail] = field(init=False, default_factory=dict)

    def tags(self, client: MlflowClient, sent: Sent, wanted: dict[str, str]) -> None:
        """Send the tags that are new or have changed."""
        from mlflow.entities import RunTag

        texts = {name: shortened(plain_text(value), LONGEST_TAG) for name, value in wanted.items()}
        changed = {name: value for name, value in texts.items() if sent.tags.get(name) != value}
        if not changed:
            return
        tags = [RunTag(name, value) for name, value in changed.items()]
        client.log_batch(_id(sent), tags=tags, synchronous=True)
        sent.tags = {**sent.tags, **changed}
        self.remember()

    def params(self, client: MlflowClient, sent: Sent) -> None:
        """Send the configuration's values. MLflow keeps a value for ever: a changed one becomes a tag instead."""
        content = self.folder.config.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if sent.params == digest:
            return
        values = dotted_values(
            parse_yaml(content.decode("utf-8"), str(self.folder.config), reading="saved"), empty_blocks=True
        )
        wanted = unique_keys({name: plain_text(str(value)) for name, value in values.items()})
        there = client.get_run(_id(sent)).data.params
        missing = {name: value for name, value in wanted.items() if name not in there}
        for longest in LONGEST_VALUES:
            if _send_params(client, _id(sent), missing, longest, last=longest == LONGEST_VALUES[-1]):
                break
        changed = [
            f"{name}: {value}"
            for name, value in wanted.items()
            if name in there and there[name] not in {shortened(value, longest) for longest in (*LONGEST_VALUES, 10**9)}
        ]
        if changed:
            self.tags(client, sent, {"hardray.changed": "; ".join(changed)})
        sent.params = digest
        self.remember()

    def data(self, client: MlflowClient, sent: Sent, path: Path) -> None:
        """Name the data set as the run's input, from its description at `path`."""
        found = read_json(path)
        if not found or sent.data == found["digest"]:
            return
        client.log_inputs(_id(sent), datasets=[dataset_input(found)])
        sent.data = found["digest"]
        self.remember()

    def points(self, client: MlflowClient, sent: Sent, path: Path, until: int | None) -> None:
        """Send the points of a log up to a step. A mark follows each request, so that an interruption costs one."""
        before, last = sent.steps.get(path.name, -1), -1
        tail = self._tails.setdefault(path.name, LogTail())
        waiting: list[Metric] = []
        for point in tail.read(path, until=until):
            if point["step"] <= before:
                continue
            fresh = list(_metrics(point))
            if waiting and point["step"] > last and len(waiting) + len(fresh) > POINTS_PER_REQUEST:
                self._send_points(client, sent, waiting)
                sent.steps[path.name] = last
                self.remember()
                waiting = []
            waiting += fresh
            last = max(last, point["step"])
        self._send_points(client, sent, waiting)
        tail.advance()
        if last > before or path.name not in sent.steps:
            sent.steps[path.name] = max(before, last)
            self.remember()

    def last_metrics(self, client: MlflowClient, sent: Sent) -> None:
        """Send the numbers that a run has in the end."""
        from mlflow.entities import Metric

        stamp = int(1000 * sent.last_time)
        metrics = [Metric(key_of(name), value, stamp, 0) for name, value in sent.last_metrics.items()]
        self._send_points(client, sent, metrics)

    def _send_points(self, client: MlflowClient, sent: Sent, metrics: list[Metric]) -> None:
        for start in range(0, len(metrics), POINTS_PER_REQUEST):
            client.log_batch(_id(sent), metrics=metrics[start : start + POINTS_PER_REQUEST], synchronous=True)

    def files(self, client: MlflowClient, sent: Sent, *, ended: bool) -> None:
        """Send the records and the gallery; once the run has ended also the log, which has the reasons of switches."""
        last = [self.folder.metrics] if ended else []
        wanted = [(path, None) for path in (*self.folder.records, *last)]
        for path, where in [*wanted, *((path, "gallery") for path in self.folder.pictures)]:
            self._file(client, sent, path, where)

    def _file(self, client: MlflowClient, sent: Sent, path: Path, where: str | None) -> None:
        if not path.is_file():
            return
        changed, name = path.stat().st_mtime, path.name if where != "evaluation" else f"{where}/{path.name}"
        if sent.files.get(name) != changed:
            client.log_artifact(_id(sent), str(path), where)
            sent.files[name] = changed
            self.remember()

    def pictures(self, client: MlflowClient, sent: Sent) -> None:
        """Send the gallery as MLflow's `log_image` does, a picture for each step, so that its slider shows the way.

        `log_image` itself would name a picture anew each time, so that one that is sent again would be there twice.
        """
        for path in self.folder.pictures:
            changed = path.stat().st_mtime
            stamp, before = sent.pictures.get(path.name, [changed, -1.0])
            if before == changed:
                continue
            step = int(path.stem.removeprefix("step-"))
            name = f"gallery+step+{step}+timestamp+{int(1000 * stamp)}+{uuid.uuid5(uuid.NAMESPACE_URL, path.stem)}"
            with tempfile.TemporaryDirectory() as place:
                try:
                    made = _both_sizes(path, Path(place), name)
                except (OSError, ValueError) as error:
                    logger.warning("%s is no picture that can be read (%s); it is sent as a file alone", path, error)
                    made = []
                for size in made:
                    client.log_artifact(_id(sent), str(size), "images")
            if made:
                self.tags(client, sent, {"mlflow.loggedImages": "True"})
            sent.pictures[path.name] = [stamp, changed]
            self.remember()

    def evaluation(self, client: MlflowClient, sent: Sent) -> None:
        """Send the numbers and files of a later evaluation of the finished student."""
        from mlflow.entities import Metric

        if sent.later is None:
            return
        folder = self.folder.path / sent.later
        path = RunFolder(folder).evaluation
        result = read_json(path)
        if result is None:
            return
        changed = path.stat().st_mtime
        if sent.measured != changed:
            stamp, step = int(1000 * changed), max(sent.steps.get("metrics.jsonl", 0), 0)
            metrics = [Metric(name, value, stamp, step) for name, value in _measured(result)]
            self._send_points(client, sent, metrics)
            sent.measured = changed
            self.remember()
        for file in sorted(folder.glob("*.*")):
            self._file(client, sent, file, "evaluation")


def _id(sent: Sent) -> str:
    if sent.run_id is None:
        raise RuntimeError("the MLflow run has not been made yet")
    return sent.run_id


def _send_params(client: MlflowClient, run_id: str, values: dict[str, str], longest: int, *, last: bool) -> bool:
    """Send values of at most so many characters; False: the server takes shorter ones only."""
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    cut = [(name, shortened(value, longest)) for name, value in values.items()]
    for batch in batches(cut, most=PARAMS_PER_REQUEST, most_bytes=BYTES_PER_REQUEST):
        try:
            client.log_batch(run_id, params=[Param(name, value) for name, value in batch], synchronous=True)
        except MlflowException as error:
            if last or error.error_code != "INVALID_PARAMETER_VALUE" or "length" not in str(error):
                raise
            return False
    return True


def _metrics(point: dict[str, Any]) -> Iterator[Metric]:
    from mlflow.entities import Metric

    stamp = int(1000 * point.get("time", 0.0))
    for name, value in point.items():
        if name not in COUNTERS and isinstance(value, int | float):
            yield Metric(key_of(name), float(value), stamp, point["step"])


def _measured(result: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for suite, found in result["suites"].items():
        for name, value in found.items():
            if isinstance(value, int | float) and name != "n":
                clean = suite == "clean"
                yield key_of(f"{result['split']}/{name}" if clean else f"ood/{suite.replace('-', '_')}/{name}"), value


def _both_sizes(path: Path, place: Path, name: str) -> list[Path]:
    """The picture and its small copy, by the names that MLflow's page reads; OSError or ValueError: it is damaged."""
    from PIL import Image

    made = [place / f"{name}.png", place / f"{name}+compressed.webp"]
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.save(made[0])
    picture.thumbnail((SMALL_SIDE, SMALL_SIDE))
    picture.save(made[1])
    return made
