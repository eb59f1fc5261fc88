"""The teacher pool against a teacher in this process, and under fire."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import ObjectLostError, OutOfMemoryError

from hard_ray.config.networks import TeacherConfig
from hard_ray.config.runtime import RuntimeConfig, TeacherRuntime, Transport
from hard_ray.data.batch import Pixels
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.messages import ContextArrays, GradientAnswer, Reply, checked
from hard_ray.distillation.objectives import (
    AugmentorObjective,
    Disagreement,
    Drift,
    LabelCrossEntropy,
    TeacherObjective,
)
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherPool, TeacherSpec
from hard_ray.errors import ModelError, TeacherError
from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network
from hard_ray.networks.network import ImageSpec, build_student, image_spec
from hard_ray.orchestration.pool import client as pool_client
from hard_ray.orchestration.pool.client import PoolAddress, RayPool
from hard_ray.orchestration.pool.replica import JoiningReplica, Replica
from hard_ray.orchestration.pool.server import PoolServer, start_pool
from hard_ray.orchestration.pool.sharing import SEGMENTS
from tests.support.helpers import assert_equal_bits, run_here, student_weights, tiny_config, untrained_teacher

pytestmark = pytest.mark.usefixtures("cluster")

SPEC = ImageSpec(32, 3, tuple("abcd"))
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (12, 3, 32, 32)).astype(np.uint8)
CONTEXT = {
    "clean": RANDOM.normal(size=(12, 4)).astype(np.float32),
    "student": RANDOM.normal(size=(12, 4)).astype(np.float32),
    "labels": np.arange(12) % 4,
}
OBJECTIVES = [Drift(4.0), Disagreement(4.0), LabelCrossEntropy(), AugmentorObjective(4.0, 1.0, 0.3, cap=2.0)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's weights on disk."""
    torch.manual_seed(0)
    network = build_student(TeacherConfig(model="cifar_resnet8"), SPEC, role="teacher")
    folder = tmp_path_factory.mktemp("teacher")
    export_network(network, folder / "t", images=SPEC, facts=TrainingFacts("", 0, "", "", "", 0, EvalView()))
    return folder / "t"


def spec_of(saved: Path) -> TeacherSpec:
    return TeacherSpec(TeacherConfig(model="cifar_resnet8", checkpoint=saved), SPEC, threads=1)


def segments() -> list[Path]:
    """The segments of shared memory that this process has not freed."""
    return list(SEGMENTS.glob(f"hardray-{os.getpid()}-*"))


@contextmanager
def pool_of(spec: TeacherSpec, **runtime: object) -> Iterator[tuple[RayPool, PoolServer]]:
    teacher = TeacherRuntime(**{"num_cpus": 0.5, "timeout_s": 60, **runtime})
    server = start_pool(spec, RuntimeConfig(teacher=teacher), namespace=f"pool-{uuid.uuid4().hex}")
    try:
        yield RayPool(server.address), server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(saved: Path, cluster: None) -> Iterator[PoolServer]:
    """One replica for all tests that leave it unchanged, or restarted by Ray."""
    with pool_of(spec_of(saved)) as (_, server):
        yield server


@pytest.fixture(params=["colocated", "object_store", "shared_memory"])
def pool(request: pytest.FixtureRequest, saved: Path, server: PoolServer) -> Iterator[TeacherPool]:
    """The two ways of placing a teacher, and of sending it images: one Protocol, one set of tests."""
    torch.set_num_threads(1)
    if request.param == "colocated":
        yield LocalPool(FrozenNetwork.build(spec_of(saved)))
        return
    client = RayPool(replace(server.address, transport=request.param))
    client.identity()
    yield client
    assert (client.lender.lent > 0) if client.lender else request.param == "object_store"


