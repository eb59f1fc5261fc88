"""Float16: the scale of the loss, the steps that it skips, its state, and gradients to images."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from hard_ray.config.controller import Phase
from hard_ray.config.objective import KdObjective
from hard_ray.distillation.checkpoints import CheckpointStore, Counters, Weights
from hard_ray.distillation.guard import diverged
from hard_ray.distillation.loop import Status
from hard_ray.distillation.loss_scale import LossScale
from hard_ray.distillation.objectives import LabelCrossEntropy
from hard_ray.distillation.optimisers import Clipping
from hard_ray.distillation.phases import StudentPhase
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork
from hard_ray.errors import DivergedError
from hard_ray.files import read_json
from hard_ray.networks.precision import Precision
from tests.distillation.test_loop import steps_of
from tests.distillation.test_step import batch, nets, updater
from tests.support.helpers import assert_equal_bits, run_here, student_weights, tiny_config

CPU = torch.device("cpu")
HALF = Precision(CPU, torch.float16)


def half(initial: float, *, clipping: Clipping | None = None) -> Updater:
    """An update in float16 whose loss is scaled by `initial` first."""
    teacher, student = nets()
    made = updater(teacher, student, augmentor=None, objective=KdObjective())
    made.precision, made.clipping = HALF, clipping
    made.learner.loss_scale = LossScale(CPU, initial=initial)
    return made


def step(made: Updater, number: int = 0) -> dict[str, torch.Tensor]:
    return made.update(made.prepare(batch(), second_view=False), Phase.STUDENT, step=number, epoch=0.0)


def test_a_gradient_that_overflows_makes_no_step_and_halves_the_scale_until_it_fits():
    made = half(2.0**24)
    before = copy.deepcopy(made.learner.network.state_dict())
    metrics = step(made)
    assert float(metrics["amp/skipped"]) == 1.0
    assert float(metrics["amp/loss_scale"]) == 2.0**24
    assert not bool(diverged(metrics))
    assert all(torch.equal(value, before[key]) for key, value in made.learner.network.state_dict().items())
    updates = 1
    while float(metrics["amp/skipped"]):
        metrics = step(made, updates)
        updates += 1
    assert 2 < updates < 20
    assert made.learner.loss_scale.state_dict()["skipped"] == updates - 1
    assert not all(torch.equal(value, before[key]) for key, value in made.learner.network.state_dict().items())


def test_gradients_are_clipped_at_their_own_size_and_not_at_that_of_the_scaled_loss():
    start = nets()[1]
    moved = {}
    for scale in (2.0**4, 2.0**10):
        made = half(scale, clipping=Clipping(0.01))
        step(made)
        pairs = zip(made.learner.network.parameters(), start.parameters(), strict=True)
        moved[scale] = torch.cat([(one - other).detach().flatten() for one, other in pairs])
    assert moved[2.0**4].norm().item() == pytest.approx(0.01 * 0.01, rel=1e-2)  # learning rate x limit
    torch.testing.assert_close(moved[2.0**4], moved[2.0**10], rtol=0.05, atol=1e-7)


def test_the_scale_follows_torchs_own():
    made = half(2.0**16)
    network = copy.deepcopy(made.learner.network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    given = made.prepare(batch(), second_view=False)
    teacher = made.wait(given.teacher)
    for number in range(3):
        step(made, number)
        with HALF.autocast():
            logits = network(given.images).float()
        log_t, log_s = (teacher / 4).log_softmax(dim=1), (logits / 4).log_softmax(dim=1)
        kd = 16 * (log_t.exp() * (log_t - log_s)).sum(dim=1)
        loss = (0.1 * torch.nn.functional.cross_entropy(logits, given.labels, reduction="none") + 0.9 * kd).mean()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    for one, other in zip(made.learner.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert made.learner.loss_scale.state_dict()["scale"] == scaler.get_scale()


def test_only_float16_needs_a_scale():
    assert LossScale.of(Precision(CPU)) is None
    assert LossScale.of(Precision(CPU, torch.bfloat16)) is None
    assert LossScale.of(HALF) is not None


def weights(scale: LossScale | None) -> Weights:
    module = nn.Linear(3, 2)
    return Weights({"student": module}, {"student": torch.optim.SGD(module.parameters(), lr=0.1)}, scale)


def test_a_checkpoint_keeps_the_scale_and_one_from_before_it_leaves_the_first(tmp_path: Path):
    store, scale = CheckpointStore(tmp_path / "new"), LossScale(CPU, initial=8.0)
    scale.skipped = torch.tensor(3.0)
    store.save(weights(scale), Counters(step=1))
    found = LossScale(CPU)
    assert store.restore(weights(found), say=pytest.fail) is not None
    assert found.state_dict() == scale.state_dict()
    old, fresh = CheckpointStore(tmp_path / "old"), LossScale(CPU)
    old.save(weights(None), Counters(step=1))
    assert old.restore(weights(fresh), say=pytest.fail) is not None
    assert fresh.state_dict() == LossScale(CPU).state_dict()
    assert store.restore(weights(None), say=pytest.fail) is not None


def test_a_run_in_float16_resumes_to_the_same_bits_and_counts_what_it_skipped(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(LossScale.__init__, "__kwdefaults__", {"initial": 2.0**30})
    config = tiny_config("runtime.amp_dtype=float16", "optim.steps=12", "checkpoints.every=0.1", "checkpoints.keep=99")
    assert run_here(config, tmp_path / "straight") is Status.FINISHED
    assert run_here(config, tmp_path / "resumed") is Status.FINISHED
    folder = tmp_path / "resumed"
    kept = CheckpointStore(folder / "checkpoints").list()
    for path in kept[2:]:
        path.rename(folder / f"later-{path.name}")
    (folder / "outcome.json").unlink()
    assert run_here(config, folder) is Status.FINISHED
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(folder))
    assert steps_of(folder) == steps_of(tmp_path / "straight")
    assert read_json(folder / "outcome.json")["steps"]["student"] == 12
    state = torch.load(kept[1] / "optimizers.pt", weights_only=True)["loss_scale"]
    assert state["skipped"] >= 2
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    counted = [point["amp/skipped_steps"] for point in points if point["kind"] == "train"]
    assert counted == sorted(counted)
    assert counted[-1] == sum(point.get("amp/skipped", 0.0) for point in points)
    assert state["scale"] == 2.0 ** (30 - state["skipped"])


def test_a_run_whose_gradients_no_scale_makes_finite_is_stopped(tmp_path: Path, monkeypatch):
    backward = StudentPhase.backward

    def broken(self: StudentPhase, loss: torch.Tensor) -> None:
        backward(self, loss)
        next(self.learner.network.parameters()).grad.fill_(float("nan"))

    monkeypatch.setattr(StudentPhase, "backward", broken)
    monkeypatch.setattr(LossScale.__init__, "__kwdefaults__", {"initial": 2.0**-8})
    config = tiny_config("runtime.amp_dtype=float16", "optim.steps=12", "runtime.max_divergences=0")
    with pytest.raises(DivergedError, match="gradients of float16 .* not finite"):
        run_here(config, tmp_path)
    assert CheckpointStore(tmp_path / "checkpoints").list() == []


def test_gradients_to_images_in_float16_keep_what_would_become_zero():
    teacher = nets()[0]
    given = batch()
    context = {"labels": given.labels}
    grads = {}
    for dtype in ("float32", "float16"):
        frozen = FrozenNetwork(copy.deepcopy(teacher), dtype=dtype)
        grads[dtype] = torch.tensor(frozen.loss_and_grad(given.images, LabelCrossEntropy(), context).grad)
    assert (grads["float16"] - grads["float32"]).norm() < 0.1 * grads["float32"].norm()


def test_a_scaled_gradient_to_images_that_overflows_is_computed_with_a_smaller_factor():
    images = torch.full((2, 3), 0.5, requires_grad=True)
    loss = (images.half() * 300.0).float().sum()  # 2**12 x 300 is beyond float16, 2**6 x 300 is not
    (grad,) = HALF.gradients(loss, [images])
    assert torch.equal(grad, torch.full((2, 3), 300.0))
    tiny = (images.half().float() * 1e-8).sum()
    (grad,) = HALF.gradients(tiny, [images])
    torch.testing.assert_close(grad, torch.full((2, 3), 1e-8), rtol=0.01, atol=0)
