"""Runs whose output is a URL: the bucket has all of it, and a resume elsewhere gives the same bits."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hard_ray.files import read_json
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.folders import files_at
from hard_ray.storage.mirror import Mirror
from tests.networks.saved import save
from tests.orchestration.commands import kill_everything, run, start, succeed, wait_for_step, write_config
from tests.support.buckets import KEYS, Server, holds_no_key, holds_no_key_remotely, server_with
from tests.support.helpers import assert_equal_bits, student_weights


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_with(tmp_path_factory.mktemp("moto") / "log", "runs") as started:
        yield started


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("urls")


@pytest.fixture(scope="module")
def config(place: Path) -> str:
    return write_config(place, "experiment.controls=[kd]", "teacher.recipe.seed=11")


def use_cache(patch: pytest.MonkeyPatch, folder: Path) -> Path:
    """As on another machine: nothing in hardray's cache."""
    patch.setenv("HARDRAY_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def straight(place: Path, config: str) -> Path:
    """The same run with a local folder."""
    with pytest.MonkeyPatch.context() as patch:
        use_cache(patch, place / "cache-local")
        succeed("distill", "-c", config, "--output", "straight", cwd=place)
    return place / "straight"


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_a_run_at_a_url_survives_its_machine_with_the_same_bits(
    server: Server, place: Path, config: str, straight: Path, monkeypatch
):
    url = server.url("runs", "deep/birds")
    first = use_cache(monkeypatch, place / "cache-1")
    process = start("distill", "-c", config, "--output", url, cwd=place)
    wait_for_step(Mirror.of(Remote.parse(url)).folder, 20, process)
    mirror = Mirror.of(Remote.parse(url))
    for _ in range(600):
        if any("checkpoints/" in name and "controls" not in name for name in mirror._manifest()[0]):
            break
        subprocess.run(["sleep", "0.1"], check=True)
    kill_everything(process)
    assert not (mirror.folder / "outcome.json").exists(), "the run was over before it was killed"
    shutil.rmtree(first)  # the pod's disk goes with the pod

    use_cache(monkeypatch, place / "cache-2")
    assert run("distill", "-c", config, "--output", url, cwd=place).returncode == 1
    said = succeed("distill", "--resume", url, cwd=place)
    assert f"run      {url}" in said
    shutil.rmtree(place / "cache-2")

    use_cache(monkeypatch, place / "cache-3")
    page = Path(succeed("report", url, cwd=place).strip().splitlines()[-1])
    assert page.is_file()
    assert page.is_relative_to(place / "cache-3")
    succeed("export", url, "--to", "exported", cwd=place)
    succeed("export", f"{url.partition('?')[0]}/student?{url.partition('?')[2]}", "--to", "exported-too", cwd=place)
    succeed("compare", url, str(straight), "--to", "compare.html", cwd=place)
    copy = Mirror(Remote.parse(url), place / "pulled")
    copy.pull()
    assert "report.html" in copy._manifest()[0]
    for part in (".", "controls/kd", "teacher"):
        assert_equal_bits(student_weights(copy.folder / part), student_weights(straight / part))
    assert (place / "exported/model.safetensors").read_bytes() == (straight / "student/model.safetensors").read_bytes()
    assert read_json(copy.folder / "summary.json")["models"] == read_json(straight / "summary.json")["models"]
    assert not objects.stat(Remote.parse(url) / "lock.json")
    holds_no_key(place)
    holds_no_key_remotely(Remote.parse(url))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_driver_student_and_teacher_share_no_folder(
    server: Server, place: Path, config: str, straight: Path, monkeypatch
):
    """Three nodes, each with a cache folder of its own; the bucket is all that they have in common."""
    from ray.cluster_utils import Cluster

    url = server.url("runs", "apart")
    driver = use_cache(monkeypatch, place / "cache-driver")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 200e6})
    try:
        for slot in ("student_slot", "teacher_slot"):
            own = {"HARDRAY_CACHE": str(place / f"cache-{slot}")}
            cluster.add_node(num_cpus=2, object_store_memory=100_000_000, resources={slot: 1}, env_vars=own)
        there = (f"runtime.address={cluster.address}", "runtime.slots=true", "runtime.cpus_per_worker=1")
        said = succeed("distill", "-c", config, "--output", url, *there, cwd=place, timeout=600)
    finally:
        cluster.shutdown()
    assert f"run      {url}" in said
    copies = {
        name: {path.relative_to(folder).parts[2:] for path in (folder / "runs").rglob("*") if path.is_file()}
        for name, folder in (
            ("driver", driver),
            *((slot, place / f"cache-{slot}") for slot in ("student_slot", "teacher_slot")),
        )
    }
    assert any("checkpoints" in parts for parts in copies["student_slot"])
    assert {parts[-1] for parts in copies["driver"] if "checkpoints" in parts} <= {"state.json"}
    assert ("apart", "summary.json") not in copies["student_slot"]
    brought = {parts[1:3] for parts in copies["teacher_slot"] if len(parts) > 2}
    assert brought == {("teacher", "student")}, copies["teacher_slot"]
    pulled = Mirror(Remote.parse(url), place / "pulled-apart")
    pulled.pull()
    for part in (".", "controls/kd", "teacher"):
        assert_equal_bits(student_weights(pulled.folder / part), student_weights(straight / part))
    assert (pulled.folder / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_generated_set_is_made_by_nodes_that_share_no_folder(
    server: Server, place: Path, config: str, straight: Path, monkeypatch
):
    """Teacher, autoencoder and set are in the bucket; actors on each node send their own shards."""
    from ray.cluster_utils import Cluster

    driver = use_cache(monkeypatch, place / "cache-generate")
    save("vq", place / "coder", channels=1)
    for name, source in (("coder", place / "coder"), ("tower", straight / "teacher/student")):
        for path in source.iterdir():
            objects.write_file(server.remote("runs", f"plain/{name}/{path.name}"), path)
    short = ("--shard-size", "100", "--steps", "2", "--batch-size", "50")
    local = ("--autoencoder", "coder", f"teacher.checkpoint={straight}/teacher/student")
    succeed("generate", "-c", config, *short, *local, "--output", "set", cwd=place)
    before = set(place.iterdir())
    url = server.url("runs", "sets/digits")
    tower = server.url("runs", "plain/tower")
    remote = ("--autoencoder", server.url("runs", "plain/coder"), f"teacher.checkpoint={tower}")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200e6})
    nodes = [place / "node-1", place / "node-2"]
    try:
        for node in nodes:
            own = {"HARDRAY_CACHE": str(node / "cache"), "HOME": str(node), "TMPDIR": str(node / "tmp")}
            (node / "tmp").mkdir(parents=True)
            cluster.add_node(num_cpus=2, object_store_memory=100_000_000, env_vars=own)
        there = (f"runtime.address={cluster.address}", "runtime.num_workers=2", "runtime.cpus_per_worker=1")
        succeed("generate", "-c", config, *short, *remote, *there, "--output", url, cwd=place, timeout=600)
    finally:
        cluster.shutdown()
    found = files_at(Remote.parse(url))
    shards = {path.name: path.read_bytes() for path in (place / "set").glob("*.parquet")}
    assert {name: objects.read(found[name].remote) for name in found if name.endswith(".parquet")} == shards
    assert set(place.iterdir()) - before == {driver, *nodes}
    for node in nodes:
        left = [path.relative_to(node).as_posix() for path in node.rglob("*.parquet")]
        assert left == []
    assert any((node / "cache/fetched").is_dir() for node in nodes), "no actor ran on a node of its own"
    assert len(list(driver.glob("runs/*/digits/shard-*.parquet"))) == len(shards)


def test_a_url_that_cannot_be_used_is_one_sentence_before_anything_starts(place, config, server, monkeypatch):
    use_cache(monkeypatch, place / "cache-4")
    for arguments, code, words in (
        (("distill", "-c", config, "--output", server.url("no-bucket", "x")), 1, "there is no bucket no-bucket"),
        (("distill", "-c", config, "--output", "s3://key:planted@runs/x"), 2, "credentials come from the environment"),
        (("distill", "--resume", server.url("runs", "nothing")), 1, "holds no run"),
        (("report", server.url("runs", "nothing")), 1, "holds no run"),
    ):
        done = run(*arguments, cwd=place)
        assert done.returncode == code, done.stdout + done.stderr
        text = " ".join((done.stdout + done.stderr).split())
        assert words in text, text
        assert "Traceback" not in text
        assert "planted" not in text
    assert os.environ["AWS_ACCESS_KEY_ID"] == KEYS["AWS_ACCESS_KEY_ID"]
