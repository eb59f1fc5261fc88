"""`hardray generate`: as a job on Ray, killed and gone on with; and what is refused before anything is made."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from ray.exceptions import ActorDiedError

from hard_ray import api
from hard_ray.config.generation import GenerationConfig
from hard_ray.config.loader import absolute
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.data.generated_set import open_generated
from hard_ray.data.pictures import EvalPictures
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.teacher import LocalPool
from hard_ray.distillation.teacher_cache import cached_teacher
from hard_ray.errors import DataError, HardrayError, RunFolderError, TeacherError
from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network
from hard_ray.files import read_json, write_json
from hard_ray.networks.autoencoders.build import build_autoencoder
from hard_ray.networks.network import image_spec
from hard_ray.networks.precision import Precision
from hard_ray.orchestration.cluster.resources import Cluster
from hard_ray.orchestration.generate import job as module
from hard_ray.orchestration.generate.actors import MakerPlan
from hard_ray.orchestration.generate.job import Generation, check_output, generate, prepare, with_kernels_of
from hard_ray.preparation.folders import SetFolder
from hard_ray.preparation.generation import Dad, make_shard
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.folders import files_at
from hard_ray.storage.mirror import Mirror, working_copy
from tests.networks.saved import save
from tests.orchestration.commands import kill_everything, run, start, succeed
from tests.support.helpers import tiny_config, untrained_teacher

OPTIONS = {"shard_size": 200, "batch_size": 16, "steps": 3, "eps": 2.0, "step_size": 0.5}
"""Seven shards; several steps, so that there is time to kill."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an autoencoder, a teacher and a configuration."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("generate")
    save("vq", folder / "coder", channels=1)
    config = tiny_config(f"teacher.checkpoint={folder / 'teacher'}")
    index = build_index(config.data)
    network = untrained_teacher(tiny_config(), index).network
    facts = TrainingFacts("", 0, "", "", "", 0, EvalView())
    export_network(network, folder / "teacher", images=image_spec(config.data, index.classes), facts=facts)
    (folder / "config.yaml").write_text(dump_yaml(config))
    return folder


def job_of(place: Path, output: str, *overrides: str, **options: object) -> Generation:
    """What the command prepares, without Ray."""
    config = tiny_config(f"teacher.checkpoint={place / 'teacher'}", *overrides)
    generation = absolute(GenerationConfig(autoencoder={"model": str(place / "coder")}, **{**OPTIONS, **options}))
    coder = build_autoencoder(generation.autoencoder, 1)
    job = prepare(config, generation, build_index(config.data), SetFolder(place / output), coder)
    job.say = lambda _: None
    return job


