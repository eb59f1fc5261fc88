import importlib.util
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from hard_ray_cli.verbs.doctor import _byte_code, _nodes, _output, _room

from hard_ray.config.loader import load_config
from hard_ray.errors import ClusterError
from hard_ray.orchestration.cluster.connection import _join
from hard_ray.orchestration.cluster.nodes import Node, differences, look, versions_here
from hard_ray.orchestration.cluster.resources import Cluster


def test_a_node_says_its_versions_and_whether_it_sees_a_folder(cluster: None, tmp_path: Path):
    (node,), silent = look(tmp_path)
    assert silent == []
    assert node.versions == versions_here()
    assert node.versions["python"] == platform.python_version()
    assert node.sees
    assert list(tmp_path.iterdir()) == []
    (node,), _ = look(None)
    assert not node.sees


def test_the_doctor_says_versions_and_shared_storage(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = list(_nodes(tmp_path / "runs" / "x"))
    assert [(item.what, item.state) for item in found] == [("versions", "ok"), ("output", "ok")]
    assert str(tmp_path) in found[1].text
    (tmp_path / "bucket").mkdir()
    found = list(_nodes(Path(f"file://{tmp_path}/bucket/runs")))
    assert [(item.what, item.state) for item in found] == [("versions", "ok"), ("output", "ok")]
    assert f"every node sees file://{tmp_path}/bucket/runs" in found[1].text
    (here,) = _output(Path(f"file://{tmp_path}/bucket/runs"))
    assert here.state == "ok"
    assert not [path for path in (tmp_path / "bucket").rglob("*") if path.is_file()]
    (here,) = _output(Path("file:///proc/none"))
    assert here.state == "wrong"
    there = Node("n1", versions_here() | {"timm": "0.9.0"}, sees=False)
    monkeypatch.setattr("hard_ray.orchestration.cluster.nodes.look", lambda folder: ([there], ["n2"]))
    found = list(_nodes(tmp_path))
    assert [(item.what, item.state) for item in found] == [
        ("node", "wrong"),
        ("versions", "wrong"),
        ("output", "wrong"),
    ]
    assert "and 0.9.0 on n1" in found[1].text
    assert "is not seen by n1" in found[2].text


def test_packages_that_are_compiled_at_every_start_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compiled = tmp_path / "torch.pyc"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(cached=str(compiled)))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (found,) = _byte_code()
    assert found.state == "note"
    assert "PYTHONDONTWRITEBYTECODE is set" in found.text
    compiled.touch()
    assert list(_byte_code()) == []


def test_versions_that_differ_or_are_missing_are_named():
    here = {"python": "3.11.7", "ray": "2.60.0", "hardray": "0.1.0"}
    nodes = [Node("n1", here | {"hardray": None}, sees=True), Node("n2", here | {"python": "3.12.1"}, sees=True)]
    assert list(differences(here, nodes)) == [
        "python is 3.11.7 here and 3.12.1 on n2",
        "hardray is not installed on n1",
    ]


def test_what_a_cluster_lacks_for_a_configuration_is_a_finding():
    runtime = load_config(overrides=["runtime.num_workers=8", "runtime.gpus_per_worker=1"]).runtime
    there = Cluster(is_own=False, resources={"CPU": 8.0, "student_slot": 2.0, "memory": 1e9, "node:__internal__": 1.0})
    found = _room("h:1", there, runtime, whole=True)
    assert found.state == "wrong"
    assert "reserves 10 CPU (the cluster has 8) and 8 GPU (the cluster has 0)" in found.text
    found = _room("h:1", there, load_config().runtime, whole=True)
    assert (found.state, found.text) == ("ok", "h:1 has 8 CPU, 2 student_slot; the run reserves 3 CPU")


def test_a_mismatch_of_versions_is_reported_in_full(monkeypatch: pytest.MonkeyPatch):
    def init(**arguments: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.61.0\n    Python: 3.12.1")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ClusterError, match=r"Ray: 2.61.0 Python: 3.12.1"):
        _join("auto", "tests")
