import numpy as np
import pytest
import torch

from hard_ray.maths.t_stddev import ITERATIONS, WATCHED_GROUPS, StddevMeter, t_stddev
from hard_ray.ranks import Ranks

RANDOM = np.random.default_rng(0)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def longhand(groups: np.ndarray) -> float:
    """Class by class."""
    spreads = []
    for column in groups.T:
        mean = sum(column) / len(column)
        spreads.append((sum((value - mean) ** 2 for value in column) / (len(column) - 1)) ** 0.5)
    return sum(spreads) / len(spreads)


def test_t_stddev_equals_a_longhand_one():
    groups = RANDOM.random((7, 5))
    assert float(t_stddev(torch.tensor(groups))) == pytest.approx(longhand(groups), rel=1e-12)
    assert float(t_stddev(torch.ones(4, 3))) == 0.0


def test_the_meter_says_nothing_before_twenty_groups_and_then_the_value_of_the_last_twenty():
    meter, groups = StddevMeter(), []
    for group in range(WATCHED_GROUPS + 3):
        answers = []
        for iteration in range(ITERATIONS):
            clean, augmented = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(6, 4))
            found = meter.add(torch.tensor(clean), torch.tensor(augmented), Ranks())
            answers += [*softmax(clean), *softmax(augmented)]
            is_full = iteration == ITERATIONS - 1 and group >= WATCHED_GROUPS - 1
            assert (found is not None) == is_full
        groups.append(np.mean(answers, axis=0))
        if found is not None:
            assert float(found) == pytest.approx(longhand(np.stack(groups[-WATCHED_GROUPS:])), rel=1e-9)


def test_the_meter_takes_candidates_that_are_more_than_the_batch_as_one_view():
    meter = StddevMeter()
    clean = torch.zeros(2, 3)
    for _ in range(ITERATIONS * WATCHED_GROUPS):
        found = meter.add(clean, torch.zeros(4, 3), Ranks())
    assert float(found) == pytest.approx(0.0, abs=1e-7)
