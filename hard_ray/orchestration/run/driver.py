"""The driver of a run: checks everything, starts what is needed, watches, and says what came out."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
import ray.train
from ray.train.torch import TorchTrainer

from hard_ray.config.layers import read_layer
from hard_ray.config.loader import absolute, validate
from hard_ray.config.run import RunConfig, as_control, asks_teacher
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.teacher_training import teacher_run, teacher_training
from hard_ray.data.index import ImageIndex
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.distillation.teacher_cache import cached_teacher, is_there, teacher_spec
from hard_ray.errors import HardrayError, RunFolderError, StoppedError
from hard_ray.files import read_json, replacing_folder, write_json, write_text
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.cluster.demand import worker_resources
from hard_ray.orchestration.cluster.hardware import free_disk_gib
from hard_ray.orchestration.cluster.resources import data_shares, resolve_runtime
from hard_ray.orchestration.pool.server import PoolServer, start_pool
from hard_ray.orchestration.run.entry import train_worker
from hard_ray.orchestration.run.plan import RunPlan, WorkerPlan
from hard_ray.orchestration.run.reporter import Reporter, Silent
from hard_ray.orchestration.run.signals import stop_on_signal
from hard_ray.preparation.checks import examine
from hard_ray.runs.background import Tracking
from hard_ray.runs.folder import RunFolder, check_new_run, create_run, open_run
from hard_ray.runs.summary import markdown, summarise
from hard_ray.runs.tracking import Follower, tracking_uri

WATCH_EVERY_S = 0.5
TRACKING_PATIENCE_S = {"FINISHED": 60.0, "FAILED": 15.0, "KILLED": 15.0}
"""How long the end of a run waits for MLflow; what is not sent by then is sent by `hardray sync`."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run."""

    folder: Path
    config: RunConfig
    summary: dict[str, Any]
    tracking_uri: str | None
    tracking_problem: str | None
    """Why MLflow has not been told everything; None where it has."""


def distill(
    config: RunConfig, output: Path, reporter: Reporter | None = None, *, learner: str = "student"
) -> RunResult:
    """Train a student, from nothing to a summary.

    Args:
        config: what to do.
        output: the run's folder, which must be new.
        reporter: hears of progress.
        learner: what messages call the network that is trained.

    Raises:
        HardrayError: something the user can mend.
        StoppedError: Ctrl-C; the run can be resumed.
    """
    check_new_run(output)
    config = absolute(config)
    index, _, _ = examine(config, learner=learner)
    folder = create_run(output)
    with folder.locked():
        return Driver(config, index, folder, reporter or Silent()).run()


def train_teacher(config: RunConfig, output: Path, reporter: Reporter | None = None) -> RunResult:
    """Train or fine-tune the teacher of a configuration by its recipe, as a run of its own.

    Raises:
        HardrayError: something the user can mend.
        StoppedError: Ctrl-C; the run can be resumed.
    """
    return distill(teacher_run(config), output, reporter, learner="teacher")


def resume(output: Path, reporter: Reporter | None = None) -> RunResult:
    """Continue a run from its newest checkpoint, with the configuration it began with.

    Raises:
        HardrayError: there is no run, or something the user can mend.
        StoppedError: Ctrl-C; the run can be resumed.
    """
    folder = open_run(output)
    with folder.locked():
        config = validate([read_layer(folder.config)], source=str(folder.config))
        index, _, _ = examine(config)
        return Driver(config, index, folder, reporter or Silent()).run()


