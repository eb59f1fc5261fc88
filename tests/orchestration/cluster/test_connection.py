import os
import subprocess
from pathlib import Path

import psutil
import pytest
import ray

from hard_ray.config.loader import load_config
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.errors import ClusterError
from hard_ray.orchestration.cluster import connection as sessions
from hard_ray.orchestration.cluster import resources
from hard_ray.orchestration.cluster.address import address_of
from hard_ray.orchestration.cluster.connection import OWN_CLUSTER, OwnImports, _start, connected
from hard_ray.orchestration.cluster.demand import demand
from hard_ray.orchestration.cluster.resources import (
    Cluster,
    _resolve_gpus,
    check_demand,
    data_shares,
    resolve_compilation,
    resolve_runtime,
    slots_of,
)
from tests.support.processes import lives


def runtime(*overrides: str):
    return load_config(overrides=overrides).runtime


def cluster(**resources: float) -> Cluster:
    return Cluster(is_own=False, resources={"CPU": 8.0, "object_store_memory": 1e9, **resources})


def test_demand_counts_workers_teachers_and_ray_data():
    wanted = demand(runtime("runtime.num_workers=2", "runtime.cpus_per_worker=3", "runtime.teacher.replicas=4"))
    assert wanted.total == {"CPU": 2 * 3 + 4 * 1 + 1}
    colocated = demand(runtime("runtime.teacher.placement=colocated"))
    assert colocated.total["CPU"] == 2


def test_slots_are_counted_and_a_cluster_without_them_is_refused():
    with_slots = runtime("runtime.slots=true", "runtime.num_workers=2", "runtime.teacher.replicas=3")
    wanted = demand(with_slots)
    assert wanted.total == {"CPU": 2 + 3 + 1, "student_slot": 2.0, "teacher_slot": 3.0}
    assert slots_of(wanted) == {"student_slot": 2.0, "teacher_slot": 3.0}
    assert slots_of(demand(runtime())) == {}
    with pytest.raises(ClusterError, match=r"2 student_slot \(the cluster has 0\) and 3 teacher_slot"):
        check_demand(with_slots, cluster())
    check_demand(with_slots, cluster(student_slot=2, teacher_slot=3))


def test_an_elastic_run_begins_with_what_it_cannot_do_without():
    elastic = runtime(
        "runtime.num_workers=8",
        "runtime.min_workers=2",
        "runtime.teacher.replicas=3",
        "runtime.teacher.min_replicas=1",
        "runtime.teacher.max_replicas=4",
    )
    assert demand(elastic).total["CPU"] == 8 + 3 + 1
    assert demand(elastic, least=True).total["CPU"] == 2 + 1 + 1
    check_demand(elastic, Cluster(is_own=False, resources={"CPU": 4.0}))
    with pytest.raises(ClusterError, match="reserves 4 CPU"):
        check_demand(elastic, Cluster(is_own=False, resources={"CPU": 3.0}))


def test_missing_resources_are_reported_before_anything_waits():
    with pytest.raises(ClusterError) as caught:
        check_demand(runtime("runtime.num_workers=8", "runtime.gpus_per_worker=1"), cluster())
    text = str(caught.value)
    assert "reserves 10 CPU (the cluster has 8) and 8 GPU (the cluster has 0)" in text
    assert "student workers: 8 CPU + 8 GPU; Ray Data: 1 CPU; teacher pool: 1 CPU" in text
    assert "lower runtime.num_workers" in text
    check_demand(runtime("runtime.num_workers=4"), cluster())


def test_a_small_cluster_is_told_to_do_without_a_pool():
    two_cores = Cluster(is_own=False, resources={"CPU": 2.0})
    with pytest.raises(ClusterError) as caught:
        check_demand(runtime(), two_cores)
    text = str(caught.value)
    assert "reserves 3 CPU (the cluster has 2)" in text
    assert "set runtime.teacher.placement=colocated, which fits (2 CPU), or lower runtime.num_workers" in text
    check_demand(runtime("runtime.teacher.placement=colocated"), two_cores)
    with pytest.raises(ClusterError) as caught:  # where that does not fit either, it is no remedy
        check_demand(runtime("runtime.num_workers=2"), two_cores)
    assert "colocated" not in str(caught.value)
    growing = runtime("runtime.teacher.min_replicas=1", "runtime.teacher.max_replicas=3")
    with pytest.raises(ClusterError, match="placement=colocated"):
        check_demand(growing, two_cores)
    with pytest.raises(ClusterError, match="teacher pool: 1 CPU; lower concurrency"):  # its drivers need some too
        check_demand(runtime(), two_cores, trials=1)