def test_answers_equal_a_teacher_in_this_process_bit_for_bit(pool: TeacherPool, saved: Path):
    """The gradient check: the pool's gradient is the in-process one, at equal threads and float32."""
    teacher = FrozenNetwork.build(spec_of(saved))
    assert pool.identity() == teacher.identity()
    assert np.array_equal(pool.logits(IMAGES).result(), teacher.logits(IMAGES))
    for objective in OBJECTIVES:
        found = pool.loss_and_grad(IMAGES, objective, CONTEXT).result()
        expected = teacher.loss_and_grad(IMAGES, objective, CONTEXT)
        for name in ("loss", "grad", "logits"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), (objective, name)
        assert np.abs(found.grad).max() > 0


def test_the_gradient_is_that_of_plain_autograd(pool: TeacherPool, saved: Path):
    teacher = FrozenNetwork.build(spec_of(saved))
    pixels = torch.tensor(IMAGES).float().div(255).requires_grad_()
    context = {name: torch.tensor(rows) for name, rows in CONTEXT.items()}
    loss = AugmentorObjective(4.0, 1.0, 0.3)(teacher.network(pixels), context)
    (expected,) = torch.autograd.grad(loss.sum(), pixels)
    found = pool.loss_and_grad(IMAGES, AugmentorObjective(4.0, 1.0, 0.3), CONTEXT).result()
    scale = expected.abs().max().item()
    assert np.abs(found.grad - expected.numpy()).max() <= 1e-5 * scale


def test_many_requests_are_answered_each_its_own(pool: TeacherPool, saved: Path):
    teacher = FrozenNetwork.build(spec_of(saved))
    tickets = [pool.logits(IMAGES[i : i + 2]) for i in range(11)]
    for i in reversed(range(11)):
        assert np.array_equal(tickets[i].result(), teacher.logits(IMAGES[i : i + 2]))
    assert np.array_equal(tickets[0].result(), tickets[0].result())


def test_a_tensor_is_answered_as_its_array(pool: TeacherPool):
    clean, channels_last = (
        torch.tensor(IMAGES),
        (torch.tensor(IMAGES) / 255).contiguous(memory_format=torch.channels_last),
    )
    assert np.array_equal(pool.logits(clean).result(), pool.logits(IMAGES).result())
    found = pool.loss_and_grad(channels_last, Drift(4.0), CONTEXT).result()
    assert np.array_equal(found.grad, pool.loss_and_grad(IMAGES, Drift(4.0), CONTEXT).result().grad)
    assert not channels_last.requires_grad


def test_a_ticket_can_be_asked_twice(pool: TeacherPool):
    ticket = pool.logits(IMAGES)
    assert ticket.result() is ticket.result()


def pid_of(server: PoolServer, replica: int = 0) -> int:
    """The process id of a replica, from Ray."""
    return ray.get(server.actors[replica].__ray_call__.remote(lambda self: os.getpid()), timeout=60)


def test_float64_through_an_actor_is_exact(saved: Path):
    """A network in float64 behind a real actor gives the in-process gradient to 1e-12."""

    class Double:
        def __init__(self, spec: TeacherSpec) -> None:
            self.teacher = FrozenNetwork(FrozenNetwork.build(spec).network.double())

        def ask(self, *arguments: object) -> GradientAnswer:
            return self.teacher.loss_and_grad(*arguments)

    context = {name: rows.astype(np.float64) if name != "labels" else rows for name, rows in CONTEXT.items()}
    arguments = (IMAGES.astype(np.float64) / 255, AugmentorObjective(4.0, 1.0, 0.3), context)
    remote = ray.get(ray.remote(Double).options(num_cpus=0.1).remote(spec_of(saved)).ask.remote(*arguments))
    local = Double(spec_of(saved)).ask(*arguments)
    assert local.grad.dtype == np.float64
    assert np.abs(remote.grad - local.grad).max() <= 1e-12