@pytest.fixture(scope="module")
def expected(place: Path) -> Path:
    """The shards as this process makes them, one after the other."""
    job = job_of(place, "expected")
    job.folder.path.mkdir()
    method = Dad(job.coder, LocalPool(job.teacher), job.generation, job.config.seed, Precision(torch.device("cpu")))
    pictures = EvalPictures(job.index.reader, job.index.labels, job.config.data, job.index.rows("train"))
    for number, span in enumerate(job.spans):
        make_shard(method, pictures, number, span, settings=job.settings, folder=job.folder.path)
    return job.folder.path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def command(output: str) -> tuple[str, ...]:
    options = [part for key, value in OPTIONS.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    return ("generate", "-c", "config.yaml", "--autoencoder", "coder", *options, "--output", output)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_set_that_was_killed_midway_goes_on_to_the_same_bytes(place: Path, expected: Path):
    process = start(*command("killed"), cwd=place)
    try:
        end = time.monotonic() + 240
        while len(contents(place / "killed")) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            kill_everything(process)
    there = contents(place / "killed")
    assert 2 <= len(there) < 7
    assert read_json(place / "killed/manifest.json")["complete"] is False
    printed = " ".join(succeed(*command("killed"), cwd=place).split())
    assert f"{len(there)} of 7 shards are there, and intact" in printed
    assert "1,297 images in 7 shards" in printed
    set_path = "augmentor.kind=generated augmentor.path=killed"
    assert f"hardray distill -c config.yaml objective.kind=dad {set_path}" in printed
    assert contents(place / "killed") == contents(expected)
    manifest = read_json(place / "killed/manifest.json")
    assert manifest["complete"] is True
    assert manifest["images"] == sum(shard["rows"] for shard in manifest["shards"]) == 1297
    assert 0 < manifest["distance"] <= OPTIONS["eps"]
    assert (open_generated(place / "killed", build_index(tiny_config().data)).place >= 0).sum() == 1297
    with Image.open(place / "killed/gallery.png") as picture:
        assert picture.width > 1000


def test_a_finished_set_is_left_as_it_is_and_what_it_lost_is_made_again(
    place: Path, expected: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
):
    """In this session's cluster, with the teacher in the actors."""
    job = job_of(place, "colocated", "runtime.teacher.placement=colocated")
    said: list[str] = []
    first = generate(job.config, job.generation, place / "colocated", said.append)
    assert contents(place / "colocated") == contents(expected)
    (place / "colocated/shard-00004.parquet").unlink()
    assert generate(job.config, job.generation, place / "colocated", said.append) == first
    assert "6 of 7 shards are there, and intact" in said
    assert contents(place / "colocated") == contents(expected)
    monkeypatch.setattr(module, "connected", lambda *_, **__: pytest.fail("Ray is started"))
    assert generate(job.config, job.generation, place / "colocated", said.append) == first
    assert "nothing is left to do" in said[-1]


def test_a_set_at_a_url_has_the_same_bytes_and_goes_on_from_another_machine(
    place: Path, expected: Path, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The actors send their shards themselves; none stays on their node but in the driver's copy."""
    monkeypatch.setattr("hard_ray.storage.lock.SETTLE_S", 0.01)
    job, url = job_of(place, "unused", "runtime.teacher.placement=colocated"), f"file://{tmp_path}/bucket/set"
    options = {**OPTIONS, "autoencoder": {"model": str(place / "coder")}}
    said: list[str] = []

    def again(cache: str) -> dict[str, Any]:
        monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / cache))
        return api.generate(job.config, options, url, say=said.append)

    first = again("one")
    remote = Remote.parse(url)
    there = {name: objects.read(found.remote) for name, found in files_at(remote).items()}
    assert {name: there[name] for name in there if name.startswith("shard")} == contents(expected)
    assert not list((tmp_path / "one").glob("runs/*/set/.shard*"))
    index = build_index(job.config.data)
    ids = index.rows("train")[:3]
    assert open_generated(remote, index).read(ids) == open_generated(working_copy(remote), index).read(ids)
    # a shard is lost on the way, and with it the machine
    mirror = Mirror.of(remote)
    manifest = {**first, "complete": False, "shards": []}
    write_json(mirror.folder / "manifest.json", manifest)
    mirror.push()
    files = mirror.files()
    del files["shard-00004.parquet"]
    mirror._write_manifest(files, 1000)
    assert again("two") == first
    assert "6 of 7 shards are there, and intact" in said
    assert contents(working_copy(remote)) == contents(expected)
    monkeypatch.setattr(module, "connected", lambda *_, **__: pytest.fail("Ray is started"))
    assert again("three") == first
    assert said[-1].startswith(f"{remote} is complete")


def test_a_damaged_shard_and_one_of_other_settings_are_refused_by_name(place: Path, expected: Path):
    shutil.copytree(expected, place / "damaged")
    path = place / "damaged/shard-00003.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=rf"{path}: .*delete this file and give the same command to make it again"):
        job_of(place, "damaged")._verified()
    shutil.copytree(expected, place / "foreign")
    path = place / "foreign/shard-00000.parquet"
    with pytest.raises(DataError, match=rf"{path}: was made with other settings \(eps was 2\.0, now 1\.5\)"):
        job_of(place, "foreign", eps=1.5)._verified()
    with pytest.raises(DataError, match=r"other settings \(seed was 0, now 1\)"):
        job_of(place, "foreign", "seed=1")._verified()
    (place / "foreign/.shard-00009.parquet.tmp").write_bytes(b"half of one")
    assert len(job_of(place, "foreign")._verified()) == 7
    assert not list((place / "foreign").glob(".shard*"))


