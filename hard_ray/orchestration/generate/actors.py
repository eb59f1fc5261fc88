"""Actors of a generation: each holds the autoencoder, asks the teacher, and makes whole shards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hard_ray.config.generation import GenerationConfig
from hard_ray.data.checked_shard import ShardHeader
from hard_ray.data.pictures import EvalPictures
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherPool, TeacherSpec, check_identity
from hard_ray.errors import ModelError
from hard_ray.networks.autoencoders.build import build_autoencoder
from hard_ray.networks.precision import Precision, prepare_kernels
from hard_ray.orchestration.pool.client import PoolAddress, RayPool
from hard_ray.orchestration.shard_job import ShardActor, ShardsGoTo
from hard_ray.orchestration.shipped import Shipped
from hard_ray.preparation.generation import Dad, make_shard


@dataclass(frozen=True, slots=True)
class MakerPlan:
    """Settings that every actor receives."""

    config: GenerationConfig
    seed: int
    in_chans: int
    threads: int | None
    to: ShardsGoTo
    settings: dict[str, Any]
    missing: tuple[tuple[int, range], ...]
    """Number and positions of each missing shard."""
    coder_identity: str
    teacher: TeacherSpec
    teacher_identity: str
    pool: PoolAddress | None
    """None: every actor holds the teacher itself."""


class ShardMaker(ShardActor[MakerPlan]):
    """Makes shards one after the other; loads the networks with the first."""

    def __init__(self, plan: MakerPlan, pictures: Shipped[EvalPictures]) -> None:
        super().__init__(plan, pictures)
        self._parts: tuple[Dad, EvalPictures] | None = None

    def make(self, number: int, span: range, folder: Path) -> ShardHeader:
        """Make and write a shard."""
        if self._parts is None:
            self._parts = self._load(first=number)
        method, pictures = self._parts
        return make_shard(method, pictures, number, span, settings=self.plan.settings, folder=folder)

    def _load(self, *, first: int) -> tuple[Dad, EvalPictures]:
        plan = self.plan
        prepare_kernels(plan.threads)
        precision = coder_precision()
        coder = build_autoencoder(plan.config.autoencoder, plan.in_chans)
        if coder.identity() != plan.coder_identity:
            raise ModelError(
                f"autoencoder.model {plan.config.autoencoder.model} has other weights on {os.uname().nodename} than "
                "where the command was started; every node must load the same weights"
            )
        pool: TeacherPool
        pool = LocalPool(FrozenNetwork.build(plan.teacher)) if plan.pool is None else RayPool(plan.pool, first=first)
        check_identity(pool, plan.teacher_identity)
        return Dad(coder.to(precision.device), pool, plan.config, plan.seed, precision), self.pictures.get()


def coder_precision() -> Precision:
    """Float32 whatever the teacher computes in, because small differences decide the codes."""
    return Precision(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