@pytest.mark.chaos
@pytest.mark.parametrize("transport", ["object_store", "shared_memory"])
def test_a_replica_that_dies_costs_a_resend_and_nothing_else(saved: Path, server: PoolServer, transport: Transport):
    teacher, client = FrozenNetwork.build(spec_of(saved)), RayPool(replace(server.address, transport=transport))
    client.identity()
    tickets = [client.logits(IMAGES) for _ in range(4)]
    os.kill(pid_of(server), signal.SIGKILL)
    for ticket in tickets:
        assert np.array_equal(ticket.result(), teacher.logits(IMAGES))
    answer = client.loss_and_grad(IMAGES, Drift(4.0), CONTEXT).result()
    assert np.array_equal(answer.grad, teacher.loss_and_grad(IMAGES, Drift(4.0), CONTEXT).grad)
    assert client.resent >= 1
    assert not segments()


@pytest.mark.chaos
def test_another_replica_takes_over_and_when_none_is_left_the_run_stops(saved: Path):
    with pool_of(spec_of(saved), replicas=2) as (client, server):
        client.identity()
        ray.kill(server.actors[0], no_restart=True)
        for _ in range(6):
            client.logits(IMAGES).result()
        assert client.resent >= 1
        ray.kill(server.actors[1], no_restart=True)
        client.address = replace(client.address, timeout_s=2)
        with pytest.raises(TeacherError, match=r"teacher-\d died .* no replica answered for 2 s"):
            client.logits(IMAGES).result()


def test_requests_in_flight_are_bounded(server: PoolServer):
    client = RayPool(replace(server.address, max_in_flight=2))
    client.identity()
    tickets = []
    for _ in range(7):
        tickets.append(client.logits(IMAGES))
        assert len(client._open) <= 2
    for ticket in tickets:
        ticket.result()


def test_what_the_teacher_raises_reaches_the_worker_readable(tmp_path: Path):
    spec = TeacherSpec(TeacherConfig(model="cifar_resnet8", checkpoint=tmp_path / "none.pt"), SPEC)
    with pool_of(spec) as (client, _), pytest.raises(ModelError, match="there is no such file"):
        client.identity()


def test_a_wrong_request_is_an_error_and_the_replica_lives_on(server: PoolServer):
    client = RayPool(server.address)
    client.identity()
    with pytest.raises(TeacherError, match="the teacher failed"):
        client.logits(IMAGES[:, :1]).result()
    client.logits(IMAGES).result()


@pytest.mark.chaos
def test_an_answer_that_is_not_finite_is_refused(tmp_path: Path):
    network = build_student(TeacherConfig(model="cifar_resnet8"), SPEC, role="teacher")
    with torch.no_grad():
        next(network.parameters())[0].fill_(float("nan"))
    export_network(network, tmp_path / "t", images=SPEC, facts=TrainingFacts("", 0, "", "", "", 0, EvalView()))
    with pool_of(spec_of(tmp_path / "t")) as (client, _):
        with pytest.raises(TeacherError, match="logits are not finite for 12 of 12 images"):
            client.logits(IMAGES).result()
        with pytest.raises(TeacherError, match="not finite for 12 of 12 images"):
            client.loss_and_grad(IMAGES, Drift(4.0), CONTEXT).result()


@pytest.mark.chaos
@pytest.mark.parametrize("wrong", ["logits", "losses", "gradients"])
def test_an_answer_of_a_wrong_shape_is_refused(wrong: str):
    good = {"logits": (12, 4), "losses": (12,), "gradients": IMAGES.shape}
    shapes = {**good, wrong: (11, *good[wrong][1:])}
    parts = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
    refused = pytest.raises(
        TeacherError, match=rf"answered with {wrong} of shape \(11,.*\) for images of \(12, 3, 32, 32\)"
    )
    with refused:
        checked(GradientAnswer(loss=parts["losses"], grad=parts["gradients"], logits=parts["logits"]), IMAGES)
    if wrong == "logits":
        with refused:
            checked(parts["logits"], IMAGES)


@pytest.mark.chaos
def test_an_answer_to_non_finite_images_may_be_non_finite(server: PoolServer):
    """The student diverged, not the teacher: the check of the loss finds it."""
    client = RayPool(server.address)
    assert np.isnan(client.logits(np.full((2, 3, 32, 32), np.nan, dtype=np.float32)).result()).all()
    broken = {**CONTEXT, "student": np.full((12, 4), np.nan, dtype=np.float32)}
    assert np.isnan(client.loss_and_grad(IMAGES, Disagreement(4.0), broken).result().loss).all()