def test_rays_word_for_a_new_cluster_starts_one(monkeypatch: pytest.MonkeyPatch):
    assert address_of(RuntimeConfig(address="local")) is None
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert address_of(RuntimeConfig()) is None
    monkeypatch.setenv("RAY_ADDRESS", "h:6379")
    assert address_of(RuntimeConfig()) == "h:6379"
    assert address_of(RuntimeConfig(address="g:6379")) == "g:6379"


def test_no_folder_of_this_program_is_put_on_the_import_path_of_workers():
    assert OwnImports()._runtime_env_has_working_dir() is True
    with_env = OwnImports()
    with_env.set_runtime_env({"env_vars": {"A": "1"}})  # as a submitted job brings one
    assert with_env._runtime_env_has_working_dir() is True
    assert list(with_env._get_proto_job_config().py_driver_sys_path) == []


def test_a_gpu_that_the_cluster_lacks_is_refused_before_it_is_probed():
    config = load_config(overrides=["runtime.gpus_per_worker=1"])
    with pytest.raises(ClusterError, match=r"reserves 2 GPU \(the cluster has 0\)"):
        resolve_runtime(config, cluster())


def test_more_workers_than_the_machine_can_carry_are_refused_at_once():
    session = connected(runtime("runtime.num_workers=64"), namespace="x")
    with pytest.raises(ClusterError, match="the run reserves 66 CPUs and this machine has"):
        session.__enter__()
    assert not ray.is_initialized()


def test_ray_data_gets_what_is_left():
    shares = data_shares(runtime("runtime.num_workers=4"), cluster())
    assert shares.cpus == 8 - 4 - 1
    assert data_shares(runtime("runtime.num_workers=32"), cluster()).cpus == 1.0


def test_what_the_user_chose_stays():
    config = load_config(overrides=["runtime.amp_dtype=bfloat16", "runtime.threads=3", "runtime.teacher.dtype=float32"])
    resolved = resolve_runtime(config, Cluster(is_own=True, resources={"CPU": 8.0})).runtime
    assert (resolved.amp_dtype, resolved.threads, resolved.teacher.dtype) == ("bfloat16", 3, "float32")
    assert resolved.channels_last is True
    assert resolved.gpus_per_worker == 0.0
    again = resolve_runtime(config.model_copy(update={"runtime": resolved}), Cluster(is_own=True, resources={"CPU": 8}))
    assert again.runtime == resolved


def test_a_worker_set_to_a_whole_gpu_shares_none():
    for share in (1, 2):
        given = _resolve_gpus(runtime(f"runtime.gpus_per_worker={share}"), cluster(GPU=1))
        assert given.teacher.num_gpus == 1.0
        with pytest.raises(ClusterError, match="GPU"):
            check_demand(given, cluster(GPU=1))


@pytest.mark.parametrize(
    ("gpus", "workers", "replicas", "worker_share", "teacher_share"),
    [(0, 1, 1, 0.0, 0.0), (1, 1, 1, 0.5, 0.5), (1, 1, 2, 0.5, 0.25), (2, 1, 1, 1.0, 1.0), (3, 2, 4, 0.5, 0.5)],
)
def test_a_worker_and_a_teacher_share_a_gpu_where_they_are_few(
    gpus: int, workers: int, replicas: int, worker_share: float, teacher_share: float
):
    given = runtime(f"runtime.num_workers={workers}", f"runtime.teacher.replicas={replicas}")
    resolved = _resolve_gpus(given, cluster(GPU=gpus))
    assert (resolved.gpus_per_worker, resolved.teacher.num_gpus) == (worker_share, teacher_share)
    check_demand(resolved, cluster(GPU=gpus))


def test_a_machine_too_busy_to_start_ray_in_time_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    answers = [RuntimeError("The current node timed out during startup. This could happen ..."), None]
    asked: list[str] = []

    def init(**arguments: object) -> None:
        asked.append(str(arguments["address"]))
        if (answer := answers[len(asked) - 1]) is not None:
            raise answer

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    _start(demand(runtime()), "tests")
    assert asked == ["local", "local"]
    answers[1] = RuntimeError("no shared memory")
    asked.clear()
    with pytest.raises(ClusterError, match="no shared memory"):
        _start(demand(runtime()), "tests")


