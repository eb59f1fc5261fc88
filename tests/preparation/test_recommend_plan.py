"""Rungs that fit into a budget."""

from __future__ import annotations

import pytest

from hard_ray.preparation.recommend_plan import (
    FEWEST,
    HALVING_SHARE,
    RIPE_SHARE,
    Costs,
    counts_of,
    needed,
    next_updates,
    plan_halving,
)

NAMES = ("pick", "affine", "cutmix", "mixup")
COSTS = Costs(10.0, 5.0, {"kd": 0.1, "labels_only": 0.05, "pick": 0.2, "affine": 0.3, "cutmix": 0.15, "mixup": 0.15})
BOTH = ("kd", "labels_only")


def planned(seconds: float, total: int = 1_000):
    return plan_halving(COSTS, BOTH, NAMES, seconds=seconds, total=total)


@pytest.mark.parametrize(
    ("candidates", "counts"), [(1, (1,)), (2, (2, 1)), (3, (3, 1)), (4, (4, 2, 1)), (9, (9, 4, 2))]
)
def test_one_in_two_goes_on(candidates: int, counts: tuple[int, ...]):
    assert counts_of(candidates) == counts


@pytest.mark.parametrize(("seconds", "total"), [(400.0, 500), (600.0, 1_000), (1200.0, 2_000), (7200.0, 10_000)])
def test_the_rungs_take_their_share_of_the_time_whoever_goes_on(seconds: float, total: int):
    plan = planned(seconds, total)
    dearest = sorted(NAMES, key=lambda name: -COSTS.update_s[name])
    spent = 0.0
    for count, updates in zip(plan.counts, plan.updates, strict=True):
        spent += COSTS.seconds([*plan.references, *dearest[:count]], updates)
    longer = sum(
        COSTS.seconds([*plan.references, *dearest[:count]], updates + 2**rung)
        for rung, (count, updates) in enumerate(zip(plan.counts, plan.updates, strict=True))
    )
    assert spent <= HALVING_SHARE * seconds < longer
    assert plan.updates == tuple(plan.updates[0] * 2**rung for rung in range(len(plan.updates)))


def test_more_time_gives_more_rungs_and_more_updates():
    assert planned(400).counts == (4,)
    assert planned(700).counts == (4, 2)
    assert planned(1000).counts == (4, 2, 1)
    assert planned(1200).updates[0] > planned(1000).updates[0]


@pytest.mark.parametrize("seconds", [150.0, 200.0, 300.0, 400.0, 600.0, 1000.0])
def test_nobody_is_left_before_a_tenth_of_the_training_while_there_is_time_for_two(seconds: float):
    """Better fewer rungs, then fewer candidates; the first ones are kept, and the references where they fit."""
    total = 1_000
    plan = planned(seconds, total)
    assert plan.updates[0] >= RIPE_SHARE * total
    assert plan.candidates == NAMES[: len(plan.candidates)]
    assert len(plan.candidates) >= 2
    dearest = sorted(plan.candidates, key=lambda name: -COSTS.update_s[name])
    spent = sum(
        COSTS.seconds([*plan.references, *dearest[:count]], updates)
        for count, updates in zip(plan.counts, plan.updates, strict=True)
    )
    assert spent <= HALVING_SHARE * seconds
    assert {*plan.left_out} == {*BOTH, *NAMES} - {*plan.references, *plan.candidates}


def test_without_time_for_two_of_that_length_all_have_shorter_pilots():
    plan = planned(400, total=10_000)
    assert plan.counts == (4, 2)
    assert plan.left_out == ()


def test_no_pilot_is_longer_than_the_whole_training():
    plan = planned(100_000, total=500)
    assert plan.updates == (125, 250, 500)


def test_little_time_leaves_out_the_last_candidates_then_labels_and_says_so():
    one = planned(90, total=10_000)
    assert one.counts == (len(one.candidates),)
    assert one.candidates == NAMES[: len(one.candidates)]
    assert one.left_out == NAMES[len(one.candidates) :]
    assert COSTS.seconds([*one.references, *one.candidates], one.updates[0]) <= 90
    least = needed(COSTS, "kd", "pick", total=10_000)
    pair = planned(least)
    assert (pair.references, pair.candidates, pair.updates) == (("kd",), ("pick",), (FEWEST,))
    assert pair.left_out == ("labels_only", *NAMES[1:])


def test_less_than_two_pilots_is_no_plan():
    assert planned(needed(COSTS, "kd", "pick", total=10_000) - 0.1) is None


def test_a_later_rung_takes_the_time_that_faster_pilots_leave():
    plan = planned(1200)
    faster = Costs(10.0, 5.0, {name: seconds / 2 for name, seconds in COSTS.update_s.items()})
    slower = Costs(10.0, 5.0, {name: 20 * seconds for name, seconds in COSTS.update_s.items()})
    current = ("affine", "pick")
    longer = next_updates(faster, plan, 1, current, seconds=1000, total=10_000)
    assert longer > plan.updates[1]
    assert faster.seconds([*BOTH, *current], longer) < HALVING_SHARE * 1000
    assert next_updates(faster, plan, 1, current, seconds=1000, total=300) == 150
    shorter = next_updates(slower, plan, 1, current, seconds=400, total=10_000)
    assert slower.seconds([*BOTH, *current], shorter) <= 400
    assert shorter < plan.updates[1]
