"""The driver of a search: one teacher, one pool, trials by Ray Tune, and the results."""

from __future__ import annotations

import functools
import logging
import os
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from typing_extensions import override

from hard_ray.config.layers import read_layer
from hard_ray.config.loader import validate
from hard_ray.config.run import RunConfig, without_extras
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.space import Search
from hard_ray.data.account_text import say_account
from hard_ray.data.index import ImageIndex
from hard_ray.data.schedule import train_schedule
from hard_ray.distillation.teacher import TeacherSpec, check_identity
from hard_ray.errors import HardrayError, StoppedError
from hard_ray.files import beginning, make_folder, write_json, write_text
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.cluster.demand import worker_resources
from hard_ray.orchestration.cluster.resources import Cluster, data_shares, resolve_compilation, resolve_runtime
from hard_ray.orchestration.extras import extra
from hard_ray.orchestration.pool.client import RayPool
from hard_ray.orchestration.pool.server import PoolServer
from hard_ray.orchestration.run.driver import say_shortage
from hard_ray.orchestration.run.follow import end_tracking, follow, use_address
from hard_ray.orchestration.run.plan import WorkerPlan, write_configs
from hard_ray.orchestration.run.reporter import Silent
from hard_ray.orchestration.run.signals import stop_on_signal
from hard_ray.orchestration.run.teacher import prepare_teacher, start_teacher_pool, teacher_plan
from hard_ray.orchestration.search.at_url import Keeper
from hard_ray.orchestration.search.begun import settle, write_begun
from hard_ray.orchestration.search.left_groups import LeftGroups, this_job
from hard_ray.orchestration.search.listener import Say, TrialListener
from hard_ray.orchestration.search.ray_tune import goals, run_trials
from hard_ray.orchestration.search.trial import TrialOrder
from hard_ray.preparation.checks import examine
from hard_ray.reports.search.results import draw_plots, forget_lost, leader_board, markdown, read_ledger, write_results
from hard_ray.runs.background import Tracking, each_in_turn
from hard_ray.runs.dataset import dataset_facts
from hard_ray.runs.place import Place, known_place, new_place
from hard_ray.runs.search_folder import SEARCH, SearchFolder
from hard_ray.runs.tracking import Follower, tracking_uri
from hard_ray.runs.trials import MLFLOW_WORDS, Trial, TrialStatus
from hard_ray.storage.mirror import shown_path


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A finished search."""

    folder: Path
    results: dict[str, Any]
    """The content of `results.json`."""
    board: dict[str, list[Any]]
    """The trials as a table: `columns` and `data`, the best on top."""
    importance: dict[str, dict[str, float]]
    """The share of each metric's variance that each setting explains."""
    tracking_problem: str | None
    """Why MLflow lacks part of the search; None: it has all."""


def tune_space(search: Search, output: Path, say: Say = lambda _: None) -> SearchResult:
    """Run a new search in `output`, which must be new.

    Raises:
        HardrayError: something the user can fix.
        StoppedError: Ctrl-C; the search can be resumed.
    """
    with new_place(output, say, SEARCH) as place:
        index, *networks = examine(without_extras(search.base))
        folder = SearchFolder(place.folder.expanduser().resolve(), place.url)
        use_address(search.base.tracking, folder.path.parent, say)
        make_folder(folder.path)
        with folder.locked():
            with beginning(folder.path):
                write_begun(folder, search)
            driver = SearchDriver(search, index, folder, say, place)
            say_shortage(search.base, networks, say, trials=driver.trials_at_once)
            return driver.run()


def resume(output: Path, say: Say = lambda _: None, *, search: Search | None = None) -> SearchResult:
    """Resume a search: ended trials are kept, running ones go on from checkpoints; raises what `tune_space` does.

    `search` is the one that the folder began with, perhaps with more trials; None: what the folder holds.
    """
    with known_place(output, say, SEARCH) as place:
        folder = SearchFolder(place.folder, place.url)
        with folder.locked():
            search = settle(folder, search)
            index, _, _ = examine(without_extras(search.base))
            use_address(search.base.tracking, folder.path.parent, say, goes_on=True)
            return SearchDriver(search, index, folder, say, place).run()