def test_the_death_of_an_actor_starts_anew_what_is_missing_as_often_as_allowed(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    job = job_of(place, "x", "runtime.max_failures=2")
    deaths = iter([ActorDiedError(), ActorDiedError(), None])
    asked = []

    def stream(self: Generation, plan: MakerPlan, done: dict, cluster: Cluster) -> None:
        asked.append([number for number, _ in plan.missing])
        done[len(asked)] = None
        if death := next(deaths):
            raise death

    monkeypatch.setattr(Generation, "_stream", stream)
    cluster = Cluster(is_own=True, resources={})
    assert job._survive(None, {}, cluster) is None
    assert asked == [[0, 1, 2, 3, 4, 5, 6], [0, 2, 3, 4, 5, 6], [0, 3, 4, 5, 6]]
    deaths = iter([ActorDiedError()] * 3)
    with pytest.raises(HardrayError, match="the same command continues, but this one failed"):
        job._survive(None, {}, cluster)


def test_all_that_decides_the_images_is_in_the_settings_and_threads_are_not(place: Path):
    digest = job_of(place, "x").settings
    assert job_of(place, "x", "runtime.threads=2", "runtime.num_workers=2").settings == digest
    others = [
        job_of(place, "x", "data.split_seed=3"),
        job_of(place, "x", "data.interpolation=nearest"),
        job_of(place, "x", "runtime.teacher.dtype=bfloat16"),
        *(job_of(place, "x", **{key: value}) for key, value in (("norm", "linf"), ("batch_size", 8), ("split", "val"))),
    ]
    keys = [{key for key in digest if other.settings[key] != digest[key]} for other in others]
    assert keys == [{"data_fingerprint"}, {"view"}, {"teacher"}, {"norm"}, {"batch_size"}, {"split"}]


def test_what_the_machine_decided_at_the_beginning_stays():
    begun = {
        "kernels": {
            "threads": 3,
            "amp_dtype": "bfloat16",
            "channels_last": True,
            "teacher": {"threads": 2, "dtype": "bfloat16"},
        }
    }
    undecided = tiny_config("runtime.threads=null", "runtime.amp_dtype=null", "runtime.teacher.threads=null")
    found = with_kernels_of(begun, undecided).runtime
    assert (found.threads, found.amp_dtype, found.channels_last) == (3, "bfloat16", False)
    assert (found.teacher.threads, found.teacher.dtype) == (2, "float32")


def test_a_teacher_without_weights_comes_from_the_cache_or_not_at_all(place: Path):
    config: RunConfig = tiny_config("teacher.recipe.seed=77")
    index = build_index(config.data)
    generation = GenerationConfig(autoencoder={"model": str(place / "coder")})
    coder = build_autoencoder(generation.autoencoder, 1)
    with pytest.raises(
        TeacherError, match="teacher.model hardray_cnn has no weights, and none was trained.*hardray distill"
    ):
        prepare(config, generation, index, SetFolder(place / "y"), coder)
    shutil.copytree(place / "teacher", cached_teacher(config, index))
    job = prepare(config, generation, index, SetFolder(place / "y"), coder)
    assert job.settings["teacher"] == job_of(place, "y").settings["teacher"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    check_output(SetFolder(tmp_path))
    check_output(SetFolder(tmp_path / "new"))
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(RunFolderError, match="holds no generated set; choose another --output"):
        check_output(SetFolder(tmp_path))
    write_json(tmp_path / "manifest.json", {"complete": False})
    check_output(SetFolder(tmp_path))


def test_mistakes_end_the_command_before_ray_is_started(place: Path):
    (place / "odd").mkdir()
    write_json(place / "odd/manifest.json", {"complete": True, "shards": []})
    for output, arguments, words in (
        ("mistake", ("--autoencoder", "nowhere"), "there is no such folder"),
        ("mistake", (), "autoencoder: is required"),
        ("mistake", ("--autoencoder", "coder", "--eps", "0"), "eps: Input should be greater than 0"),
        ("odd", ("--autoencoder", "coder"), "odd/manifest.json: cannot be read; delete this file"),
    ):
        done = run("generate", "-c", "config.yaml", "--output", output, *arguments, cwd=place)
        assert done.returncode in (1, 2)
        assert words in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
    assert not (place / "mistake").exists()
    assert json.loads((place / "coder/config.json").read_text())["_class_name"] == "VQModel"
