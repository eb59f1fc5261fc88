"""CPU, memory, disk, network and GPU of the driver's machine, sampled by MLflow's monitors."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from hard_ray.runs.folder import RunFolder

logger = logging.getLogger(__name__)

SAMPLE_EVERY_S = 10.0


class SystemSampler:
    """Appends the use of this machine's CPU, memory, disk, network and GPU to `system.jsonl`."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.path / "system.jsonl"
        self._monitors: list[Any] = []
        self._last = 0.0

    def sample(self) -> None:
        """Append a point if the last one is old enough."""
        if time.monotonic() - self._last < SAMPLE_EVERY_S:
            return
        self._last = time.monotonic()
        values: dict[str, float] = {}
        for monitor in self._all():
            monitor.collect_metrics()
            values |= {f"system/{key}": value for key, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        with self.path.open("a+b") as stream:
            stream.seek(0)
            whole = [len(line) for line in stream if line.endswith(b"\n")]
            stream.truncate(sum(whole))  # a full disk left half a line; the next one must not be joined to it
            point = {"step": len(whole), "time": time.time(), **values}
            stream.write(f"{json.dumps(point)}\n".encode())

    def _all(self) -> list[Any]:
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