class SearchDriver:
    """One start of a search, new or resumed."""

    def __init__(
        self, search: Search, index: ImageIndex, folder: SearchFolder, say: Say, place: Place | None = None
    ) -> None:
        self.search = search
        self.index = index
        self.folder = folder
        self.say = say
        self.place = place or Place(folder.path, kind=SEARCH)
        self.keeper = Keeper(folder, self.place)
        self.ledger, self.before = read_ledger(folder, goals(search.space))
        self.identity: str | None = self.before.get("teacher_identity")
        self._began = time.monotonic()

    @property
    def trials_at_once(self) -> int:
        """The number of trials that run at the same time."""
        return min(self.search.space.concurrency, self.search.space.count)

    def run(self) -> SearchResult:
        """Start the cluster, the teacher and the trials, and write the results."""
        self.folder.stop_request.unlink(missing_ok=True)
        say_account(self.index, self.say)
        namespace = f"hardray-tune-{self.folder.path.name}-{os.getpid()}"
        tracking = self._tracking()
        status = "FAILED"
        try:
            runtime, trials = self.search.base.runtime, self.trials_at_once
            with connected(runtime, namespace=namespace, trials=trials, say=self.say) as cluster:
                self._search(cluster, namespace, tracking)
            status = "FINISHED"
        except (StoppedError, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            shares = self._write("stopped" if status == "KILLED" else status.lower(), plots=True)
            problem = self._close(tracking, status)
            self.place.send_last(self.say, failed=status != "FINISHED")
        results = self._results("finished")
        return SearchResult(self.folder.path, results, leader_board(self.ledger, self.search.space), shares, problem)

    def _search(self, cluster: Cluster, namespace: str, tracking: Tracking | None) -> None:
        base = self._resolved(cluster)
        if tracking is not None:
            tracking.start()
        teacher, pool = self._teacher(base, namespace)
        try:
            if pool is not None:  # known before the first trial, and the same after a resume
                self.identity = check_identity(RayPool(pool.address), self.identity)
            order = TrialOrder(
                base,
                self.search.source,
                self.folder.path,
                teacher,
                pool.address if pool else None,
                self.identity,
                data_shares(base.runtime, cluster, trials=self.trials_at_once),
                self.place.url,
            )
            self._run_trials(order, tracking)
        finally:
            if pool is not None:
                pool.stop()

    def _resolved(self, cluster: Cluster) -> RunConfig:
        """The base configuration of trials; what an earlier start chose from the hardware stays."""
        base = without_extras(self.search.base)
        if self.folder.trial_base.exists():
            base = validate([read_layer(self.folder.trial_base, saved=True)], source=str(self.folder.trial_base))
        base = resolve_compilation(resolve_runtime(base, cluster, trials=self.trials_at_once), self.say)
        write_text(self.folder.trial_base, dump_yaml(base))
        return base

    def _teacher(self, base: RunConfig, namespace: str) -> tuple[TeacherSpec | None, PoolServer | None]:
        """The teacher of all trials, which is trained first where it has no weights, and its pool."""
        spec, trained = prepare_teacher(base, self.index, self.folder, self.say, url=self.place.url)
        self.place.send()  # with a teacher that was trained before: replicas load it from the URL
        if spec is not None and not trained and not self.folder.part("teacher").is_finished:
            self._train_teacher(base)
        return spec, start_teacher_pool(base, spec, namespace, self.say)

    def _train_teacher(self, base: RunConfig) -> None:
        runs = (teacher_plan(base, self.folder),)
        write_configs(self.folder, self.index, runs)
        share = data_shares(base.runtime, Cluster(is_own=False, resources=ray.cluster_resources()))
        url, owner = self.place.url, self.place.owner
        plan = WorkerPlan(runs, None, None, share, self.folder.stop_request, url=url, owner=owner)
        self.place.send()
        try:
            reporter, mirror = TeacherReporter(self.say), self.place.mirror
            follow(plan, base, self.index, self.folder, reporter, mirror, again=self._again())
        except StoppedError:
            raise self._stopped() from None

    def _run_trials(self, order: TrialOrder, tracking: Tracking | None) -> None:
        space, runtime = self.search.space, order.base.runtime
        config = order.base
        schedule = train_schedule(self.index, config.data, batch_size=config.optim.batch_size, seed=config.seed)
        epochs = config.optim.total_updates(schedule.batches_per_epoch) / schedule.batches_per_epoch
        left = LeftGroups([worker_resources(runtime)] * runtime.num_workers, this_job())
        changed = functools.partial(self.changed, tracking)
        keeper = self.keeper
        listener = TrialListener(
            space, self.folder, self.ledger, left, self.say, changed, keeper.bring, keeper.end_stop
        )
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it logs every failed trial as an error
        try:
            with stop_on_signal(self.folder, self.say), keeper.kept(self._running):
                run_trials(space, pickle.dumps(order), self.index, self.folder.tuner, listener, epochs=epochs)
        except tune.TuneError as error:
            raise HardrayError(f"the search failed: {str(error).strip()}; {self._go_on()}") from error
        self._judge(listener)

    def _running(self) -> list[str]:
        """The trials that have not ended, for a thread."""
        return [trial.id for trial in list(self.ledger.trials.values()) if not trial.has_ended]

    def _judge(self, listener: TrialListener) -> None:
        if listener.interrupted:
            raise self._stopped()
        if self.ledger.hopeless is not None:
            raise HardrayError(f"the first trials all failed the same way, so the search ended: {self.ledger.hopeless}")
        forget_lost(self.ledger)
        if self.ledger.best is None:
            reasons = {trial.reason for trial in self.ledger.trials.values()}
            raise HardrayError(f"no trial was evaluated: {'; '.join(str(reason) for reason in reasons)}")

    def _stopped(self) -> StoppedError:
        return StoppedError(f"stopped; {self._go_on()}")

    def _go_on(self) -> str:
        return f"continue with `{self._again()}`"

    def _again(self) -> str:
        return SEARCH.command(shown_path(self.folder.path))

    def _results(self, status: str) -> dict[str, Any]:
        seconds = self.before.get("seconds", 0.0) + time.monotonic() - self._began
        return write_results(
            self.folder, self.search, self.ledger, status=status, identity=self.identity, seconds=seconds
        )

    def _write(self, status: str, *, plots: bool = False) -> dict[str, dict[str, float]]:
        self._results(status)
        shares: dict[str, dict[str, float]] = {}
        if plots:
            with extra("the plots", self.say):
                shares = draw_plots(self.folder, self.ledger, self.search.space)
        return shares

    def changed(self, tracking: Tracking | None, trial: Trial) -> None:
        """Send a trial that started or ended to MLflow; once it has ended, write the results so far."""
        if tracking is not None:
            self._track(tracking, trial)
        if trial.status is not TrialStatus.RUNNING:
            self._write("running")
        self.keeper.send_soon()

    def _tracking(self) -> Tracking | None:
        config = self.search.base.tracking
        if not config.enabled:
            return None
        write_json(self.folder.dataset, dataset_facts(self.search.base.data, self.index))
        uri = tracking_uri(config, self.folder)
        main = Follower(self.folder, self.search.base, self.folder.path.name, uri, verb="tune", say=self.say)
        tracking = Tracking([main], sample_system=config.system_metrics)
        for trial in self.ledger.trials.values():
            self._track(tracking, trial)
        return tracking

    def _track(self, tracking: Tracking, trial: Trial) -> None:
        main = tracking.followers[0]
        name = f"{main.name}/{trial.id}"
        found = next((follower for follower in tracking.followers if follower.name == name), None)
        if found is None:
            folder, base = self.folder.trial(trial.id), self.search.base
            found = Follower(folder, base, name, main.uri, parent=main, verb="tune", say=self.say)
            tracking.followers.append(found)
        found.ended = MLFLOW_WORDS[trial.status]

    def _close(self, tracking: Tracking | None, status: str) -> str | None:
        """End the MLflow runs; return the reason where not all could be sent."""
        if tracking is None or not tracking.is_started:
            return None
        main, *children = tracking.followers
        best = self.ledger.best
        measured = {} if best is None else {f"best/{name}": best.metrics[name] for name in self.search.space.metrics}
        table = self.folder.leader_board.name if self.folder.leader_board.is_file() else None
        text = markdown(self.ledger, self.search.space)
        calls = [functools.partial(child.close, child.ended or status) for child in children]
        calls.insert(0, functools.partial(main.close, status, text, metrics=measured, table=table))
        return end_tracking(tracking, functools.partial(each_in_turn, calls), status)


class TeacherReporter(Silent):
    """Passes on the sentences of the teacher's training, and shows no progress."""

    def __init__(self, say: Say) -> None:
        self._say = say

    @override
    def say(self, text: str) -> None:
        self._say(text)
