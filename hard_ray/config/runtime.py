"""Workers, teacher replicas, precision, and the cluster that they run on."""

from __future__ import annotations

from pathlib import Path
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

Dtype = Literal["float32", "bfloat16", "float16"]

Transport = Literal["object_store", "shared_memory"]

CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Modes of torch.compile."""


class TeacherRuntime(Config):
    """Placement and size of the teacher pool, and how requests reach it."""

    placement: Literal["pool", "colocated"] = "pool"
    """`pool`: separate actors; `colocated`: a copy inside every student worker."""
    replicas: PositiveInt = 1
    """Actors in the pool at the start."""
    min_replicas: PositiveInt | None = None
    """Fewest actors of a pool that scales with its load; unset: `replicas`. Needs `max_replicas`."""
    max_replicas: PositiveInt | None = None
    """Most actors of a pool that scales with its load: more start while requests wait; unset: the size is fixed."""
    num_cpus: PositiveFloat = 1.0
    """CPUs reserved for each replica."""
    num_gpus: NonNegativeFloat | None = None
    """GPUs reserved for each replica; unset: 1 if student workers have GPUs, else 0."""
    threads: PositiveInt | None = None
    """Threads of each replica's kernels; unset: chosen from the hardware at the start of the run."""
    dtype: Dtype | None = None
    """Precision of the teacher's kernels; unset: bfloat16 where the hardware has it, else float16 on a GPU with units
    for it, else float32."""
    wire_dtype: Literal["uint8", "float32"] = "uint8"
    """Type of augmented pixels on the wire in student phases; the student trains on the pixels that the teacher saw."""
    transport: Transport = "object_store"
    """How images reach a replica: `object_store`: as bytes, through Ray's; `shared_memory`: as a handle to memory that
    worker and replica share, on one node or on one GPU, and as bytes to the other replicas."""
    compile: bool | CompileMode = False
    """torch.compile of the teacher in trainings: `true` is torch's `default`, or the name of another mode; not together
    with `max_batch`, whose batches have ever new sizes."""
    max_batch: PositiveInt | None = None
    """Join waiting requests into batches of up to this many images; unset: each request is a batch."""
    max_wait_ms: NonNegativeFloat = 0.0
    """Longest time that a request waits for others to join it, in milliseconds; needs `max_batch`."""
    prefetch: PositiveInt = 3
    """Batches sent to the teacher ahead of their use; its latency is hidden behind as many updates."""
    max_in_flight: Annotated[int, Field(ge=2)] = 8
    """Most unanswered requests of one worker; a batch has one request per view."""
    timeout_s: Seconds = 300.0
    """Seconds for which a request is resent while no replica answers; then the run stops."""

    @property
    def least(self) -> int:
        """Fewest replicas, at any load."""
        return self.replicas if self.min_replicas is None else self.min_replicas

    @model_validator(mode="after")
    def _bounds_hold(self) -> TeacherRuntime:
        if self.min_replicas is not None and self.max_replicas is None:
            raise ValueError(
                f"min_replicas {self.min_replicas} is the lower limit of a pool that scales with its load, but "
                "max_replicas is not set; set it, or leave both out"
            )
        if self.max_replicas is not None and not self.least <= self.replicas <= self.max_replicas:
            raise ValueError(
                f"replicas {self.replicas} is not between min_replicas {self.least} and max_replicas "
                f"{self.max_replicas}; the pool starts with replicas"
            )
        if self.max_replicas is not None and self.placement == "colocated":
            raise ValueError("max_replicas needs a pool, and placement is colocated; use placement=pool")
        return self

    @property
    def compile_mode(self) -> CompileMode | None:
        """The mode of torch.compile; None: the teacher is not compiled."""
        return _mode(self.compile)

    @model_validator(mode="after")
    def _compiled_sizes_are_known(self) -> TeacherRuntime:
        if self.compile and self.max_batch is not None:
            raise ValueError(
                f"compile wants batches of few sizes, and max_batch {self.max_batch} joins requests to ever new ones; "
                "set compile=false, or leave max_batch out"
            )
        return self

    @model_validator(mode="after")
    def _handles_have_a_receiver(self) -> TeacherRuntime:
        if self.transport != "object_store" and self.placement == "colocated":
            raise ValueError(
                f"transport {self.transport} is a way to a pool, and placement is colocated, where images stay in the "
                "worker; use placement=pool, or leave transport out"
            )
        return self

    @model_validator(mode="after")
    def _joining_is_complete(self) -> TeacherRuntime:
        if self.max_wait_ms > 0 and self.max_batch is None:
            raise ValueError(
                f"max_wait_ms {self.max_wait_ms:g} waits for requests to join, but max_batch is not set; "
                "set max_batch to the largest joined batch"
            )
        return self


