"""The driver of a run: checks it, starts its actors, reports on it, and writes its summary."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hard_ray.config.layers import read_layer
from hard_ray.config.loader import absolute, validate
from hard_ray.config.run import RunConfig, as_control, asks_teacher
from hard_ray.config.teacher_training import teacher_run
from hard_ray.data.account_text import say_account
from hard_ray.data.index import ImageIndex
from hard_ray.errors import RunFolderError, StoppedError
from hard_ray.files import read_json, write_json
from hard_ray.networks.network import Network
from hard_ray.orchestration.cluster.address import address_of
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.cluster.hardware import free_disk_gib
from hard_ray.orchestration.cluster.memory import memory_plan, shortage
from hard_ray.orchestration.cluster.resources import data_shares, resolve_compilation, resolve_runtime
from hard_ray.orchestration.pool.server import PoolServer
from hard_ray.orchestration.run.follow import end_tracking, follow, use_address
from hard_ray.orchestration.run.plan import RunPlan, WorkerPlan, write_configs
from hard_ray.orchestration.run.reporter import Reporter, Silent
from hard_ray.orchestration.run.teacher import prepare_teacher, start_teacher_pool, teacher_plan
from hard_ray.preparation.checks import augmentor_notes, examine, training_notes
from hard_ray.runs.background import Tracking, each_in_turn
from hard_ray.runs.dataset import dataset_facts
from hard_ray.runs.folder import RunFolder, create_run, open_run
from hard_ray.runs.place import Place, known_place, new_place
from hard_ray.runs.summary import markdown, summarise
from hard_ray.runs.tracking import Follower, tracking_uri


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run."""

    folder: Path
    config: RunConfig
    summary: dict[str, Any]
    tracking_uri: str | None
    tracking_problem: str | None
    """Why MLflow did not receive everything; None if it did."""


def distill(config: RunConfig, output: Path, reporter: Reporter | None = None, *, role: str = "student") -> RunResult:
    """Train a student in `output`, which must be new, and write a summary; messages call the network by its `role`.

    Raises:
        HardrayError: something that the user can fix.
        StoppedError: Ctrl-C; the run can be resumed.
    """
    config, reporter = absolute(config), reporter or Silent()
    with new_place(output, reporter.say) as place:
        return _distill(config, place, reporter, role)


def _distill(config: RunConfig, place: Place, reporter: Reporter, role: str) -> RunResult:
    index, *networks = examine(config, role=role)
    use_address(config.tracking, place.folder.expanduser().resolve().parent, reporter.say)
    folder = create_run(place.folder)
    with folder.locked():
        folder.forget_beginning()
        for network in networks:
            say_notes(network, reporter.say)
        for note in (*training_notes(config, networks[0]), *augmentor_notes(config)):
            reporter.say(note)
        say_shortage(config, networks, reporter.say)
        verb = "distill" if role == "student" else "train-teacher"
        return Driver(config, index, folder, reporter, verb, place).run()


def say_notes(network: Network, say: Callable[[str], None]) -> None:
    """Say what was chosen in the file of a network's weights, and what was left out."""
    for note in network.notes:
        say(f"weights of {network.architecture}: {note}")


def train_teacher(config: RunConfig, output: Path, reporter: Reporter | None = None) -> RunResult:
    """Train or fine-tune a configuration's teacher by its recipe, as a run of its own; raises what `distill` does."""
    return distill(teacher_run(config), output, reporter, role="teacher")


def resume(output: Path, reporter: Reporter | None = None) -> RunResult:
    """Continue a run from its newest checkpoint, with the configuration it began with; raises what `distill` does."""
    reporter = reporter or Silent()
    with known_place(output, reporter.say) as place, open_run(place.folder).locked():
        folder = open_run(place.folder)
        config = validate([read_layer(folder.config, saved=True)], source=str(folder.config))
        index, *networks = examine(config)
        say_shortage(config, networks, reporter.say)
        use_address(config.tracking, folder.path.parent, reporter.say, goes_on=True)
        return Driver(config, index, folder, reporter, place=place).run()


def say_shortage(
    config: RunConfig, networks: Sequence[nn.Module], say: Callable[[str], None], *, trials: int = 1
) -> None:
    """Say if student and teacher need more memory than this machine allows, unless a cluster is joined."""
    if address_of(config.runtime) is None and (text := shortage(memory_plan(config, *networks, trials=trials))):
        say(text)


