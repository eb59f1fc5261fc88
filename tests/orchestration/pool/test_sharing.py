"""Images as handles to shared memory: who can open them, who frees them, and what happens where nobody can."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import rebuild_cuda_tensor

from hard_ray.config.runtime import TeacherRuntime
from hard_ray.distillation.objectives import Drift
from hard_ray.distillation.teacher import FrozenNetwork
from hard_ray.orchestration.pool import sharing
from hard_ray.orchestration.pool.client import RayPool
from hard_ray.orchestration.pool.replica import JoiningReplica
from hard_ray.orchestration.pool.server import PoolServer
from hard_ray.orchestration.pool.sharing import (
    SEGMENTS,
    CannotOpenError,
    CardHandle,
    Lender,
    Place,
    lend,
    opened,
    renumbered,
)
from tests.orchestration.pool.test_pool import CONTEXT, IMAGES, joined, pool_of, saved, segments, spec_of

__all__ = ["saved"]


@pytest.fixture(scope="module")
def server(saved: Path, cluster: None) -> Iterator[PoolServer]:
    """One replica for all tests."""
    with pool_of(spec_of(saved), transport="shared_memory") as (client, server):
        client.identity()
        yield server


@pytest.fixture
def client(server: PoolServer) -> RayPool:
    """A worker that knows where the replica is."""
    client = RayPool(server.address)
    client.identity()
    return client


@pytest.fixture
def expected(saved: Path) -> np.ndarray:
    """The teacher's logits."""
    torch.set_num_threads(1)
    return FrozenNetwork.build(spec_of(saved)).logits(IMAGES)


def lender(client: RayPool) -> Lender:
    assert client.lender is not None
    return client.lender


@pytest.mark.parametrize("images", [IMAGES, np.float32(IMAGES) / 255, IMAGES.transpose(0, 1, 3, 2), IMAGES[:1, :, 3:]])
def test_a_handle_opens_to_the_same_bits_and_is_gone_when_freed(images: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sharing, "_node", lambda: "here")
    lent = lend(images, "here")
    (file,) = segments()
    assert oct(file.stat().st_mode)[-3:] == "600"
    found = opened(lent.handle)
    lent.free()
    assert not segments()
    assert found.dtype == images.dtype
    assert np.array_equal(found, images)  # who has opened it keeps it
    assert not found.flags.writeable
    lent.free()
    with pytest.raises(CannotOpenError, match="cannot be mapped"):
        opened(lent.handle)


def test_a_handle_that_nobody_holds_frees_its_memory():
    lent = lend(IMAGES, "here")
    assert len(segments()) == 1
    del lent
    assert not segments()


def test_another_node_cannot_open_a_handle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sharing, "_node", lambda: "there")
    with pytest.raises(CannotOpenError, match="the images are on node here, this is node there"):
        opened(lend(IMAGES, "here").handle)


def test_a_full_dev_shm_is_an_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        lend(IMAGES, "here")
    assert not segments()


