"""`hardray score-augmentations`: Ray Data streams images into this process, the teacher pool answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hard_ray.augmentors.base import Augmentor
from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.augmentor import IdentityAugmentor
from hard_ray.config.data import describe
from hard_ray.config.loader import absolute
from hard_ray.config.run import RunConfig, refuse_embedding
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.scoring import CLEAN, ScoreRun
from hard_ray.data.account_text import say_account
from hard_ray.data.augment import check_augment
from hard_ray.data.batch import Batch
from hard_ray.data.index import ImageIndex
from hard_ray.data.schedule import train_schedule
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherPool, TeacherSpec, check_identity
from hard_ray.distillation.teacher_cache import teacher_spec, trained_teacher
from hard_ray.errors import StoppedError, TeacherError
from hard_ray.files import beginning, write_json, write_text
from hard_ray.maths.t_stddev import ITERATIONS
from hard_ray.networks.network import build_teacher, image_spec
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.cluster.resources import data_shares, resolve_runtime
from hard_ray.orchestration.extras import extra
from hard_ray.orchestration.pool.client import RayPool
from hard_ray.orchestration.pool.server import start_pool
from hard_ray.orchestration.progress import SAY_EVERY_S
from hard_ray.orchestration.run.signals import stop_on_signal
from hard_ray.orchestration.stream import Pipeline, await_streams
from hard_ray.preparation.answers import answered_index
from hard_ray.preparation.folders import KnownMeans, ScoreFolder, check_score_folder
from hard_ray.preparation.scoring import Score, Scoring, pearson, ranking
from hard_ray.reports.figures import save_png
from hard_ray.reports.score_plots import draw_correlation, draw_scores
from hard_ray.runs.bad_images import BadImages
from hard_ray.runs.summary import versions
from hard_ray.storage.mirror import shown_path


def score_augmentations(
    config: RunConfig,
    run: ScoreRun,
    output: Path,
    *,
    losses: Mapping[str, float] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Score augmentations, or continue in `output`; answers that it holds are not asked for again.

    `config` gives `runtime`; its data and teacher are those of `run`. Other augmentors of the same comparison may be in
    `output` already. `losses` are students' test losses by augmentor, to correlate with the scores. Returns the content
    of `scores.json`.

    Raises:
        HardrayError: a mistake that the message explains.
        StoppedError: Ctrl-C; the same call continues.
    """
    refuse_embedding(config, "T. stddev is the variation of a teacher's class probabilities")
    folder = ScoreFolder(output.expanduser().resolve())
    config, run = absolute(config), absolute(run)
    in_folder = check_score_folder(folder, run)
    index, augmentors = examine(run)
    say_account(index, say)
    known = KnownMeans.read(folder.means, index.fingerprint())
    _check_weights(config, index, known)
    with folder.locked():
        folder.run.stop_request.unlink(missing_ok=True)
        if known.lacks((CLEAN, *augmentors), run.groups):
            with asking(config, run, index, say) as (pool, pipeline):
                known.identity = check_identity(pool, known.identity)
                with beginning(folder.path):
                    write_text(folder.settings, dump_yaml(in_folder))
                Scorer(run, folder, known, pool, pipeline, say).ask(augmentors)
        else:
            say("all of it was scored before: the teacher is not asked again")
            write_text(folder.settings, dump_yaml(in_folder))
        return finish(folder, in_folder, known, losses, say)


def examine(run: ScoreRun) -> tuple[ImageIndex, dict[str, Augmentor]]:
    """Check data and augmentors before anything starts; return the index, and by name the augmentors with an effect."""
    check_augment(run.data)
    index = answered_index(run.data, run.teacher)
    train_schedule(index, run.data, batch_size=run.batch_size, seed=run.seed)
    built = {
        name: build_augmentor(kind, in_chans=run.data.in_chans, img_size=run.data.img_size)
        for name, kind in run.augmentors.items()
    }
    return index, {name: augmentor for name, augmentor in built.items() if augmentor is not None}


def _check_weights(config: RunConfig, index: ImageIndex, known: KnownMeans) -> None:
    """Load the teacher once, while an error costs nothing; raises TeacherError if the answers are of another one."""
    if config.teacher.has_weights:
        found = build_teacher(config.teacher, image_spec(config.data, index.classes)).identity()
        if known.identity is not None and not known.identity.startswith(found):
            raise TeacherError(
                f"the folder's scores are of teacher {known.identity[:12]}, and this one is {found[:12]}; put the "
                "first teacher back, or choose another --output"
            )