class RuntimeConfig(Config):
    """Workers, precision and the cluster they run on."""

    address: str | None = None
    """Ray cluster to join; unset: RAY_ADDRESS, else a new cluster on this machine for this run."""
    num_workers: PositiveInt = 1
    """Student workers, each with a replica of the student; the upper limit if `min_workers` is set."""
    min_workers: PositiveInt | None = None
    """Fewest student workers to start with, and to continue with when nodes are lost; unset: always `num_workers`."""
    cpus_per_worker: PositiveFloat = 1.0
    """CPUs reserved for each student worker."""
    gpus_per_worker: NonNegativeFloat | None = None
    """GPUs reserved for each student worker; unset: 1 if the cluster has GPUs, else 0."""
    placement_strategy: Literal["pack", "spread"] = "pack"
    """`pack`: on as few nodes as possible; `spread`: on as many as possible; both for workers and for replicas."""
    slots: bool = False
    """Run student workers on nodes that offer `student_slot`, replicas on nodes with `teacher_slot`; each takes one."""
    nodes_timeout_s: NonNegativeFloat = 0.0
    """Seconds to wait for nodes that are requested from the autoscaler; 0: a run that does not fit is refused."""
    threads: PositiveInt | None = None
    """Threads of each student worker's kernels; unset: chosen from the hardware at the start of the run."""
    amp_dtype: Dtype | None = None
    """Autocast precision of the student; unset: bfloat16 where the hardware has it, else float16 on a GPU with units
    for it, else float32. With float16 the loss is scaled, and an update whose gradient overflows makes no step."""
    channels_last: bool | None = None
    """Channels-last memory layout; unset: on with bfloat16 or float16, or on a CPU with AVX-512."""
    compile: bool | CompileMode = False
    """torch.compile of the student: `true` is torch's `default`, or the name of another mode; off, with a message,
    where a network or a machine cannot."""
    deterministic: bool = False
    """Deterministic algorithms on a GPU, for students and teachers: slower, and the same bits on equal cards."""
    tf32: bool | None = None
    """TF32 on a GPU where networks compute in float32: `true` in matrix products and convolutions, `false` in neither;
    unset: torch's choice, in convolutions alone."""
    data_block_mb: PositiveFloat = 32.0
    """Size of the blocks in which Ray Data hands over images, in MiB."""
    cache_dir: Path | None = None
    """Folder on each node's local disk for whole objects read from buckets; unset: `objects` in HARDRAY_CACHE or in the
    user's cache folder."""
    cache_gb: NonNegativeFloat = 100.0
    """Largest size of `cache_dir` in GB, for all processes of a node together: the least recently used objects are
    removed. 0: nothing is cached."""
    max_failures: NonNegativeInt = 3
    """Worker failures after which the run restarts from its last checkpoint."""
    max_divergences: NonNegativeInt = 2
    """Restarts from the same checkpoint after a non-finite loss, which help if memory or a device failed; one more such
    loss stops the run. The batch is saved in `RUN/diverged`."""
    teacher: TeacherRuntime = TeacherRuntime()

    @field_validator("address")
    @classmethod
    def _no_password(cls, address: str | None) -> str | None:
        return refuse_password(address, "RAY_ADDRESS")

    @property
    def compile_mode(self) -> CompileMode | None:
        """The mode of torch.compile; None: the student is not compiled."""
        return _mode(self.compile)

    @property
    def least_workers(self) -> int:
        """Fewest student workers that the run needs."""
        return self.num_workers if self.min_workers is None else self.min_workers

    @property
    def is_elastic(self) -> bool:
        """Whether the number of student workers may change."""
        return self.least_workers < self.num_workers

    @model_validator(mode="after")
    def _deterministic_is_possible(self) -> RuntimeConfig:
        for key, value in (("compile", self.compile), ("teacher.compile", self.teacher.compile)):
            if self.deterministic and str(value).startswith("max-autotune"):
                raise ValueError(
                    f"deterministic wants kernels that are chosen without a stopwatch, and {key} {value} times them; "
                    f"use {key}=default or reduce-overhead"
                )
        return self

    @model_validator(mode="after")
    def _elastic_is_possible(self) -> RuntimeConfig:
        if self.least_workers > self.num_workers:
            raise ValueError(
                f"min_workers {self.min_workers} is more than num_workers {self.num_workers}, the upper limit; "
                "lower it, or raise num_workers"
            )
        return self


def _mode(value: bool | CompileMode) -> CompileMode | None:
    if isinstance(value, str):
        return value
    return "default" if value else None
