"""A joined cluster that lacks nodes: the run requests them from the autoscaler and waits for the configured time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider

from hard_ray.config.runtime import RuntimeConfig
from hard_ray.errors import ClusterError
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.cluster.resources import check_demand
from tests.support.processes import await_answer, end, free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BIN = Path(sys.executable).parent
HEAD = "ray.head.default"
PROVIDER = f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}"


def autoscaling(gcs: int) -> dict:
    """A provider that starts nodes as processes of this machine, two with student slots at most."""
    groups = {
        "students": {"resources": {"CPU": 2, "student_slot": 1, "object_store_memory": 10**8}, "max_workers": 2},
        "teachers": {"resources": {"CPU": 1, "teacher_slot": 1, "object_store_memory": 10**8}, "max_workers": 1},
        HEAD: {"resources": {"CPU": 0}, "max_workers": 0},
    }
    address = f"{ray.util.get_node_ip_address()}:{gcs}"
    provider = {"type": "external", "module": PROVIDER, "gcs_address": address, "head_node_id": FAKE_HEAD_NODE_ID}
    defaults = yaml.safe_load((Path(ray.__file__).parent / "autoscaler/_private/readonly/defaults.yaml").read_text())
    return {
        **defaults,
        "cluster_name": "fake",
        "max_workers": 3,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10,
        "provider": {**provider, "launch_multiple": True},
        "available_node_types": {
            name: {"node_config": {}, "min_workers": 0, **group} for name, group in groups.items()
        },
        "head_node_type": HEAD,
    }


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head node without CPUs and with version 2 of the autoscaler, as on Kubernetes."""
    gcs, client, metrics = free_ports(3)
    place = Path(tempfile.mkdtemp(prefix="ha", dir="/tmp"))  # sockets lie in it, and their paths have to be short
    (place / "scale.json").write_text(json.dumps(autoscaling(gcs)))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    log = (place / "head.log").open("w")
    process = subprocess.Popen(
        [
            *(str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=0"),
            *(f"--autoscaling-config={place / 'scale.json'}", f"--temp-dir={place}", "--include-dashboard=false"),
            *("--node-ip-address=127.0.0.1", f"--port={gcs}", f"--ray-client-server-port={client}"),
            *(f"--metrics-export-port={metrics}", "--object-store-memory=100000000"),
        ],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    said = (place / "head.log").read_text
    try:
        await_answer(lambda: "Ray runtime started" in said(), process, said)
        yield f"127.0.0.1:{gcs}"
    finally:
        end(process)
        log.close()
        shutil.rmtree(place, ignore_errors=True)


def runtime(address: str, workers: int, timeout_s: float) -> RuntimeConfig:
    return RuntimeConfig(address=address, num_workers=workers, slots=True, nodes_timeout_s=timeout_s)


def test_a_run_waits_for_the_nodes_that_it_reserves(address: str):
    said: list[str] = []
    with connected(runtime(address, 2, 0.0), namespace="x") as cluster, pytest.raises(ClusterError, match="add nodes"):
        assert "student_slot" not in cluster.resources
        check_demand(runtime(address, 2, 0.0), cluster)
    with connected(runtime(address, 2, 90.0), namespace="x", say=said.append) as cluster:
        check_demand(runtime(address, 2, 90.0), cluster)
        assert cluster.resources["student_slot"] == 2
        assert cluster.resources["teacher_slot"] == 1
    assert len(said) == 1
    assert "waiting up to 90 s for nodes" in said[0]
    assert "2 student_slot (the cluster has 0)" in said[0]


def test_what_the_autoscaler_cannot_add_is_refused_when_the_time_is_over(address: str):
    begun = time.monotonic()
    with connected(runtime(address, 3, 4.0), namespace="x") as cluster:
        assert 4.0 <= time.monotonic() - begun < 30.0
        with pytest.raises(ClusterError, match=r"3 student_slot \(the cluster has 2\) within 4 s"):
            check_demand(runtime(address, 3, 4.0), cluster)
    assert not ray.is_initialized()
