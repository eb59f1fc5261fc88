"""The servers of buckets that these tests share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from tests.support.buckets import Faults, Server, faulty_server, server_with, set_keys

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_with(tmp_path_factory.mktemp("moto") / "log") as started:
        yield started


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    set_keys(monkeypatch)
    monkeypatch.setattr(objects, "RETRIES", objects.Retries(first_s=0.01, longest_s=0.05))


@pytest.fixture
def bucket(server: Server) -> Remote:
    """A new, empty bucket."""
    name = f"bucket-{next(NUMBERS)}"
    server.make_bucket(name)
    return server.remote(name)


@pytest.fixture
def faulty(server: Server, bucket: Remote) -> Iterator[tuple[Remote, Faults]]:
    """The same bucket through a server that fails."""
    with faulty_server(server) as (front, faults):
        yield front.remote(bucket.authority), faults
