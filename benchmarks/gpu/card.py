"""The card: its name and versions, waiting for it, its memory, and the share of time in which it does nothing."""

from __future__ import annotations

import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

PACKAGES = ("torch", "timm", "torchvision", "numpy", "pydantic", "ray", "triton")


def describe() -> dict[str, Any]:
    """Cards, driver and versions; call it in a process of its own, because it touches the card."""
    found: dict[str, Any] = {
        "cards": [],
        "driver": driver(),
        "python": platform.python_version(),
        "cpu": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
    }
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            found["cards"].append(
                {
                    "name": properties.name,
                    "capability": f"{properties.major}.{properties.minor}",
                    "gib": round(properties.total_memory / 2**30, 1),
                    "bfloat16": torch.cuda.is_bf16_supported(),
                }
            )
        found["cudnn"] = torch.backends.cudnn.version()
    return found


def version(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def driver() -> str | None:
    """The version of NVIDIA's driver, by its own tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.split("\n")[0].strip() or None


def wait(device: str) -> None:
    """Wait until the card has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], device: str) -> float:
    """The seconds of a call, until the card has done its work."""
    wait(device)
    began = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - began


def held_gib(device: str) -> float:
    """Memory of the card that tensors hold now."""
    return torch.cuda.memory_allocated() / 2**30 if device == "cuda" else 0.0


def forget_peak(device: str) -> None:
    """Begin to look for the peak of memory."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float:
    """The most memory of the card that tensors held since; on the CPU, the most that this process ever held."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def idle_share(call: Callable[[], object], device: str) -> float:
    """The share of time in which no kernel and no copy runs, between the first one's beginning and the last one's end.

    Raises:
        RuntimeError: the profiler saw no kernel.
    """
    on_card = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU], acc_events=True) as found:
        call()
        wait(device)
    spans = [
        (event.time_range.start, event.time_range.end) for event in found.events() or () if _is_kernel(event, on_card)
    ]
    if not spans:
        raise RuntimeError("the profiler saw no kernel: CUPTI may need a permission of the driver, or be missing")
    return idle_between(spans)


def _is_kernel(event: FunctionEvent, on_card: bool) -> bool:
    if on_card:
        is_note = getattr(event, "is_user_annotation", False)  # it spans kernels and the gaps between them
        return event.device_type.name == "CUDA" and not is_note
    return event.name.startswith("aten::")


def idle_between(spans: Iterable[tuple[float, float]]) -> float:
    """The share of the time from the first start to the last end that no span covers; spans may overlap."""
    ordered = sorted(spans)
    first, last, covered = ordered[0][0], ordered[0][0], 0.0
    for start, end in ordered:
        covered += max(0.0, end - max(start, last))
        last = max(last, end)
    return 1.0 - covered / (last - first) if last > first else 0.0