def test_a_worker_that_is_killed_leaves_no_memory_behind():
    """Python's resource tracker, a process beside the worker, frees what the worker did not."""
    program = (
        "import numpy as np, os; from hard_ray.orchestration.pool.sharing import lend\n"
        "lent = lend(np.ones((4, 3, 8, 8), np.uint8), 'here'); print(lent.handle.name, flush=True); input()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as worker:
        assert worker.stdout is not None
        file = SEGMENTS / worker.stdout.readline().strip()
        assert file.is_file()
        os.kill(worker.pid, signal.SIGKILL)
        end = time.monotonic() + 30
        while file.exists() and time.monotonic() < end:
            time.sleep(0.05)
    assert not file.exists()


def test_memory_is_freed_with_the_answer(client: RayPool, expected: np.ndarray):
    tickets = [client.logits(IMAGES) for _ in range(3)]
    assert len(segments()) == 3
    for ticket in tickets:
        assert np.array_equal(ticket.result(), expected)
    assert not segments()
    assert lender(client).lent == 3
    assert client.resent == 0


def test_a_replica_on_another_node_gets_bytes_and_that_is_said_once(
    client: RayPool, expected: np.ndarray, caplog: pytest.LogCaptureFixture
):
    lender(client).node = "elsewhere"
    for _ in range(2):
        assert np.array_equal(client.logits(IMAGES).result(), expected)
    assert lender(client).lent == 0
    assert [
        record.getMessage().startswith("runtime.teacher.transport: a teacher is on another node")
        for record in caplog.records
    ] == [True]


@pytest.mark.parametrize("verb", ["logits", "loss_and_grad"])
def test_a_handle_that_cannot_be_opened_costs_one_request_and_the_next_ones_are_bytes(
    client: RayPool, saved: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch, verb: str
):
    """A replica that Ray restarted on another node looks like this."""
    monkeypatch.setattr(sharing, "lend", lambda images, node: lend(images, "elsewhere"))
    for _ in range(2):
        if verb == "logits":
            assert np.array_equal(client.logits(IMAGES).result(), expected)
        else:
            found = client.loss_and_grad(IMAGES, Drift(4.0), CONTEXT).result()
            assert np.array_equal(found.logits, expected)
    assert lender(client).lent == 1
    assert client.resent == 0
    assert not segments()


def test_a_request_that_fails_frees_its_memory(client: RayPool):
    with pytest.raises(sharing.HardrayError, match="the teacher failed"):
        client.logits(IMAGES[:, :1]).result()
    assert not segments()


def test_what_cannot_be_shared_goes_as_bytes(
    client: RayPool, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refused(*_: object) -> None:
        raise RuntimeError("cudaMallocAsync does not yet support shareIpcHandle")

    monkeypatch.setattr(sharing, "lend", refused)
    for _ in range(2):
        assert np.array_equal(client.logits(IMAGES).result(), expected)
    assert caplog.text.count("images cannot be put into shared memory (cudaMallocAsync") == 1


def test_a_worker_does_not_wait_for_a_replica_to_say_where_it_is(server: PoolServer, expected: np.ndarray):
    client = RayPool(server.address)  # as one that met a replica that was started later
    end = time.monotonic() + 30
    while lender(client).lent == 0 and time.monotonic() < end:
        assert np.array_equal(client.logits(IMAGES).result(), expected)
    assert lender(client).lent == 1


@pytest.mark.usefixtures("cluster")
def test_joined_requests_may_come_either_way(saved: Path):
    tensor, node = torch.tensor(IMAGES[:6]), sharing.own_place().node
    handles = [lend(IMAGES[:6], node), lend(IMAGES[6:], node)]

    def requests(replica: JoiningReplica) -> list[object]:
        sent = [handles[0].handle, IMAGES[:6], handles[1].handle, tensor, tensor]
        return [replica.logits(images) for images in sent]

    answers, batches = joined(saved, requests)
    teacher = FrozenNetwork.build(spec_of(saved))
    for answer, images in zip(answers, [IMAGES[:6], IMAGES[:6], IMAGES[6:], IMAGES[:6], IMAGES[:6]], strict=True):
        np.testing.assert_allclose(answer, teacher.logits(images), rtol=1e-4, atol=1e-5)
    assert batches == 2  # arrays and tensors are not joined


def test_a_card_has_the_number_that_the_opening_process_gives_it():
    import inspect

    names = list(inspect.signature(rebuild_cuda_tensor).parameters)
    found = renumbered(rebuild_cuda_tensor, tuple(names), 5)
    assert dict(zip(names, found, strict=True)) == {name: 5 if name == "storage_device" else name for name in names}


def test_a_tensor_of_another_card_is_not_opened(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sharing, "own_place", lambda: Place("here", "card-1"))
    with pytest.raises(CannotOpenError, match="on node here, card card-0, this process is on node here, card card-1"):
        CardHandle(Place("here", "card-0"), rebuild_cuda_tensor, ()).open()


def test_a_pool_without_a_card_takes_arrays(client: RayPool, server: PoolServer):
    if not torch.cuda.is_available():
        assert not client.takes_tensors
    assert not RayPool(replace(server.address, transport="object_store")).takes_tensors


def test_handles_need_a_pool():
    with pytest.raises(ValueError, match="transport shared_memory is a way to a pool, and placement is colocated"):
        TeacherRuntime(transport="shared_memory", placement="colocated")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_tensor_on_the_card_is_opened_by_another_process(tmp_path: Path):
    """Its kernels may still be running: the other process waits for them."""
    import pickle

    torch.manual_seed(0)
    factor = torch.rand(4096, 4096, device="cuda")
    for _ in range(20):
        factor = (factor @ factor).sigmoid()
    images = (factor[:48, :3072].reshape(48, 3, 32, 32) * 255).to(torch.uint8)
    lent = lend(images, "here")
    assert isinstance(lent.handle, CardHandle)
    (tmp_path / "handle").write_bytes(pickle.dumps(lent.handle))
    program = (
        "import pickle, sys, numpy as np, torch; from hard_ray.orchestration.pool import sharing\n"
        "sharing._node = lambda: 'here'\n"
        "handle = pickle.load(open(sys.argv[1] + '/handle', 'rb')); tensor = handle.open()\n"
        "np.save(sys.argv[1] + '/found.npy', tensor.cpu().numpy()); del tensor; torch.cuda.ipc_collect()"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    assert np.array_equal(np.load(tmp_path / "found.npy"), images.cpu().numpy())
