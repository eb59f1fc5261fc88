"""The driver of a recommendation: checks it, starts one teacher pool for all of it, and writes what it found."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hard_ray.config.loader import absolute
from hard_ray.config.recommend import RecommendRun, with_teacher
from hard_ray.config.run import RunConfig
from hard_ray.data.account_text import say_account
from hard_ray.data.index import ImageIndex
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherPool, TeacherSpec, check_identity
from hard_ray.errors import StoppedError, StorageError
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.cluster.resources import Cluster, data_shares, resolve_compilation, resolve_runtime
from hard_ray.orchestration.extras import extra
from hard_ray.orchestration.pool.client import RayPool
from hard_ray.orchestration.pool.server import PoolServer
from hard_ray.orchestration.recommend.measure import held_out, measurement
from hard_ray.orchestration.recommend.pilots import PilotProgress, Say, Trainer
from hard_ray.orchestration.recommend.record import Record
from hard_ray.orchestration.recommend.scores import Scores
from hard_ray.orchestration.recommend.stages import Stages, corrupted_images
from hard_ray.orchestration.run.driver import say_shortage
from hard_ray.orchestration.run.follow import follow
from hard_ray.orchestration.run.plan import WorkerPlan, write_configs
from hard_ray.orchestration.run.teacher import prepare_teacher, start_teacher_pool, teacher_plan
from hard_ray.orchestration.stream import await_streams
from hard_ray.preparation.recommend_checks import check, try_pilots
from hard_ray.preparation.recommend_folder import RECOMMENDATION, RecommendFolder
from hard_ray.reports.recommendation import write_page
from hard_ray.runs.place import Place, known_place, new_place
from hard_ray.storage.mirror import shown_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A finished recommendation."""

    folder: Path
    record: dict[str, Any]
    """The content of `recommendation.json`."""
    page: Path
    config: Path
    """The recommended configuration."""


def recommend(config: RunConfig, settings: RecommendRun, output: Path, say: Say = lambda _: None) -> Recommendation:
    """Find the student to train, in `output`, which must be new.

    Raises:
        HardrayError: something the user can fix, such as a budget that is too small for two pilots.
        StoppedError: Ctrl-C; `resume` continues.
    """
    config = absolute(config)
    with new_place(output, say, RECOMMENDATION) as place:
        folder = RecommendFolder(place.folder.expanduser().resolve())
        index, *networks = check(config, settings)
        say_shortage(config, networks, say)
        try_pilots(config, settings, index, *networks)
        with folder.locked():
            folder.begin(config, settings)
            return Driver(config, settings, index, folder, say, place).run()


def resume(output: Path, say: Say = lambda _: None) -> Recommendation:
    """Continue a recommendation: finished pilots and measurements are kept; raises what `recommend` does."""
    with known_place(output, say, RECOMMENDATION) as place, RecommendFolder(place.folder).locked():
        folder = RecommendFolder(place.folder)
        config, settings = folder.begun()
        index, *networks = check(config, settings)
        say_shortage(config, networks, say)
        return Driver(config, settings, index, folder, say, place).run()


class Driver:
    """One start of a recommendation."""

    def __init__(
        self,
        config: RunConfig,
        settings: RecommendRun,
        index: ImageIndex,
        folder: RecommendFolder,
        say: Say,
        place: Place,
    ) -> None:
        self.config = config
        self.settings = settings
        self.index = index
        self.folder = folder
        self.say = say
        self.place = place
        self.record = Record.read(folder)
        self.record.written = self._send

    def run(self) -> Recommendation:
        """Connect to Ray, go through the stages, and write the page and the recommended configuration."""
        folder, status = self.folder, "failed"
        say_account(self.index, self.say)
        try:
            with self._stages() as stages:
                stages.run()
            status = "finished"
        except (StoppedError, KeyboardInterrupt):
            status = "stopped"
            raise StoppedError(f"stopped; what was measured is kept: continue with `{self._again()}`") from None
        finally:
            self.record.write(status=status)
            with extra("the page", self.say):
                write_page(folder)
            self.place.send_last(self.say, failed=status != "finished")
        return Recommendation(folder.path, self.record.values, folder.report, folder.recommended)

    def _send(self) -> None:
        """Send what was found so far to the URL; a failure is only said: the end tries again."""
        try:
            self.place.send()
        except StorageError as error:
            logger.warning("%s", error)

    def _again(self) -> str:
        return RECOMMENDATION.command(shown_path(self.folder.path))

    @contextmanager
    def _stages(self) -> Iterator[Stages]:
        """Start the cluster, the teacher and its pool, and everything that the stages share; end it afterwards."""
        config = with_teacher(self.config)
        namespace = f"hardray-recommend-{self.folder.path.name}-{os.getpid()}"
        with connected(config.runtime, namespace=namespace, say=self.say) as cluster:
            base = resolve_compilation(resolve_runtime(config, cluster), self.say)
            torch.set_num_threads(base.runtime.threads or 1)
            spec = self._teacher(base, cluster)
            self.record.start_clock()  # every run of the configuration needs its teacher: its training is not counted
            pool = start_teacher_pool(base, spec, namespace, self.say)
            try:
                yield self._built(base, spec, pool, cluster)
            finally:
                await_streams()
                if pool is not None:
                    pool.stop()

    def _teacher(self, base: RunConfig, cluster: Cluster) -> TeacherSpec:
        """The teacher, which is trained first where it has no weights."""
        folder, place = self.folder.run, self.place
        spec, trained = prepare_teacher(base, self.index, folder, self.say, url=place.url)
        assert spec is not None
        place.send()  # with a teacher that was trained before: replicas load it from the URL
        if not trained and not folder.part("teacher").is_finished:
            runs = (teacher_plan(base, folder),)
            write_configs(folder, self.index, runs)
            folder.stop_request.unlink(missing_ok=True)
            share = data_shares(base.runtime, cluster)
            plan = WorkerPlan(runs, None, None, share, folder.stop_request, url=place.url, owner=place.owner)
            place.send()
            follow(plan, base, self.index, folder, PilotProgress(self.say), place.mirror, again=self._again())
        return spec

    def _built(self, base: RunConfig, spec: TeacherSpec, server: PoolServer | None, cluster: Cluster) -> Stages:
        pool: TeacherPool = LocalPool(FrozenNetwork.build(spec)) if server is None else RayPool(server.address)
        record, share = self.record, data_shares(base.runtime, cluster)
        identity = check_identity(pool, record.values.get("teacher_identity"))
        record.values["teacher_identity"] = identity
        held = held_out(self.index, self.settings.images, seed=base.data.split_seed)
        corrupted = corrupted_images(base, self.settings, held, record, self.say)
        address = None if server is None else server.address
        return Stages(
            config=base,
            own=self.config,
            settings=self.settings,
            index=held,
            folder=self.folder,
            record=record,
            trainer=Trainer(base, held, spec, address, identity, share, self.place, self.say, self._again()),
            measurement=measurement(base, held, pool, share, self.settings.suites, slow_images=corrupted),
            scores=Scores(base, self.index, self.folder.scores, pool, identity, share, self.say),
            say=self.say,
        )
