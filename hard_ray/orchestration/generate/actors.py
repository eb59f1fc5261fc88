"""Actors of a generation: each holds the autoencoder, asks the teacher, and makes whole shards."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hard_ray.config.generation import GenerationConfig
from hard_ray.data.generated_shard import ShardHeader
from hard_ray.data.pictures import Columns, EvalPictures
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherPool, TeacherSpec, check_identity
from hard_ray.errors import HardrayError, ModelError
from hard_ray.networks.autoencoders.build import build_autoencoder
from hard_ray.networks.precision import Precision, prepare_kernels
from hard_ray.orchestration.pool.client import PoolAddress, RayPool
from hard_ray.orchestration.shipped import Shipped
from hard_ray.preparation.generation import Dad, make_shard


@dataclass(frozen=True, slots=True)
class MakerPlan:
    """Settings that every actor receives."""

    config: GenerationConfig
    seed: int
    in_chans: int
    threads: int | None
    folder: Path
    settings: dict[str, Any]
    missing: tuple[tuple[int, range], ...]
    """Number and positions of each missing shard."""
    coder_identity: str
    teacher: TeacherSpec
    teacher_identity: str
    pool: PoolAddress | None
    """None: every actor holds the teacher itself."""


class ShardMaker:
    """Makes shards one after the other; loads the networks with the first."""

    def __init__(self, plan: MakerPlan, pictures: Shipped[EvalPictures]) -> None:
        self.plan = plan
        self.pictures = pictures
        self._parts: tuple[Dad, EvalPictures] | None = None

    def __call__(self, block: Columns) -> Columns:
        """Make the shards of a block of numbers; return their headers, and the messages of errors."""
        headers, errors = [], []
        for position in block["id"]:
            try:
                headers.append(json.dumps(asdict(self._make(*self.plan.missing[int(position)]))))
                errors.append("")
            except HardrayError as error:  # as a value: Ray Data would wrap an exception in its own
                headers.append("")
                errors.append(str(error))
        return {"header": np.array(headers, dtype=object), "error": np.array(errors, dtype=object)}

    def _make(self, number: int, span: range) -> ShardHeader:
        if self._parts is None:
            self._parts = self._load(first=number)
        method, pictures = self._parts
        return make_shard(method, pictures, number, span, settings=self.plan.settings, folder=self.plan.folder)

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
