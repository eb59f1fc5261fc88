"""Runs on a cluster of several nodes on this machine: the placement of processes, and the loss of a node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from hard_ray.files import read_json
from tests.orchestration.commands import each_update_once, finish, points, start, succeed, wait_for_step, write_config
from tests.support.helpers import assert_equal_bits, student_weights
from tests.support.processes import command_lines

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]
STEPS = 250
STUDENT, TEACHER = "ray::RayTrainWorker", "ray::Replica"
SOONER = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5, "health_check_timeout_ms": 2000}


@dataclass
class Nodes:
    """A head, and nodes that offer slots."""

    cluster: Cluster
    of: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def start(cls) -> Nodes:
        head = {"num_cpus": 2, "object_store_memory": 200e6, "_system_config": SOONER}
        made = cls(Cluster(initialize_head=True, head_node_args=head))
        for slot in ("student_slot", "student_slot", "teacher_slot", "teacher_slot"):
            made.add(slot)
        return made

    def add(self, slot: str) -> None:
        node = self.cluster.add_node(num_cpus=2, object_store_memory=100_000_000, resources={slot: 1})
        self.of.setdefault(slot, []).append(node)

    def hosting(self, slot: str, name: str) -> list[Any]:
        """The nodes with that slot on which a process of that name runs."""
        return [node for node in self.of[slot] if any(line.startswith(name) for line in raylet_started(node))]

    def kill(self, slot: str, node: Any) -> None:
        self.of[slot].remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


def raylet_started(node: Any) -> list[str]:
    """The command lines of the processes that a node's raylet started."""
    return list(command_lines(node.all_processes["raylet"][0].process.pid).values())


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    made = Nodes.start()
    yield made
    made.cluster.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes")
    write_config(
        folder,
        f"optim.steps={STEPS}",
        "checkpoints.every=0.5",
        "validate.every=5",
        "tracking.enabled=false",
        "runtime.slots=true",
        "runtime.num_workers=2",
        "runtime.cpus_per_worker=1",
    )
    return folder


def on(nodes: Nodes, name: str, *overrides: str) -> tuple[str, ...]:
    """A run on the cluster; it waits long for a teacher, because other tests may load the machine."""
    return ("distill", "-c", "config.yaml", "--output", name, f"runtime.address={nodes.cluster.address}", *overrides)


def steps_once(folder: Path) -> bool:
    counted = read_json(folder / "outcome.json")["steps"]
    whole = counted["student"] == STEPS and len(points(folder, "train")) == sum(counted.values())
    return whole and each_update_once(folder)


def test_students_and_teachers_have_nodes_of_their_own_and_a_lost_teacher_node_costs_no_bit(nodes: Nodes, place: Path):
    succeed(*on(nodes, "straight"), cwd=place)
    process = start(*on(nodes, "teacher-node"), cwd=place)
    wait_for_step(place / "teacher-node", 40, process)
    assert len(nodes.hosting("student_slot", STUDENT)) == 2
    assert nodes.hosting("student_slot", TEACHER) == nodes.hosting("teacher_slot", STUDENT) == []
    (first,) = nodes.hosting("teacher_slot", TEACHER)
    nodes.kill("teacher_slot", first)
    assert not (place / "teacher-node" / "outcome.json").exists()
    finish(process)
    assert steps_once(place / "teacher-node")
    assert_equal_bits(student_weights(place / "straight"), student_weights(place / "teacher-node"))


def test_an_elastic_run_goes_on_with_fewer_workers_when_a_node_is_lost(nodes: Nodes, place: Path):
    process = start(*on(nodes, "elastic", "runtime.min_workers=1"), cwd=place)
    wait_for_step(place / "elastic", 60, process)
    assert len(nodes.hosting("student_slot", STUDENT)) == 2
    nodes.kill("student_slot", nodes.of["student_slot"][0])
    assert not (place / "elastic" / "outcome.json").exists()
    finish(process)
    assert steps_once(place / "elastic")
    assert read_json(place / "elastic" / "summary.json")["models"]["student"]
