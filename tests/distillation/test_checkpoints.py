"""Checkpoints: a damaged one is skipped, and files of a killed process are removed."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from hard_ray.distillation.checkpoints import STATE_FILE, CheckpointStore, Counters, Weights


def weights() -> Weights:
    module = nn.Linear(3, 2)
    return Weights({"student": module}, {"student": torch.optim.SGD(module.parameters(), lr=0.1)})


@pytest.mark.parametrize("digests", [["a"], "a", None, {"student.safetensors": ["a"]}])
def test_a_checkpoint_with_digests_of_another_shape_is_passed_over_for_the_one_before(tmp_path: Path, digests: object):
    store, said = CheckpointStore(tmp_path), []
    store.save(weights(), Counters(step=5))
    newest = store.save(weights(), Counters(step=6)) / STATE_FILE
    newest.write_text(json.dumps(json.loads(newest.read_text()) | {"sha256": digests}))
    found = store.restore(weights(), say=said.append)
    assert found is not None
    assert found.step == 5
    assert [text.partition(" (")[0] for text in said] == ["checkpoint step-00000006 is damaged"]


def test_a_checkpoint_that_a_killed_process_began_is_removed_by_the_next(tmp_path: Path):
    (tmp_path / ".step-00000004.01234567.tmp").mkdir()
    CheckpointStore(tmp_path).save(weights(), Counters(step=5))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