class Driver:
    """One start of a run."""

    def __init__(
        self,
        config: RunConfig,
        index: ImageIndex,
        folder: RunFolder,
        reporter: Reporter,
        verb: str = "distill",
        place: Place | None = None,
    ) -> None:
        self.config = config
        self.index = index
        self.folder = folder
        self.reporter = reporter
        self.verb = verb
        self.place = place or Place(folder.path)

    def run(self) -> RunResult:
        """Connect to Ray, train, and write the summary."""
        index = self.index
        self.check()
        say_account(index, self.reporter.say)
        namespace = f"hardray-{self.folder.path.name}-{os.getpid()}"
        with connected(self.config.runtime, namespace=namespace, say=self.reporter.say) as cluster:
            self.config = resolve_compilation(resolve_runtime(self.config, cluster), self.reporter.say)
            url = self.place.url
            teacher, trained = prepare_teacher(self.config, index, self.folder, self.reporter.say, url=url)
            runs = self.plans(train_teacher=not trained)
            write_configs(self.folder, index, runs)
            write_json(self.folder.dataset, dataset_facts(self.config.data, index))
            self.place.send()
            pool = start_teacher_pool(self.config, teacher, namespace, self.reporter.say)
            address, shares = pool.address if pool else None, data_shares(self.config.runtime, cluster)
            plan = WorkerPlan(runs, teacher, address, shares, self.folder.stop_request, url=url, owner=self.place.owner)
            tracking = self._tracking(runs)
            if tracking:
                tracking.start()
            problem = self.carry_out(plan, tracking, pool)
        uri = tracking_uri(self.config.tracking, self.folder) if tracking else None
        return RunResult(self.folder.path, self.config, read_json(self.folder.summary), uri, problem)

    def carry_out(
        self, plan: WorkerPlan, tracking: Tracking | None = None, pool: PoolServer | None = None
    ) -> str | None:
        """Make the trainings of a plan and write the summary; return the reason if MLflow lacks a part of them."""
        status = "FAILED"
        try:
            follow(plan, self.config, self.index, self.folder, self.reporter, self.place.mirror)
            status = "FINISHED"
        except (StoppedError, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            self.reporter.close()
            if pool is not None:
                pool.stop()
            problem = self._close(tracking, plan.runs, status)
            self.place.send_last(self.reporter.say, failed=status != "FINISHED")
        return problem

    def check(self) -> None:
        """Forget a request to stop; raises RunFolderError if the data's classes changed, or no disk is free."""
        path = self.folder.classes  # their order is saved with the run, and must be the same after a resume
        if path.exists() and path.read_text(encoding="utf-8").splitlines() != list(self.index.classes):
            raise RunFolderError(f"the data's classes are not those in {path}; put the data back, or start a new run")
        if free_disk_gib(self.folder.path) < 0.1:
            raise RunFolderError(
                f"{self.folder.path}: less than 0.1 GiB of disk is free; make room, or choose another --output"
            )
        self.folder.stop_request.unlink(missing_ok=True)

    def plans(self, *, train_teacher: bool) -> tuple[RunPlan, ...]:
        """The trainings of the run, one after the other."""
        config, folder = self.config, self.folder
        plans = []
        if train_teacher and asks_teacher(self.config):
            plans.append(teacher_plan(config, folder))
        for control in config.experiment.controls:
            path = folder.part(f"controls/{control}").path
            plans.append(RunPlan(control, "control", as_control(config, control), path))
        plans.append(RunPlan(config.experiment.name or folder.path.name, "main", config, folder.path))
        return tuple(plans)

    def _tracking(self, runs: tuple[RunPlan, ...]) -> Tracking | None:
        config = self.config.tracking
        if not config.enabled:
            return None
        uri = tracking_uri(config, self.folder)
        say, verb = self.reporter.say, self.verb
        main = Follower(self.folder, self.config, runs[-1].name, uri, verb=verb, say=say)
        others = [
            Follower(RunFolder(run.folder), run.config, f"{main.name}/{run.name}", uri, parent=main, verb=verb, say=say)
            for run in runs[:-1]
        ]
        return Tracking([main, *others], sample_system=config.system_metrics)

    def _close(self, tracking: Tracking | None, runs: tuple[RunPlan, ...], status: str) -> str | None:
        """Write the summary and end the MLflow runs; return the reason if a part could not be sent."""
        description = None
        if status == "FINISHED":
            summary = summarise(self.folder, self.config, self.index)
            write_json(self.folder.summary, summary)
            description = markdown(summary, self.config)
        if tracking is None:
            return None

        def close(follower: Follower) -> None:
            text = description if follower is tracking.followers[0] else None
            follower.close("FINISHED" if follower.folder.is_finished else status, text)

        calls = [functools.partial(close, follower) for follower in tracking.followers]
        return end_tracking(tracking, functools.partial(each_in_turn, calls), status)
