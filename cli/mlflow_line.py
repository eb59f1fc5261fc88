"""The line of a dry run about MLflow's address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hard_ray.config.records import TrackingConfig


def mlflow_line(config: TrackingConfig, output: Path | None) -> tuple[str, str]:
    """Where a run would be recorded; TrackingError: it cannot be there. Nothing is created."""
    from hard_ray.runs.tracking import UnreachableError, check_address
    from hard_ray.storage.address import Remote, is_url
    from hard_ray.storage.mirror import working_copy

    if output is not None and is_url(output):
        output = working_copy(Remote.parse(output))
    runs = (output or Path("runs") / "any").expanduser().resolve().parent
    try:
        return "MLflow", check_address(config, runs)
    except UnreachableError as error:
        return "MLflow", f"{error}; a run would go on, and `hardray sync` send it later"
