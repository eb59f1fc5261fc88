"""Pictures and the best weights of a student, which the first rank writes during a training."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from torch import nn

from hard_ray.augmentors.base import Augmentor
from hard_ray.config.run import RunConfig, embeds
from hard_ray.data.batch import Batch
from hard_ray.data.index import ImageIndex
from hard_ray.distillation.assembly import distance_of
from hard_ray.distillation.camera import Camera
from hard_ray.distillation.teacher import TeacherPool
from hard_ray.errors import DataError
from hard_ray.export.timm_folder import TrainingFacts, export_network
from hard_ray.networks.network import ImageSpec, Network
from hard_ray.networks.precision import Precision
from hard_ray.orchestration.extras import extra
from hard_ray.orchestration.stream import Pipeline
from hard_ray.reports.figures import save_png
from hard_ray.reports.gallery import draw_gallery
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import MetricsLog
from hard_ray.runs.snapshots import write_snapshot


@dataclass(slots=True)
class FirstRank:
    """Draws the gallery and exports the best weights."""

    folder: RunFolder
    config: RunConfig
    index: ImageIndex
    images: ImageSpec
    network: nn.Module
    """The student, as it is evaluated."""
    augmentor: Augmentor | None
    pool: TeacherPool | None
    pipeline: Pipeline
    precision: Precision
    facts: Callable[[], TrainingFacts]
    """Facts about the training so far."""
    _sample: Batch | None = field(init=False, default=None)

    def keep_best(self) -> None:
        """Export the present weights to `best/`."""
        assert isinstance(self.network, Network)
        export_network(self.network, self.folder.best, images=self.images, facts=self.facts())

    def picture(self, step: int) -> None:
        """Draw the same images at every call, and save the arrays that are drawn; a failure is noted in the log."""

        def note(text: str) -> None:
            point = {"kind": "note", "step": step, "time": time.time(), "text": text}
            MetricsLog(self.folder.metrics).append(point)

        if self.config.tracking.gallery_images and self.pool is not None and self.augmentor is not None:
            with extra(f"the gallery of update {step}", note):
                self._picture(step, self.config.tracking.gallery_images, self.augmentor, self.pool)

    def _picture(self, step: int, count: int, augmentor: Augmentor, pool: TeacherPool) -> None:
        if self._sample is None:
            self._sample = self._first_readable(count)
        distance = distance_of(self.config.objective, self.network) if embeds(self.config) else None
        camera = Camera(augmentor, self.network, pool, self.precision, self.config.seed, distance)
        snapshot = camera.take(step, self._sample)
        path = self.folder.gallery / f"step-{step:08d}.png"
        write_snapshot(path.with_suffix(".npz"), snapshot)
        save_png(draw_gallery(snapshot, self.index.classes), path)

    def _first_readable(self, count: int) -> Batch:
        """The first batch of which an image can be read; raises DataError if there is none.

        Where none of them is unreadable, its images are spread over the split, so of several classes.
        """
        split = "val" if self.pipeline.generated is None else "train"  # only training images were generated
        with closing(self.pipeline.batches_to_look_at(split, count)) as batches:
            for batch in batches:
                if len(batch):
                    return batch
        raise DataError(f"no image of the {split} split can be read; repair the images")
