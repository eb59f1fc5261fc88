"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def shared_data() -> Path:
    """Real data and weights that lie beside the project on some machines."""
    folder = Path(os.environ.get("HARDRAY_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set HARDRAY_TEST_DATA to a folder with real data")
    return folder


ADDRESSES = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Teachers that tests train are not the user's, and neither are servers and clusters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARDRAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        for name in ADDRESSES:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def no_address_is_left() -> Iterator[None]:
    """What a test told MLflow or Ray, it did not tell the next."""
    yield
    for name in ADDRESSES:
        os.environ.pop(name, None)