def test_trials_at_the_same_time_need_workers_and_data_each_and_one_pool():
    given = runtime("runtime.num_workers=2", "runtime.teacher.replicas=3")
    wanted = demand(given, trials=4)
    assert wanted.parts["student workers"]["CPU"] == 4 * 2
    assert wanted.parts["teacher pool"]["CPU"] == 3
    assert wanted.total["CPU"] == pytest.approx(4 * 2 + 4 * 1 + 3 + 4 * 0.1)
    with pytest.raises(ClusterError, match="the search reserves 15.4 CPU .* lower concurrency, runtime.num_workers"):
        check_demand(given, cluster(), trials=4)
    assert data_shares(runtime(), cluster(), trials=2).cpus == pytest.approx((8 - 2 - 1 - 0.2) / 2)


def test_trials_share_the_cores_and_gpus_of_a_machine():
    config = load_config(preset="digits")
    alone, four = (
        resolve_runtime(config, Cluster(is_own=True, resources={"CPU": 32.0}), trials=trials).runtime
        for trials in (None, 4)
    )
    assert four.threads <= alone.threads
    assert four.threads == 1 or four.threads * 5 <= alone.threads * 2
    assert _resolve_gpus(config.runtime, cluster(GPU=2), 2).gpus_per_worker == 0.5
    assert _resolve_gpus(config.runtime, cluster(GPU=3), 2).gpus_per_worker == 1.0


def test_settings_of_a_local_cluster_do_not_stay(monkeypatch: pytest.MonkeyPatch):
    seen = []
    first, second, *_ = OWN_CLUSTER
    monkeypatch.delenv(first, raising=False)
    monkeypatch.setenv(second, "mine")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(sessions, "_start", lambda *_: seen.append((os.environ[first], os.environ[second])))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with connected(RuntimeConfig(), namespace="x"):
        pass
    assert seen == [(OWN_CLUSTER[first], "mine")]
    assert first not in os.environ


def test_workers_inherit_no_settings_of_this_program(monkeypatch: pytest.MonkeyPatch):
    """As in a notebook, which calls the library and has a backend of its own."""
    seen: list[dict[str, str]] = []
    monkeypatch.setenv("MPLBACKEND", "module://a_notebook")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.delenv("PYTHONINSPECT", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(sessions, "_start", lambda *_: seen.append(dict(os.environ)))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with connected(RuntimeConfig(), namespace="x"):
        assert os.environ["MPLBACKEND"] == "module://a_notebook"  # this program's own stays
        assert os.environ["PYTHONWARNINGS"] == "error"
        assert "PYTHONINSPECT" not in os.environ
    assert not {"MPLBACKEND", "PYTHONWARNINGS"} & seen[0].keys()


def test_a_worker_that_hangs_when_its_cluster_is_gone_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "raylet"
    script.write_text("#!/bin/sh\nsleep 600 &\necho $!\nwait\n")
    script.chmod(0o755)
    raylet: list[subprocess.Popen[str]] = []

    def start(*_: object) -> None:
        raylet.append(subprocess.Popen([script], stdout=subprocess.PIPE, text=True))

    def stop() -> None:
        raylet[0].kill()

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("hard_ray.orchestration.cluster.processes.WORKERS_END_S", 0.3)
    monkeypatch.setattr(sessions, "_start", start)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(ray, "shutdown", stop)
    with connected(RuntimeConfig(), namespace="x"):
        worker = psutil.Process(int(raylet[0].stdout.readline()))
        assert worker.is_running()
    raylet[0].communicate(timeout=10)
    psutil.wait_procs([worker], timeout=5)
    assert not lives(worker)


def test_a_machine_that_makes_no_code_turns_compilation_off_and_says_so(monkeypatch: pytest.MonkeyPatch):
    answers: list[str | None] = []
    monkeypatch.setattr(resources, "remote_compiler_problem", lambda _: answers.pop())
    said: list[str] = []
    eager = load_config()
    assert resolve_compilation(eager, said.append) is eager  # nothing is tried
    config = load_config(overrides=["runtime.compile=reduce-overhead", "runtime.teacher.compile=true"])
    answers.append(None)
    assert resolve_compilation(config, said.append) == config
    answers.append("InvalidCxxCompiler: No working C++ compiler found")
    resolved = resolve_compilation(config, said.append).runtime
    assert resolved.compile is resolved.teacher.compile is False
    assert len(said) == 1
    assert "are off (InvalidCxxCompiler: No working C++ compiler found)" in said[0]
