"""One Ray cluster for all tests of a session that need actors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A local cluster with more tokens than the machine has cores."""
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        namespace="tests",
    )
    yield
    ray.shutdown()
