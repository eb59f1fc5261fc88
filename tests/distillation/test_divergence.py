"""A non-finite loss: the batch is kept, the run goes back, and stops if that does not help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hard_ray.distillation.checkpoints import CheckpointStore
from hard_ray.distillation.loop import Status
from hard_ray.distillation.step import Updater
from hard_ray.errors import DivergedError
from tests.distillation.test_loop import steps_of
from tests.support.helpers import assert_equal_bits, digits_pipeline, run_here, student_weights, tiny_config

pytestmark = pytest.mark.chaos


def failing(monkeypatch: pytest.MonkeyPatch, at: int, times: int) -> list[int]:
    """Make the weights NaN at update `at`, `times` times; return the list of updates that were made."""
    update, made, left = Updater.update, [], [times]

    def poisoned(self: Updater, prepared: object, phase: object, *, step: int, epoch: float) -> object:
        made.append(step)
        if step == at and left[0]:
            left[0] -= 1
            with torch.no_grad():
                next(self.learner.network.parameters()).fill_(float("nan"))
        return update(self, prepared, phase, step=step, epoch=epoch)

    monkeypatch.setattr(Updater, "update", poisoned)
    return made


def test_a_run_goes_back_to_its_last_good_checkpoint_and_ends_with_the_same_bits(tmp_path: Path, monkeypatch):
    run_here(tiny_config(), tmp_path / "straight")
    made = failing(monkeypatch, at=12, times=1)
    assert run_here(tiny_config(), tmp_path / "poisoned") is Status.FINISHED
    assert made.count(12) == 2
    assert made[made.index(12) + 1] == 8  # the checkpoint before
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "poisoned"))
    assert steps_of(tmp_path / "poisoned") == steps_of(tmp_path / "straight")
    (kept,) = (tmp_path / "poisoned" / "diverged").iterdir()
    assert kept.name == "step-00000013-rank-0.npz"
    with np.load(kept, allow_pickle=False) as found:
        batches = digits_pipeline(32).train_batches(12)
        expected = next(batches)
        np.testing.assert_array_equal(found["images"], expected.images)
        np.testing.assert_array_equal(found["labels"], expected.labels)
        np.testing.assert_array_equal(found["sample_ids"], expected.sample_ids)


@pytest.mark.parametrize("most", [0, 2])
def test_it_stops_after_so_many_times_with_the_reason(tmp_path: Path, monkeypatch, most: int):
    made = failing(monkeypatch, at=12, times=99)
    with pytest.raises(DivergedError) as caught:
        run_here(tiny_config(f"runtime.max_divergences={most}"), tmp_path)
    assert made.count(12) == most + 1
    text = str(caught.value)
    assert text.startswith("the loss of update 13 is not finite; its images are in ")
    assert "lower optim.lr" in text
    assert ("went back to step-00000008 2 times" in text) == bool(most)
    for path in CheckpointStore(tmp_path / "checkpoints").list():
        assert int(path.name[-8:]) <= 12


def test_no_checkpoint_holds_weights_that_are_not_finite(tmp_path: Path, monkeypatch):
    """If the last update before a checkpoint fails, this is noticed before the checkpoint, not one update later."""
    failing(monkeypatch, at=7, times=99)
    with pytest.raises(DivergedError, match="of update 8"):
        run_here(tiny_config("runtime.max_divergences=0"), tmp_path)
    assert CheckpointStore(tmp_path / "checkpoints").list() == []


def test_a_finite_loss_with_a_gradient_that_is_none_leaves_no_checkpoint_either(tmp_path: Path, monkeypatch):
    """The update before a checkpoint breaks the weights, and its loss is finite."""
    run_here(tiny_config(), tmp_path / "straight")
    update, left = Updater.update, [1]

    def breaking(self: Updater, prepared: object, phase: object, *, step: int, epoch: float) -> object:
        metrics = update(self, prepared, phase, step=step, epoch=epoch)
        if step == 15 and left[0]:
            left[0] -= 1
            with torch.no_grad():
                next(self.learner.network.parameters())[0].fill_(float("inf"))
        return metrics

    monkeypatch.setattr(Updater, "update", breaking)
    assert run_here(tiny_config(), tmp_path / "broken") is Status.FINISHED
    assert [path.name for path in (tmp_path / "broken" / "diverged").iterdir()] == ["step-00000016-rank-0.npz"]
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "broken"))
    assert steps_of(tmp_path / "broken") == steps_of(tmp_path / "straight")


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import time

    run_here(tiny_config(), tmp_path / "straight")
    real, calls = time.time, []

    def jumping() -> float:
        calls.append(1)
        return real() + (-1e6 if len(calls) % 2 else 1e6)

    monkeypatch.setattr(time, "time", jumping)
    run_here(tiny_config(), tmp_path / "jumping")
    assert len(calls) > 20
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "jumping"))
    assert steps_of(tmp_path / "jumping") == steps_of(tmp_path / "straight")
