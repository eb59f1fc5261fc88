"""A plan that needs more memory than there is says so, with its parts and the settings that lower it."""

from __future__ import annotations

import pytest
from torch import nn

from hard_ray.config.loader import load_config
from hard_ray.orchestration.cluster import memory
from hard_ray.orchestration.cluster.cgroups import Limits
from hard_ray.orchestration.cluster.memory import CLUSTER_GIB, PROCESS_GIB, memory_plan, shortage

GIB_OF_WEIGHTS = 2**28


def network(gib: int) -> nn.Module:
    """A network of that many GiB of weights, which take no memory here."""
    return nn.Linear(GIB_OF_WEIGHTS, gib, bias=False, device="meta")


def plan(*overrides: str, trials: int = 1) -> memory.MemoryPlan:
    config = load_config(preset="digits", overrides=["runtime.data_block_mb=64", *overrides])
    return memory_plan(config, network(1), network(3), trials=trials)


def test_each_worker_and_each_replica_counts():
    parts = plan("runtime.num_workers=2", "runtime.teacher.replicas=3").parts
    assert parts["Ray"] == CLUSTER_GIB
    assert parts["student workers"] == pytest.approx(2 * (PROCESS_GIB + 4 * 1.0))
    assert parts["teacher pool"] == pytest.approx(3 * (PROCESS_GIB + 3.0))
    assert parts["blocks of images"] == pytest.approx(2 * 8 * 64 / 1024)


def test_a_teacher_inside_the_workers_costs_no_process_of_its_own():
    parts = plan("runtime.num_workers=2", "runtime.teacher.placement=colocated").parts
    assert "teacher pool" not in parts
    assert parts["student workers"] == pytest.approx(2 * (PROCESS_GIB + 4 * 1.0 + 3.0))


def test_an_average_of_the_weights_counts_and_a_search_has_one_pool():
    assert plan("optim.model_ema=true").parts["student workers"] == pytest.approx(PROCESS_GIB + 5.0)
    three = plan(trials=3).parts
    assert three["student workers"] == pytest.approx(3 * (PROCESS_GIB + 4.0))
    assert three["teacher pool"] == pytest.approx(PROCESS_GIB + 3.0)


def test_what_does_not_fit_is_said_with_its_parts_and_settings(monkeypatch: pytest.MonkeyPatch):
    needs = plan()
    assert shortage(needs, there=needs.total + 0.1) is None
    monkeypatch.setattr(memory, "limits", lambda: Limits(None, 2**30))
    text = shortage(needs, there=4.0)
    assert text is not None
    assert f"needs about {needs.total:.1f} GiB" in text
    assert "its control group allows 4.0" in text
    assert f"teacher pool {PROCESS_GIB + 3.0:.1f}" in text
    for key in ("runtime.num_workers", "runtime.teacher.replicas", "runtime.teacher.placement=colocated"):
        assert key in text
    monkeypatch.setattr(memory, "limits", lambda: Limits(None, None))
    assert "the machine has 4.0" in (shortage(needs, there=4.0) or "")
