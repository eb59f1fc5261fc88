"""What several tests of runs need."""

from __future__ import annotations

from pathlib import Path

import pytest

from hard_ray.config.records import TrackingConfig
from hard_ray.runs.tracking import check_address


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables with one empty experiment: to copy one takes less time than to make one."""
    runs = tmp_path_factory.mktemp("empty")
    check_address(TrackingConfig(experiment="unused"), runs, create=True)
    return runs / "mlflow.db"
