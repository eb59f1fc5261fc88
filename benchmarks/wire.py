"""Messages and bytes between a student worker and the teacher pool, per image that the student learns from.

They are counted at the pool's interface: pixels and their context are sent, logits and gradients come back. Ray's
envelope of some hundreds of bytes per message is not counted.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.latency import Alone
from benchmarks.work import BATCH, BUILD, SPEC, TEACHER, Measured, Place
from hard_ray.config.loader import load_config
from hard_ray.config.networks import StudentConfig
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.messages import ContextArrays, GradientAnswer, Ticket
from hard_ray.distillation.objectives import TeacherObjective
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.networks.network import build_student
from hard_ray.networks.precision import Images
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.run.plan import RunPlan
from hard_ray.ranks import Ranks

UPDATES = 48
RUNS = {
    "kd": {"objective.kind": "kd", "augmentor.kind": "identity"},
    "cutmix": {"objective.kind": "kd", "augmentor.kind": "cutmix"},
    "hard": {"objective.kind": "hard", "augmentor.kind": "affine", "controller.policy": "fixed"},
}


class Counting(LocalPool):
    """A teacher in this process that counts the bytes that would be sent."""

    messages = 0
    sent = 0
    received = 0

    def logits(self, images: Images) -> Ticket[NDArray[np.float32]]:
        """Count a request for logits."""
        ticket = super().logits(images)
        self._count(images.nbytes, ticket.result().nbytes)
        return ticket

    def loss_and_grad(
        self, images: Images, objective: TeacherObjective, context: ContextArrays
    ) -> Ticket[GradientAnswer]:
        """Count a request for a gradient."""
        ticket = super().loss_and_grad(images, objective, context)
        answer = ticket.result()
        back = answer.logits.nbytes + answer.grad.nbytes
        self._count(images.nbytes + sum(array.nbytes for array in context.values()), back)
        return ticket

    def _count(self, sent: int, received: int) -> None:
        self.messages += 1
        self.sent += sent
        self.received += received


def measure(place: Place, rounds: int) -> Measured:
    """`wire_messages_...` per student update and `wire_bytes_...` per image, of three kinds of run."""
    del rounds
    torch.manual_seed(0)
    teacher = FrozenNetwork(build_student(StudentConfig(model=TEACHER), SPEC))
    found: Measured = {}
    for name, changed in RUNS.items():
        given: dict[str, Any] = {
            "optim__steps": UPDATES,
            **{key.replace(".", "__"): value for key, value in changed.items()},
        }
        config = load_config(preset="cifar10", overrides=place.overrides(**given))
        folder, pool = BUILD / "wire", Counting(teacher)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        plan = RunPlan("wire", "main", config, folder)
        parts = (plan, build_index(config.data), Ranks(), torch.device("cpu"), DataShare(1, 1e8), folder / "stop")
        Alone(*parts, pool).train()
        found[f"wire_messages_{name}"] = pool.messages / UPDATES
        found[f"wire_bytes_{name}"] = (pool.sent + pool.received) / (UPDATES * BATCH)
    return found
