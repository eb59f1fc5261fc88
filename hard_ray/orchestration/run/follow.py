"""Following the workers of a plan until they end, and ending the MLflow runs with them."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import ray
import ray.train
from ray.train.torch import TorchTrainer

from hard_ray.config.records import TrackingConfig
from hard_ray.config.run import RunConfig
from hard_ray.data.index import ImageIndex
from hard_ray.errors import HardrayError, StoppedError, StorageError, command_line
from hard_ray.orchestration.cluster.demand import worker_resources
from hard_ray.orchestration.run.entry import train_worker
from hard_ray.orchestration.run.own_copy import STOP
from hard_ray.orchestration.run.plan import WorkerPlan
from hard_ray.orchestration.run.reporter import Reporter
from hard_ray.orchestration.run.signals import stop_on_signal
from hard_ray.orchestration.run.teacher import keep_teacher
from hard_ray.orchestration.shipped import Shipped
from hard_ray.runs.background import Tracking
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.place import is_followed
from hard_ray.runs.tracking import TrackingError, UnreachableError, check_address, ignored_variables, readable_problem
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.mirror import Mirror, shown_path, url_of
from hard_ray.storage.systems import file_system
from hard_ray.threads import in_background

WATCH_EVERY_S = 0.5
BRING_EVERY_S = 10.0
"""Pause between two looks for what the workers have sent to a URL."""
TRACKING_PATIENCE_S = {"FINISHED": 60.0, "FAILED": 15.0, "KILLED": 15.0}
"""How long the end of a run waits for MLflow; `hardray sync` sends the rest later."""


def follow(
    plan: WorkerPlan,
    config: RunConfig,
    index: ImageIndex,
    folder: RunFolder,
    reporter: Reporter,
    mirror: Mirror | None = None,
    *,
    again: str | None = None,
) -> None:
    """Start the workers of a plan and report on them until they end.

    With a `mirror`, workers write to folders of their own, and what they send to the URL is brought here. `again` is
    the command that continues what the plan is a part of; None: `hardray distill --resume` does.

    Ray Train blocks its caller, so it runs in a thread; this thread reports and handles Ctrl-C. Raises HardrayError if
    training failed, and StoppedError if it was asked to stop, and wrote a checkpoint.
    """
    trainer, outcome = _trainer(plan, config, index, folder), dict[str, Any]()
    thread = threading.Thread(target=_fit_into, args=(trainer, outcome), name="train", daemon=True)
    with stop_on_signal(folder, reporter.say), _brought(mirror, folder):
        thread.start()
        while thread.is_alive():
            thread.join(WATCH_EVERY_S)
            reporter.watch(plan.runs)
    if mirror is not None:
        mirror.pull(is_followed)
    keep_teacher(config, index, folder)
    _judge(outcome, folder, again)


@contextlib.contextmanager
def _brought(mirror: Mirror | None, folder: RunFolder) -> Iterator[None]:
    """In the background, bring what the workers send to the URL, and send them a request to stop."""
    if mirror is None:
        yield
        return
    stop = mirror.remote / STOP
    objects.delete(stop)

    def bring(ended: threading.Event) -> None:
        pulled = time.monotonic()
        asked = False
        while not ended.wait(WATCH_EVERY_S):
            with contextlib.suppress(StorageError):
                if folder.stop_request.exists() and not asked:
                    objects.write(stop, b"")
                    asked = True
                if time.monotonic() - pulled > BRING_EVERY_S:
                    pulled = time.monotonic()
                    mirror.pull(is_followed)

    with in_background(bring, "bring"):
        yield


def _trainer(plan: WorkerPlan, config: RunConfig, index: ImageIndex, folder: RunFolder) -> TorchTrainer:
    runtime = config.runtime
    system, path = (None, str(folder.path)) if plan.url is None else file_system(Remote.parse(plan.url))
    workers: Any = (runtime.least_workers, runtime.num_workers) if runtime.is_elastic else runtime.num_workers
    return TorchTrainer(
        cast(Any, train_worker),
        train_loop_config={"plan": pickle.dumps(plan), "index": Shipped.put(index)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=bool(runtime.gpus_per_worker),
            resources_per_worker=worker_resources(runtime),
            placement_strategy=runtime.placement_strategy.upper(),
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=path,
            storage_filesystem=system,
            failure_config=ray.train.FailureConfig(max_failures=runtime.max_failures),
        ),
    )


def _fit_into(trainer: TorchTrainer, outcome: dict[str, Any]) -> None:
    try:
        result: Any = trainer.fit()
        outcome["value"] = result.return_value
    except Exception as error:  # handed to the thread that waits
        outcome["error"] = error


def _judge(outcome: dict[str, Any], folder: RunFolder, again: str | None = None) -> None:
    if "error" in outcome:
        error = outcome["error"]
        if folder.stop_request.exists():  # Ray's processes may have got the signal too, from a service manager
            raise StoppedError(
                f"stopped, and Ray ended before it wrote a checkpoint; {continuation(folder, again)}"
            ) from error
        raise _readable(error, folder, again) from error
    returned = outcome["value"] or {}
    if returned.get("status") == "failed":
        raise HardrayError(returned["error"])
    if returned.get("status") == "stopped":
        raise StoppedError(f"stopped, with a checkpoint; {continuation(folder, again)}")


def continuation(folder: RunFolder, again: str | None = None) -> str:
    """How a run goes on, for messages; they promise a checkpoint only if there is one."""
    command = f"`{again or command_line('distill', '--resume', shown_path(folder.path))}`"
    if url_of(folder.path) is not None:
        return f"continue with {command}, which begins with the newest checkpoint there"
    if any(folder.path.glob("**/checkpoints/step-*")):  # of the main training, a control, or the teacher
        return f"continue with {command}"
    return f"there is no checkpoint yet, so {command} begins with the first update"


def _readable(error: BaseException, folder: RunFolder, again: str | None = None) -> HardrayError:
    """A training failure as one message: a worker's own HardrayError where there is one."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, HardrayError):
            return cause
    text = str(error).strip()
    return HardrayError(f"training failed; {continuation(folder, again)}\n{text}")


def use_address(config: TrackingConfig, runs: Path, say: Callable[[str], None], *, goes_on: bool = False) -> None:
    """Use MLflow's address once, as the run will; TrackingError: it cannot be used as it is.

    One that does not answer now is only said, and so is any of a run that goes on: `hardray sync` sends the rest later.
    """
    if not config.enabled:
        return
    for line in ignored_variables():
        say(line)
    try:
        check_address(config, runs, create=True)
    except TrackingError as error:
        if not (goes_on or isinstance(error, UnreachableError)):
            raise
        say(f"{readable_problem(error)}; training goes on, and `hardray sync` sends the run later")


def end_tracking(tracking: Tracking, close: Callable[[], None], status: str) -> str | None:
    """Send what is left to MLflow and end its runs by `close`; the reason where not all could be sent."""
    patience = TRACKING_PATIENCE_S[status]
    if tracking.stop(close, patience_s=patience):
        return None
    return tracking.problem or f"it did not answer within {patience:g} s"