class Driver:
    """One start of a run, or of a trial, which brings a teacher pool and Ray along."""

    def __init__(self, config: RunConfig, index: ImageIndex, folder: RunFolder, reporter: Reporter) -> None:
        self.config = config
        self.index = index
        self.folder = folder
        self.reporter = reporter

    def run(self) -> RunResult:
        """From a connection to Ray to a summary."""
        index = self.index
        self.check()
        namespace = f"hardray-{self.folder.path.name}-{os.getpid()}"
        with connected(self.config.runtime, namespace=namespace, say=self.reporter.say) as cluster:
            self.config = resolve_runtime(self.config, cluster)
            teacher, trained = self.teacher(index)
            runs = self.plans(train_teacher=not trained)
            self.write_configs(runs)
            tracking = self._tracking(runs)
            if tracking:
                tracking.start()
            pool = self.start_pool(teacher, namespace)
            address, shares = pool.address if pool else None, data_shares(self.config.runtime, cluster)
            plan = WorkerPlan(runs, teacher, address, shares, self.folder.stop_request)
            problem = self.carry_out(plan, tracking, pool)
        uri = tracking_uri(self.config.tracking, self.folder) if tracking else None
        return RunResult(self.folder.path, self.config, read_json(self.folder.summary), uri, problem)

    def carry_out(
        self, plan: WorkerPlan, tracking: Tracking | None = None, pool: PoolServer | None = None
    ) -> str | None:
        """Make the trainings of a plan and write what came out; what MLflow could not be told, if anything."""
        status = "FAILED"
        try:
            self.fit(plan)
            status = "FINISHED"
        except StoppedError:
            status = "KILLED"
            raise
        finally:
            self.reporter.close()
            if pool is not None:
                pool.stop()
            problem = self._close(tracking, plan.runs, status)
        return problem

    # ------------------------------------------------------------------- checks

    def check(self) -> None:
        """Look at what an earlier start left, and forget its request to stop.

        Raises:
            RunFolderError: the data's classes changed, or no disk is free.
        """
        self._check_classes()
        self._check_disk()
        self.folder.stop_request.unlink(missing_ok=True)

    def _check_classes(self) -> None:
        """The class order is saved with the run, and must be the same after a resume."""
        path = self.folder.classes
        if path.exists() and path.read_text(encoding="utf-8").splitlines() != list(self.index.classes):
            raise RunFolderError(f"the data's classes are not those in {path}; put the data back, or start a new run")

    def _check_disk(self) -> None:
        if free_disk_gib(self.folder.path) < 0.1:
            raise RunFolderError(
                f"{self.folder.path}: less than 0.1 GiB of disk is free; make room, or choose another --output"
            )

    # ------------------------------------------------------------------ teacher

    def teacher(self, index: ImageIndex) -> tuple[TeacherSpec | None, bool]:
        """What the pool's replicas become, and whether its weights are there already; None where none is wanted."""
        config = self.config
        teacher, trained = config.teacher, True
        if not teacher.has_weights and not asks_teacher(config):
            return None, True
        if not teacher.has_weights:
            cached = cached_teacher(self.config, index)
            own = self.folder.part("teacher")
            trained = is_there(cached) and not own.config.exists()
            teacher = teacher.model_copy(update={"checkpoint": cached if trained else own.student})
            self.reporter.say(
                f"teacher {teacher.model}: trained before, from {cached}"
                if trained
                else f"teacher {teacher.model}: has no weights, so it is trained first"
            )
        return teacher_spec(config, teacher, index), trained

    def _keep_teacher(self, index: ImageIndex) -> None:
        """Put a teacher that was trained here into the cache."""
        own, cached = self.folder.part("teacher"), cached_teacher(self.config, index)
        if not own.is_finished or is_there(cached):
            return
        with contextlib.suppress(OSError), replacing_folder(cached) as temporary:  # a cache is a convenience
            for path in own.student.iterdir():
                shutil.copy2(path, temporary)

    def start_pool(self, spec: TeacherSpec | None, namespace: str) -> PoolServer | None:
        """The pool's actors, unless the student workers hold the teacher themselves."""
        runtime = self.config.runtime
        if spec is None or runtime.teacher.placement == "colocated" or not asks_teacher(self.config):
            return None
        return start_pool(spec, runtime, namespace=namespace, say=self.reporter.say)

    # -------------------------------------------------------------------- plans

    def plans(self, *, train_teacher: bool) -> tuple[RunPlan, ...]:
        """The trainings of the run, one after the other."""
        config, folder = self.config, self.folder
        plans = []
        if train_teacher and asks_teacher(self.config):
            plans.append(RunPlan("teacher", "teacher", teacher_training(config), folder.part("teacher").path))
        for control in config.experiment.controls:
            path = folder.part(f"controls/{control}").path
            plans.append(RunPlan(control, "control", as_control(config, control), path))
        plans.append(RunPlan(config.experiment.name or folder.path.name, "main", config, folder.path))
        return tuple(plans)

    def write_configs(self, runs: tuple[RunPlan, ...]) -> None:
        """From here on the folder is a run; a mistake that was found before leaves it as it was."""
        write_text(self.folder.classes, "".join(f"{name}\n" for name in self.index.classes))
        for run in runs:
            run.folder.mkdir(parents=True, exist_ok=True)
            if not RunFolder(run.folder).config.exists():
                write_text(RunFolder(run.folder).config, dump_yaml(run.config))

    def _tracking(self, runs: tuple[RunPlan, ...]) -> Tracking | None:
        config = self.config.tracking
        if not config.enabled:
            return None
        uri = tracking_uri(config, self.folder)
        main = Follower(self.folder, self.config, runs[-1].name, uri)
        others = [
            Follower(RunFolder(run.folder), run.config, f"{main.name}/{run.name}", uri, parent=main)
            for run in runs[:-1]
        ]
        return Tracking([main, *others], sample_system=config.system_metrics)

    # ----------------------------------------------------------------- training

    def fit(self, plan: WorkerPlan) -> None:
        """Train in a thread, so that this one can watch, and hear Ctrl-C.

        Raises:
            HardrayError: training failed.
            StoppedError: it was asked to stop, and wrote a checkpoint.
        """
        runtime = self.config.runtime
        workers: Any = (runtime.least_workers, runtime.num_workers) if runtime.is_elastic else runtime.num_workers
        shipped = ray.put(self.index)
        trainer = TorchTrainer(
            cast(Any, train_worker),
            train_loop_config={"plan": pickle.dumps(plan), "index": [shipped]},
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers,
                use_gpu=bool(runtime.gpus_per_worker),
                resources_per_worker=worker_resources(self.config.runtime),
                placement_strategy=runtime.placement_strategy.upper(),
            ),
            run_config=ray.train.RunConfig(
                name="ray",
                storage_path=str(self.folder.path),
                failure_config=ray.train.FailureConfig(max_failures=runtime.max_failures),
            ),
        )
        outcome: dict[str, Any] = {}
        thread = threading.Thread(target=_fit_into, args=(trainer, outcome), name="train", daemon=True)
        with stop_on_signal(self.folder, self.reporter.say):
            thread.start()
            while thread.is_alive():
                thread.join(WATCH_EVERY_S)
                self.reporter.watch(plan.runs)
        self._judge(outcome)

    def _judge(self, outcome: dict[str, Any]) -> None:
        """Turn what the workers returned, or how they failed, into a result or an error."""
        self._keep_teacher(self.index)
        if "error" in outcome:
            raise _readable(outcome["error"], self.folder) from outcome["error"]
        told = outcome["value"] or {}
        if told.get("status") == "failed":
            raise HardrayError(told["error"])
        if told.get("status") == "stopped":
            raise StoppedError(
                f"stopped, with a checkpoint; continue with `hardray distill --resume {self.folder.path}`"
            )

    def _close(self, tracking: Tracking | None, runs: tuple[RunPlan, ...], status: str) -> str | None:
        """Write the summary and end the MLflow runs; what could not be sent, if anything."""
        description = None
        if status == "FINISHED":
            summary = summarise(self.folder, self.config)
            write_json(self.folder.summary, summary)
            description = markdown(summary, self.config)
        if tracking is None:
            return None

        def close() -> None:
            for follower in tracking.followers:
                finished = follower.folder.is_finished
                text = description if follower is tracking.followers[0] else None
                follower.close("FINISHED" if finished else status, text)

        patience = TRACKING_PATIENCE_S[status]
        if tracking.stop(close, patience_s=patience):
            return None
        return tracking.problem or f"it did not answer within {patience:g} s"


def _fit_into(trainer: TorchTrainer, outcome: dict[str, Any]) -> None:
    try:
        result: Any = trainer.fit()
        outcome["value"] = result.return_value
    except Exception as error:  # handed to the thread that waits
        outcome["error"] = error


def _readable(error: BaseException, folder: RunFolder) -> HardrayError:
    """A training failure as one message: the workers' own words where they have some."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, HardrayError):
            return cause
    text = str(error).strip()
    return HardrayError(
        f"training failed; the run can go on from its last checkpoint with "
        f"`hardray distill --resume {folder.path}`\n{text}"
    )