@pytest.mark.chaos
def test_an_answer_that_was_lost_with_its_node_is_asked_for_again(server: PoolServer, monkeypatch: pytest.MonkeyPatch):
    client = RayPool(server.address)
    client.identity()
    expected = client.logits(IMAGES).result()
    ticket, get = client.logits(IMAGES), ray.get
    lost: list[Exception] = [ObjectLostError("0" * 56, None, ""), OutOfMemoryError("the node ran out of memory")]

    def losing(*args: object, **options: object) -> object:
        if lost:
            raise lost.pop()
        return get(*args, **options)

    monkeypatch.setattr(ray, "get", losing)
    assert np.array_equal(ticket.result(), expected)
    assert client.resent == 2


class Hanging:
    """A replica that lives and never answers."""

    def logits(self, images: object) -> None:
        """Sleep instead of answering."""
        time.sleep(600)


@pytest.mark.chaos
def test_a_replica_that_hangs_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_client, "POLL_S", 0.2)
    namespace = uuid.uuid4().hex
    hanging = ray.remote(Hanging).options(name="teacher-0", namespace=namespace, num_cpus=0).remote()
    client = RayPool(PoolAddress(namespace, ("teacher-0",), max_in_flight=2, timeout_s=1.0))
    client.logits(IMAGES)
    client.logits(IMAGES)
    with pytest.raises(TeacherError, match="none of 2 requests to the teacher was answered for 1 s"):
        client.logits(IMAGES)
    ray.kill(hanging)


@pytest.mark.chaos
def test_a_replica_that_became_another_teacher_is_refused(saved: Path, tmp_path: Path):
    import shutil

    copy = tmp_path / "t"
    shutil.copytree(saved, copy)
    with pool_of(spec_of(copy)) as (client, server):
        client.identity()
        torch.manual_seed(1)
        other = build_student(TeacherConfig(model="cifar_resnet8"), SPEC, role="teacher")
        export_network(other, copy, images=SPEC, facts=TrainingFacts("", 0, "", "", "", 0, EvalView()))
        os.kill(pid_of(server), signal.SIGKILL)
        with pytest.raises(TeacherError, match="its weights, or its node.s compiler, changed while the run"):
            client.logits(IMAGES).result()


@pytest.fixture(scope="module")
def joining(saved: Path, cluster: None) -> Iterator[PoolServer]:
    """A replica that joins requests."""
    with pool_of(spec_of(saved), max_batch=24, max_wait_ms=1500) as (_, server):
        RayPool(server.address).identity()
        yield server


class Counting(Replica):
    """A replica that counts the batches it computes."""

    batches = 0

    def logits(self, images: Pixels) -> Reply[NDArray[np.float32]]:
        self.batches += 1
        return super().logits(images)

    def loss_and_grad(
        self, images: Pixels, objective: TeacherObjective, context: ContextArrays
    ) -> Reply[GradientAnswer]:
        self.batches += 1
        return super().loss_and_grad(images, objective, context)


def joined(saved: Path, requests: Callable[[JoiningReplica], list[Coroutine[Any, Any, Reply[Any]]]]) -> Any:
    """The answers of a replica to requests that arrive together, and the number of batches that they took."""

    async def ask() -> Any:
        replica = JoiningReplica(spec_of(saved), max_batch=24, max_wait_ms=200)
        replica.replica = Counting(spec_of(saved))
        replies = await asyncio.gather(*requests(replica))
        return [reply.answer for reply in replies], replica.replica.batches

    return asyncio.run(ask())


