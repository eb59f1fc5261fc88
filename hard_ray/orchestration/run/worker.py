"""One worker of Ray Train: connects to the teacher and runs the trainings of a plan."""

from __future__ import annotations

from typing import Any

from ray.util.placement_group import get_current_placement_group

from hard_ray.data.index import ImageIndex
from hard_ray.distillation.loop import Status
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherPool, TeacherSpec
from hard_ray.errors import AgreedError, HardrayError
from hard_ray.files import write_text
from hard_ray.orchestration.pool.client import RayPool
from hard_ray.orchestration.run.builder import Builder
from hard_ray.orchestration.run.own_copy import own_copy
from hard_ray.orchestration.run.plan import WorkerPlan
from hard_ray.ranks import Ranks
from hard_ray.runs.folder import RunFolder


def train_plan(plan: WorkerPlan, index: ImageIndex) -> dict[str, Any]:
    """Run the plan's unfinished trainings in a Ray Train worker; return `status`, and `error` if it is `failed`."""
    import ray.train

    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    try:
        return {"status": train_all(plan, index, ranks)}
    except HardrayError as error:
        if isinstance(error, AgreedError) or ranks.size == 1:
            return {"status": "failed", "error": str(error)}
        raise  # the other ranks wait: Ray ends them, and starts the group again


def train_all(plan: WorkerPlan, index: ImageIndex, ranks: Ranks) -> Status:
    """Run the trainings in order; a stop request ends the list."""
    import ray.train.torch

    device = ray.train.torch.get_device()
    pool: TeacherPool | None = None
    with own_copy(plan, ranks) as copy:
        plan = copy.plan
        if plan.group_note is not None and ranks.is_first and (group := get_current_placement_group()) is not None:
            write_text(plan.group_note, f"{group.id.hex()}\n")
            copy.send()
        for run in plan.runs:
            if RunFolder(run.folder).is_finished:
                continue
            if pool is None and run.asks_teacher and plan.teacher is not None:
                pool = connect(plan, plan.teacher, ranks)
            builder = Builder(
                run, index, ranks, device, plan.data, plan.stop, pool, plan.teacher_identity, copy.send_later
            )
            status = builder.train()
            if status is not Status.FINISHED:
                return status
            copy.send()  # a teacher that was trained here is loaded on other nodes now
    return Status.FINISHED


def connect(plan: WorkerPlan, teacher: TeacherSpec, ranks: Ranks) -> TeacherPool:
    """Load the teacher into this process, or connect to the pool of its actors."""
    if plan.pool is None:
        return LocalPool(FrozenNetwork.build(teacher))
    return RayPool(plan.pool, first=ranks.rank)
