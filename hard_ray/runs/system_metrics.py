"""CPU, memory, disk, network and GPU of the driver's machine, sampled by MLflow's monitors."""

from __future__ import annotations

from hard_ray.runs.folder import RunFolder
import logging
from typing import Any
import json
import time




logger = logging.getLogger(__name__)

SAMPLE_EVERY_S = 10.0


class SystemSampler:
    """CPU, memory, disk, network and GPU use of this machine, by MLflow's own monitors."""

    def __init__(self, folder: RunFolder) -> None:
        """Points continue where an earlier start of the run left off."""
        self.path = folder.path / "system.jsonl"
        self._monitors: list[Any] = []
        self._last = 0.0

    def sample(self) -> None:
        """Append a point if the last one is old enough."""
        if time.monotonic() - self._last < SAMPLE_EVERY_S:
            return
        self._last = time.monotonic()
        values: dict[str, float] = {}
        for monitor in self._made():
            monitor.collect_metrics()
            values |= {f"system/{key}": value for key, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        with self.path.open("a+b") as stream:
            stream.seek(0)
            whole = [len(line) for line in stream if line.endswith(b"\n")]
            stream.truncate(sum(whole))  # a disk that was full left half a line, which the next would be joined to
            point = {"step": len(whole), "time": time.time(), **values}
            stream.write(f"{json.dumps(point)}\n".encode())

    def _made(self) -> list[Any]:
        if not self._monitors:
            from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
            from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
            from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
            from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

            self._monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
            try:
                self._monitors.append(GPUMonitor())
            except Exception:  # no NVIDIA management library, or no GPU
                logger.debug("no GPU to watch")
        return self._monitors