def test_waiting_requests_of_several_workers_are_joined(saved: Path, joining: PoolServer):
    teacher, workers = FrozenNetwork.build(spec_of(saved)), (RayPool(joining.address), RayPool(joining.address))
    start = time.monotonic()
    tickets = [worker.logits(IMAGES[:6]) for _ in range(2) for worker in workers]
    answers = [ticket.result() for ticket in tickets]
    assert time.monotonic() - start < 1.2  # joined they fill a batch; alone each would wait for 1.5 s
    for answer in answers:
        np.testing.assert_allclose(answer, teacher.logits(IMAGES[:6]), rtol=1e-4, atol=1e-5)


def test_only_requests_of_one_kind_are_joined(saved: Path):
    teacher = FrozenNetwork.build(spec_of(saved))
    first, half = ({name: rows[part] for name, rows in CONTEXT.items()} for part in (slice(6), slice(6, 12)))
    answers, batches = joined(
        saved,
        lambda replica: [
            replica.loss_and_grad(IMAGES[:6], Drift(4.0), first),
            replica.logits(IMAGES[:3]),
            replica.loss_and_grad(IMAGES[6:], Drift(4.0), half),
            replica.loss_and_grad(IMAGES[:6], Drift(2.0), first),
        ],
    )
    expected = teacher.loss_and_grad(IMAGES, Drift(4.0), CONTEXT)
    scale = np.abs(expected.grad).max()
    found = [answers[0], answers[2]]
    assert np.abs(np.concatenate([f.grad for f in found]) - expected.grad).max() <= 1e-5 * scale
    np.testing.assert_allclose(answers[1], teacher.logits(IMAGES[:3]), rtol=1e-4, atol=1e-5)
    assert batches == 3


def test_a_batch_that_is_full_does_not_wait(joining: PoolServer):
    client = RayPool(joining.address)
    start = time.monotonic()
    client.logits(np.concatenate([IMAGES, IMAGES])).result()
    assert time.monotonic() - start < 1.2


def test_an_error_in_a_joined_batch_reaches_all_its_requests(joining: PoolServer):
    client = RayPool(joining.address)
    with pytest.raises(TeacherError, match="the teacher failed"):
        client.logits(IMAGES[:, :1]).result()
    client.logits(IMAGES).result()


@pytest.mark.chaos
@pytest.mark.parametrize("transport", [pytest.param("object_store", marks=pytest.mark.slow), "shared_memory"])
def test_a_run_in_which_the_teacher_was_killed_three_times_ends_with_the_same_bits(
    tmp_path: Path, transport: Transport
):
    """The whole loop over a real pool, its only replica killed with SIGKILL at three updates."""
    from hard_ray.distillation.step import Updater

    config = tiny_config()
    index = build_index(config.data)
    teacher = untrained_teacher(config, index)
    folder = tmp_path / "teacher"
    facts = TrainingFacts("", 0, "", "", "", 0, EvalView())
    export_network(teacher.network, folder, images=image_spec(config.data, index.classes), facts=facts)
    spec = TeacherSpec(
        config.teacher.model_copy(update={"checkpoint": folder}), image_spec(config.data, index.classes), threads=1
    )
    run_here(config, tmp_path / "local", LocalPool(FrozenNetwork.build(spec)))

    with pool_of(spec, transport=transport) as (client, server):
        update = Updater.update
        killed = []

        def killing(self: Updater, *args: object, **kwargs: object) -> object:
            if kwargs["step"] in (4, 9, 15):
                os.kill(pid_of(server), signal.SIGKILL)
                killed.append(kwargs["step"])
            return update(self, *args, **kwargs)

        Updater.update = killing
        try:
            run_here(config, tmp_path / "pool", client)
        finally:
            Updater.update = update
        assert killed == [4, 9, 15]
        assert client.resent >= 1
        assert (client.lender.lent > 0) if client.lender else transport == "object_store"
    assert not segments()
    assert_equal_bits(student_weights(tmp_path / "local"), student_weights(tmp_path / "pool"))


def test_asking_needs_no_torch() -> None:
    """A process that only sends requests starts without torch."""
    asked = "import sys, hard_ray.orchestration.pool.client; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
