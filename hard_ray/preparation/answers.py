"""What the networks of a run answer: the data's classes or, where no image has a label, those of the teacher."""

from __future__ import annotations

from dataclasses import replace

from hard_ray.config.data import DataConfig, why_unlabelled
from hard_ray.config.networks import TeacherConfig
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index, cache_of
from hard_ray.errors import DataError
from hard_ray.networks.network import answers_of


def answered_index(data: DataConfig, teacher: TeacherConfig, runtime: RuntimeConfig | None = None) -> ImageIndex:
    """The index of a source whose `classes` are what the networks answer; raises HardrayError as `build_index` does.

    Without labels, the answers are the teacher's outputs, by the names that it was saved with or, without names, by
    their numbers. Raises ModelError if the teacher cannot be made.
    """
    index = build_index(data, cache=cache_of(runtime or RuntimeConfig()))
    if index.has_labels:
        return index
    if not teacher.has_weights:
        raise DataError(
            f"{why_unlabelled(data)}, so that the images have no classes, and teacher.model {teacher.model} has no "
            "weights that would answer; give teacher.checkpoint, or a head for a tower by `hardray fit-head --kind "
            "prototypes`"
        )
    return replace(index, classes=answers_of(teacher, data))