@contextmanager
def asking(
    config: RunConfig, run: ScoreRun, index: ImageIndex, say: Callable[[str], None]
) -> Iterator[tuple[TeacherPool, Pipeline]]:
    """Start the teacher, which must have weights, and the stream of images, and stop both afterwards."""
    namespace = f"hardray-score-{os.getpid()}"
    own = config.runtime.model_copy(update={"num_workers": 1, "cpus_per_worker": 1.0})  # this process makes the views
    alone = config.model_copy(update={"runtime": own})
    with connected(alone.runtime, namespace=namespace, say=say) as cluster:
        resolved = resolve_runtime(alone, cluster)
        runtime = resolved.runtime
        torch.set_num_threads(runtime.threads or 1)
        trained_with = runtime.model_copy(update={"num_workers": config.runtime.num_workers})
        teacher = trained_teacher(resolved.model_copy(update={"runtime": trained_with}), index)
        share = data_shares(runtime, cluster)
        schedule = train_schedule(index, run.data, batch_size=run.batch_size, seed=run.seed)
        pipeline = Pipeline(index, run.data, schedule, share, runtime.data_block_mb * 2**20)
        say(f"teacher {teacher.model}, {describe(run.data)}")
        with _pool(teacher_spec(resolved, teacher, index), runtime, namespace) as pool:
            try:
                yield pool, pipeline
            finally:
                await_streams()


@contextmanager
def _pool(spec: TeacherSpec, runtime: RuntimeConfig, namespace: str) -> Iterator[TeacherPool]:
    if runtime.teacher.placement == "colocated":
        yield LocalPool(FrozenNetwork.build(spec))
        return
    server = start_pool(spec, runtime, namespace=namespace)
    try:
        yield RayPool(server.address)
    finally:
        server.stop()


@dataclass(slots=True)
class Scorer:
    """One start of a comparison, with any kind of teacher pool."""

    run: ScoreRun
    folder: ScoreFolder
    known: KnownMeans
    pool: TeacherPool
    pipeline: Pipeline
    say: Callable[[str], None]

    def ask(self, augmentors: Mapping[str, Augmentor]) -> None:
        """Ask about the missing groups, and write each as it is complete; raises StoppedError if asked to stop."""
        run, known = self.run, self.known
        first = min(len(known.means.get(name, [])) for name in (CLEAN, *augmentors))
        scoring = Scoring(augmentors, self.pool, seed=run.seed)
        self._announce(first, len(augmentors))
        began = said = 0.0
        with stop_on_signal(self.folder.run, self.say), closing(self._batches(first * ITERATIONS)) as batches:
            for done in scoring.run(batches, known.means, run.groups):
                known.write(self.folder.means)
                if self.folder.run.stop_request.exists():
                    raise StoppedError(
                        f"stopped after {done} groups; the same command continues {shown_path(self.folder.path)}"
                    )
                now = time.monotonic()
                began = began or now  # not earlier: the first group waits for processes to start
                if now - said > SAY_EVERY_S and done > first + 1:
                    said = now
                    rest = (now - began) / (done - first - 1) * (run.groups - done)
                    self.say(f"group {done:>4} of {run.groups}  about {_shown(rest)} left")

    def _announce(self, first: int, views: int) -> None:
        run = self.run
        head = f"continues after group {first}: " if first else ""
        self.say(
            f"{head}{run.groups} groups of {ITERATIONS} batches of {run.batch_size} images, "
            f"and {views} augmented view{'s' if views != 1 else ''} of each"
        )

    def _batches(self, first: int) -> Generator[Batch]:
        """Yield the schedule's batches; raises DataError if more images are unreadable than allowed."""
        bad = BadImages.allowed_by(self.run.data, len(self.pipeline.index.labels))
        with closing(self.pipeline.train_batches(first)) as batches:
            for batch in batches:
                bad.add(batch.bad, batch.reasons)
                yield batch


def finish(
    folder: ScoreFolder,
    run: ScoreRun,
    known: KnownMeans,
    losses: Mapping[str, float] | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Rank the augmentors that have enough groups, draw and write; `scores.json` comes last."""
    still = {name for name, kind in run.augmentors.items() if isinstance(kind, IdentityAugmentor)}
    names = [name for name in run.augmentors if name in still or not known.lacks([name], run.groups)]
    scores = ranking(known.means, names, run.groups)
    with extra("the plot of the scores", say):
        save_png(draw_scores(scores), folder.picture)
    result: dict[str, Any] = {
        "teacher": {"model": run.teacher.model, "identity": known.identity},
        "data": {"what": describe(run.data), "fingerprint": known.fingerprint},
        "groups": run.groups,
        "iterations": ITERATIONS,
        "batch_size": run.batch_size,
        "seed": run.seed,
        "scores": {score.name: _facts(score, run) for score in scores},
        "versions": versions(),
    }
    if losses is not None:
        values = {score.name: score.t_stddev for score in scores if score.name in losses}
        correlation = pearson(values.values(), (losses[name] for name in values))
        result["correlation"] = {"pearson": correlation, "losses": dict(losses)}
        with extra("the plot of the correlation", say):
            save_png(draw_correlation(values, losses), folder.correlation)
    write_json(folder.result, result)
    return result


def _facts(score: Score, run: ScoreRun) -> dict[str, Any]:
    return {
        "t_stddev": score.t_stddev,
        "standard_error": score.error,
        "behind": score.behind,
        "behind_error": score.behind_error,
        "is_tied": score.is_tied,
        "augmentor": run.augmentors[score.name].model_dump(mode="json"),
    }


def _shown(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
