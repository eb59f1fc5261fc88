"""The capabilities of a machine, as it reports them; nothing is timed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hard_ray.config.runtime import Dtype
from hard_ray.orchestration.cluster.cgroups import limits

FIRST_WITH_TENSOR_CORES = (7, 0)
"""Compute capability of Volta, whose GPUs have units for float16; those with units for bfloat16 began at (8, 0)."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine."""

    cpu: str
    cores: int
    bf16_unit: str | None
    """The CPU's unit for bfloat16, AMX or AVX-512; None: bfloat16 is slower than float32."""
    has_avx512: bool
    gpus: tuple[str, ...]
    gpu_has_bf16: bool
    memory_gib: float
    shared_memory_gib: float
    gpu_has_fp16: bool = False
    gpu_capability: tuple[int, int] | None = None
    """Compute capability of the first GPU, such as (9, 0); None: there is none."""

    @property
    def gpu_has_tf32(self) -> bool:
        """Whether GPUs compute in TF32, as they do from capability 8.0 on."""
        return self.gpu_capability is not None and self.gpu_capability >= (8, 0)

    def fast_dtype(self, *, on_gpu: bool) -> Dtype:
        """bfloat16 if the hardware computes in it, else float16 if a GPU does, else float32."""
        if self.gpu_has_bf16 if on_gpu else self.bf16_unit:
            return "bfloat16"
        return "float16" if on_gpu and self.gpu_has_fp16 else "float32"

    def prefers_channels_last(self, dtype: Dtype, *, on_gpu: bool) -> bool:
        """Whether convolutions are faster with channels last: in 16 bits, and in float32 with AVX-512."""
        return dtype != "float32" or (not on_gpu and self.has_avx512)


def probe() -> Hardware:
    """Read the capabilities of this machine."""
    import torch

    flags, cpu = _cpu_info()
    cuda = torch.cuda.is_available()
    names = tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())) if cuda else ()
    return Hardware(
        cpu=cpu,
        cores=usable_cores(),
        bf16_unit="AMX" if "amx_bf16" in flags else "AVX-512" if "avx512_bf16" in flags else None,
        has_avx512="avx512f" in flags,
        gpus=names,
        gpu_has_bf16=bool(cuda and torch.cuda.is_bf16_supported(including_emulation=False)),
        memory_gib=usable_memory_gib(),
        shared_memory_gib=free_gib(Path("/dev/shm")),  # noqa: S108  (Ray's object store lives there)
        gpu_has_fp16=bool(cuda and torch.cuda.get_device_capability() >= FIRST_WITH_TENSOR_CORES),
        gpu_capability=torch.cuda.get_device_capability(0) if names else None,
    )


def installed_cores() -> int:
    """The number of cores that the scheduler may put this process on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """The number of whole cores that this process may use at a time, at least 1.

    A control group may allow less time than all cores have: with a quota of 1.5 cores, two threads that wait for each
    other would both be halted for a part of each period.
    """
    quota = limits().cores
    return installed_cores() if quota is None else max(1, min(installed_cores(), int(quota + 1e-6)))


def installed_memory_gib() -> float:
    """The memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def usable_memory_gib() -> float:
    """The memory that this process and its group may have: of the machine, or less by a control group."""
    limit = limits().memory_bytes
    return installed_memory_gib() if limit is None else min(installed_memory_gib(), limit / 2**30)


def free_disk_gib(path: Path) -> float:
    """Free space of the disk that `path` is on, or will be."""
    while not path.exists():
        path = path.parent
    return free_gib(path)


def _cpu_info() -> tuple[frozenset[str], str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset(), "unknown"
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return frozenset(found.get("flags", "").split()), found.get("model name", "unknown")


def free_gib(path: Path) -> float:
    """Free space of the disk that `path` is on; 0 if it cannot be read."""
    try:
        status = os.statvfs(path)
    except OSError:
        return 0.0
    return status.f_bavail * status.f_frsize / 2**30
