"""Where and how a run computes, how it is watched, and what it keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from hard_ray.config.base import Config, Seconds
from hard_ray.redaction import refuse_password

Dtype = Literal["float32", "bfloat16"]


class TeacherRuntime(Config):
    """Where the frozen teacher answers, and how its replicas are fed."""

    placement: Literal["pool", "colocated"] = "pool"
    """`pool`: actors of its own; `colocated`: a copy inside every student worker."""
    replicas: PositiveInt = 1
    """Actors in the pool, at its start."""
    min_replicas: PositiveInt | None = None
    """Fewest actors of a pool that follows its load; unset: `replicas`. Needs `max_replicas`."""
    max_replicas: PositiveInt | None = None
    """Most actors of a pool that follows its load: more start while requests wait; unset: the pool keeps its size."""
    num_cpus: PositiveFloat = 1.0
    """CPUs reserved for each replica."""
    num_gpus: NonNegativeFloat | None = None
    """GPUs reserved for each replica; unset: 1 where student workers have GPUs, else 0."""
    threads: PositiveInt | None = None
    """Threads of each replica's kernels; unset: chosen from the machine at the start of the run."""
    dtype: Dtype | None = None
    """Precision of the teacher's kernels; unset: bfloat16 where the hardware has it, else float32."""
    wire_dtype: Literal["uint8", "float32"] = "uint8"
    """How augmented pixels travel in student phases; the student trains on what the teacher saw."""
    max_batch: PositiveInt | None = None
    """Join waiting requests up to this many images; unset: one request, one batch."""
    max_wait_ms: NonNegativeFloat = 0.0
    """How long a request waits for others to join it; needs `max_batch`."""
    prefetch: PositiveInt = 3
    """Batches that the teacher is asked about before they are used: its time is hidden behind so many updates."""
    max_in_flight: Annotated[int, Field(ge=2)] = 8
    """Requests that one worker may have unanswered; a batch has one for each view."""
    timeout_s: Seconds = 300.0
    """How long a request is resent, while no replica answers, before the run stops."""

    @property
    def least(self) -> int:
        """Replicas that stay, whatever the load."""
        return self.replicas if self.min_replicas is None else self.min_replicas

    @model_validator(mode="after")
    def _bounds_hold(self) -> TeacherRuntime:
        if self.min_replicas is not None and self.max_replicas is None:
            raise ValueError(
                f"min_replicas {self.min_replicas} is the lower end of a pool that follows its load, but max_replicas "
                "is not set; set it, or leave both out"
            )
        if self.max_replicas is not None and not self.least <= self.replicas <= self.max_replicas:
            raise ValueError(
                f"replicas {self.replicas} is not between min_replicas {self.least} and max_replicas "
                f"{self.max_replicas}; the pool starts with replicas"
            )
        if self.max_replicas is not None and self.placement == "colocated":
            raise ValueError("max_replicas needs a pool, and placement is colocated; use placement=pool")
        return self

    @model_validator(mode="after")
    def _joining_is_whole(self) -> TeacherRuntime:
        if self.max_wait_ms > 0 and self.max_batch is None:
            raise ValueError(
                f"max_wait_ms {self.max_wait_ms:g} waits for requests to join, but max_batch is not set; "
                "set max_batch to the largest joined batch"
            )
        return self


class RuntimeConfig(Config):
    """Workers, precision and the cluster they run on."""

    address: str | None = None
    """Ray cluster to join; unset: RAY_ADDRESS, else a cluster of this machine, for this run."""
    num_workers: PositiveInt = 1
    """Student workers, each with a replica of the student; the most there are, where `min_workers` is set."""
    min_workers: PositiveInt | None = None
    """Fewest student workers to go on with when nodes are lost, and to start with; unset: `num_workers`, always."""
    cpus_per_worker: PositiveFloat = 1.0
    """CPUs reserved for each student worker."""
    gpus_per_worker: NonNegativeFloat | None = None
    """GPUs reserved for each student worker; unset: 1 where the cluster has them, else 0."""
    placement_strategy: Literal["pack", "spread"] = "pack"
    """`pack`: on as few nodes as possible; `spread`: over as many; student workers and replicas each."""
    slots: bool = False
    """Student workers run on nodes that offer `student_slot`, and replicas where `teacher_slot` is; each takes one."""
    nodes_timeout_s: NonNegativeFloat = 0.0
    """How long to wait for nodes that the cluster's autoscaler is asked for; 0: what does not fit is refused."""
    threads: PositiveInt | None = None
    """Threads of each student worker's kernels; unset: chosen from the machine at the start of the run."""
    amp_dtype: Dtype | None = None
    """Autocast precision of the student; unset: bfloat16 where the hardware has it, else float32."""
    channels_last: bool | None = None
    """Channels-last memory layout; unset: with bfloat16, and on a CPU with AVX-512."""
    data_block_mb: PositiveFloat = 32.0
    """Size of the blocks in which Ray Data hands over images, in MiB."""
    max_failures: NonNegativeInt = 3
    """Worker failures that a run survives by restarting from its last checkpoint."""
    max_divergences: NonNegativeInt = 2
    """How often a run whose loss is no number goes back to its last checkpoint, which helps where memory or a device
    failed; then it stops. The batch is kept in `RUN/diverged`."""
    teacher: TeacherRuntime = TeacherRuntime()

    @field_validator("address")
    @classmethod
    def _no_password(cls, address: str | None) -> str | None:
        return refuse_password(address, "RAY_ADDRESS")

    @property
    def least_workers(self) -> int:
        """Student workers that the run cannot do without."""
        return self.num_workers if self.min_workers is None else self.min_workers

    @property
    def is_elastic(self) -> bool:
        """Whether the number of student workers may change."""
        return self.least_workers < self.num_workers

    @model_validator(mode="after")
    def _elastic_is_possible(self) -> RuntimeConfig:
        if self.least_workers > self.num_workers:
            raise ValueError(
                f"min_workers {self.min_workers} is more than num_workers {self.num_workers}, which is the most; "
                "lower it, or raise num_workers"
            )
        return self
