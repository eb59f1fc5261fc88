"""T. stddev of the candidates, over as many groups as a share of the budget allows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hard_ray.config.loader import read_begun
from hard_ray.config.recommend import scored
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.scoring import CLEAN, DEFAULT_AUGMENTORS, ScoreRun
from hard_ray.data.index import ImageIndex
from hard_ray.data.pictures import EvalPictures
from hard_ray.data.schedule import train_schedule
from hard_ray.distillation.teacher import TeacherPool
from hard_ray.files import make_folder, write_text
from hard_ray.maths.t_stddev import ITERATIONS
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.score_augmentations import Scorer, examine, finish
from hard_ray.orchestration.stream import Pipeline
from hard_ray.preparation.folders import KnownMeans, ScoreFolder

BATCH, SMALL_BATCH = 64, 16
FEWEST_GROUPS, MOST_GROUPS = 5, 80


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores augmentors within a time."""

    config: RunConfig
    index: ImageIndex
    folder: ScoreFolder
    pool: TeacherPool
    identity: str
    share: DataShare
    say: Callable[[str], None]

    def made(self, seconds: float) -> dict[str, Any] | None:
        """The content of `scores.json`; None: there is no time for the fewest groups, even of smaller batches."""
        if self.folder.settings.exists():  # an earlier start chose the size of the groups
            return self._scored(read_begun(ScoreRun, self.folder.settings), seconds)
        answer_s = self._answer_seconds()
        for batch_size in (BATCH, SMALL_BATCH):
            run = scored(self.config, groups=FEWEST_GROUPS, batch_size=min(batch_size, len(self.index.rows("train"))))
            group_s = ITERATIONS * run.batch_size * answer_s * len(DEFAULT_AUGMENTORS)  # the identity needs no answer
            if group_s * FEWEST_GROUPS <= seconds:
                return self._scored(run, seconds)
        return None

    def _answer_seconds(self) -> float:
        """Seconds of the teacher's answer on an image."""
        rows = self.index.rows("train")[:BATCH]
        images = EvalPictures(self.index.reader, self.index.labels, self.config.data, rows)(np.arange(len(rows)))
        self.pool.logits(images["image"]).result()  # the first answer includes what is done once
        began = time.perf_counter()
        self.pool.logits(images["image"]).result()
        return (time.perf_counter() - began) / len(rows)

    def _scored(self, run: ScoreRun, seconds: float) -> dict[str, Any]:
        """Ask about the groups of `run`, then about as many as fit into the rest of the time."""
        make_folder(self.folder.path)
        known = KnownMeans.read(self.folder.means, self.index.fingerprint())
        known.identity = self.identity
        began, there = time.monotonic(), len(known.means.get(CLEAN, []))
        self._ask(run, known)
        each = (time.monotonic() - began) / max(1, run.groups - there)
        more = int((seconds - (time.monotonic() - began)) / max(each, 1e-3))
        run = run.model_copy(update={"groups": min(MOST_GROUPS, run.groups + max(0, more))})
        self._ask(run, known)
        return finish(self.folder, run, known, None, self.say)

    def _ask(self, run: ScoreRun, known: KnownMeans) -> None:
        index, augmentors = examine(run)
        if not known.lacks((CLEAN, *augmentors), run.groups):
            return
        self.folder.run.stop_request.unlink(missing_ok=True)
        write_text(self.folder.settings, dump_yaml(run))
        schedule = train_schedule(index, run.data, batch_size=run.batch_size, seed=run.seed)
        block_bytes = self.config.runtime.data_block_mb * 2**20
        pipeline = Pipeline(index, run.data, schedule, self.share, block_bytes)
        Scorer(run, self.folder, known, self.pool, pipeline, self.say).ask(augmentors)
