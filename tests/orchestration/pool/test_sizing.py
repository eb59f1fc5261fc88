"""A pool that follows its load: the decision alone, and a pool that grows and shrinks."""

import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import ray

from hard_ray.config.networks import TeacherConfig
from hard_ray.config.runtime import RuntimeConfig, TeacherRuntime
from hard_ray.distillation.teacher import FrozenNetwork, TeacherSpec
from hard_ray.orchestration.pool import client as pool_client
from hard_ray.orchestration.pool import sizing as pool_size
from hard_ray.orchestration.pool.client import RayPool
from hard_ray.orchestration.pool.server import start_pool
from hard_ray.orchestration.pool.sizing import GROW_AFTER, SHRINK_AFTER, Board, LoadFollower, PoolSizer
from tests.orchestration.pool.test_pool import IMAGES, SPEC, saved

__all__ = ["saved"]


def decisions(follower: LoadFollower, waiting: int, looks: int, replicas: int = 2) -> list[int]:
    return [follower(replicas, waiting) for _ in range(looks)]


def test_one_more_is_wanted_only_after_several_busy_looks():
    follower = LoadFollower(1, 4)
    assert decisions(follower, 8, GROW_AFTER) == [2] * (GROW_AFTER - 1) + [3]
    assert decisions(follower, 8, GROW_AFTER - 1) == [2] * (GROW_AFTER - 1)  # it counts anew
    assert follower(2, 0) == 2
    assert decisions(follower, 8, GROW_AFTER)[:-1] == [2] * (GROW_AFTER - 1)


def test_one_fewer_is_wanted_only_after_long_idleness():
    follower = LoadFollower(1, 4)
    assert decisions(follower, 0, SHRINK_AFTER) == [2] * (SHRINK_AFTER - 1) + [1]


def test_the_bounds_hold():
    assert decisions(LoadFollower(2, 2), 99, 3 * GROW_AFTER) == [2] * 3 * GROW_AFTER
    assert decisions(LoadFollower(2, 3), 0, 3 * SHRINK_AFTER) == [2] * 3 * SHRINK_AFTER


def test_one_request_for_each_replica_changes_nothing():
    assert decisions(LoadFollower(1, 4), 2, 3 * SHRINK_AFTER) == [2] * 3 * SHRINK_AFTER


def test_the_board_forgets_workers_that_are_silent(monkeypatch: pytest.MonkeyPatch):
    board = Board(("a",))
    assert board.exchange("w1", 3) == ("a",)
    board.exchange("w2", 4)
    board.exchange("w1", 1)
    assert board.watch(("a", "b")) == 5
    assert board.exchange("w2", 4) == ("a", "b")
    later = time.monotonic() + pool_size.HEARD_WITHIN_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert board.watch(("a",)) == 0


@pytest.mark.usefixtures("cluster")
def test_a_pool_grows_while_requests_wait_and_shrinks_when_none_do(saved: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_size, "DRAIN_S", 0.5)
    monkeypatch.setattr(pool_size, "SHRINK_AFTER", 5)
    monkeypatch.setattr(pool_client, "EXCHANGE_EVERY_S", 0.05)
    spec = TeacherSpec(TeacherConfig(model="cifar_resnet8", checkpoint=saved), SPEC, threads=1)
    teacher = TeacherRuntime(num_cpus=0.5, timeout_s=60, max_replicas=2, max_in_flight=16)
    said: list[str] = []
    namespace = f"pool-{uuid.uuid4().hex}"
    server = start_pool(spec, RuntimeConfig(teacher=teacher), namespace=namespace, say=said.append)
    assert server.sizer is not None
    expected = FrozenNetwork.build(spec).logits(IMAGES)
    try:
        client = RayPool(server.address)
        assert client.identity() == FrozenNetwork.build(spec).identity()
        many = np.concatenate([IMAGES] * 40)  # an answer takes tenths of a second
        end = time.monotonic() + 60
        while len(server.sizer.replicas) < 2 and time.monotonic() < end:
            for ticket in [client.logits(many) for _ in range(10)]:
                ticket.result()
        assert list(server.sizer.replicas) == ["teacher-0", "teacher-1"]
        end = time.monotonic() + 10
        while client.size < 2 and time.monotonic() < end:
            assert np.array_equal(client.logits(IMAGES).result(), expected)
        assert client.size == 2
        second = server.sizer.replicas["teacher-1"]
        end = time.monotonic() + 30
        while len(server.sizer.replicas) > 1 and time.monotonic() < end:
            assert np.array_equal(client.logits(IMAGES).result(), expected)
            time.sleep(0.2)
        assert list(server.sizer.replicas) == ["teacher-0"]
        with pytest.raises(ray.exceptions.RayActorError):
            while time.monotonic() < end + 30:
                ray.get(second.identity.remote())
                time.sleep(0.2)
        for _ in range(4):
            assert np.array_equal(client.logits(IMAGES).result(), expected)
        assert any("requests wait for 1 replicas; one more starts" in text for text in said)
        assert said[-1] == "teacher pool: little to do; 1 replicas"
    finally:
        server.stop()
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor("board", namespace=namespace)


@pytest.mark.usefixtures("cluster")
def test_a_replica_that_finds_no_place_is_given_up_once_there_is_little_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_size, "SHRINK_AFTER", 3)

    class Replica:
        def identity(self) -> str:
            return "one"

    begun, said = [], []

    def begin(name: str) -> ray.actor.ActorHandle:
        begun.append(ray.remote(Replica).options(num_cpus=1000).remote())
        return begun[-1]

    board, first = ray.remote(Board).options(num_cpus=0).remote(("teacher-0",)), ray.remote(Replica).remote()
    sizer = PoolSizer(begin, board, {"teacher-0": first}, LoadFollower(1, 4), said.append)
    ray.get(board.exchange.remote("worker", 9))
    for _ in range(2 * GROW_AFTER):
        sizer.look()
    assert len(begun) == 1
    ray.get(board.exchange.remote("worker", 0))
    for _ in range(3):
        sizer.look()
    assert said[-1] == "teacher pool: little to do; teacher-1, which has not started, is cancelled"
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(begun[0].identity.remote(), timeout=20)
    assert list(sizer.replicas) == ["teacher-0"]
    sizer.close()
