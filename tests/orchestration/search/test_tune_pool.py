"""Eight trials on a cluster that stays: they ask one teacher pool, and leave the cluster as it was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from hard_ray.files import read_json
from tests.orchestration.commands import start, write_config
from tests.support.processes import command_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SPACE = """
base: {config: config.yaml}
parameters:
  optim.lr: {choice: [0.01, 0.02, 0.03, 0.04]}
  objective.temperature: {choice: [2.0, 4.0]}
search: grid
scheduler: none
concurrency: 2
"""
OURS = ("ray::Replica", "ray::RayTrainWorker", "ray::TrainController", "ray::Trial", "ray::ImplicitFunc")


def ours(node) -> dict[int, str]:
    """The processes of a node that are part of a search."""
    lines = command_lines(node.all_processes["raylet"][0].process.pid)
    return {pid: line for pid, line in lines.items() if line.startswith(OURS)}


def test_eight_trials_hold_one_teacher_and_leave_no_actor_and_no_placement_group(tmp_path: Path):
    write_config(tmp_path, "optim.steps=20", "validate.every=0.5", "tracking.enabled=false")
    (tmp_path / "mine.yaml").write_text(SPACE)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "object_store_memory": 300_000_000})
    try:
        address = f"runtime.address={cluster.address}"
        process = start("tune", "--space", "mine.yaml", "--output", "s", address, cwd=tmp_path)
        replicas, workers = set(), set()
        while process.poll() is None:
            for pid, name in ours(cluster.head_node).items():
                replicas |= {pid} if name.startswith("ray::Replica") else set()
                workers |= {pid} if name.startswith("ray::RayTrainWorker") else set()
            time.sleep(0.5)
        out, _ = process.communicate()
        assert process.returncode == 0, out
        trials = read_json(tmp_path / "s" / "results.json")["trials"]
        assert [trial["status"] for trial in trials] == ["finished"] * 8
        assert len(replicas) == 1
        assert len(workers) >= 8
        last = time.monotonic() + 30
        while (left := ours(cluster.head_node)) and time.monotonic() < last:
            time.sleep(0.5)
        assert left == {}
        ray.init(address=cluster.address, namespace="looking", logging_level="ERROR", log_to_driver=False)
        groups = {group["state"] for group in placement_group_table().values()}
        assert groups <= {"REMOVED"}
        named = ray.util.list_named_actors(all_namespaces=True)  # Ray Data's own stay as long as the cluster
        assert [actor for actor in named if actor["namespace"].startswith("hardray")] == []
        assert ray.available_resources()["CPU"] == 8
    finally:
        ray.shutdown()
        cluster.shutdown()
