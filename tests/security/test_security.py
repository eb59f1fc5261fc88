"""What SECURITY.md promises: nothing of a user's files is run, no archive or picture takes over, no secret is kept."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.data.sources.build import build_index
from hard_ray.data.sources.idx import read_idx
from hard_ray.data.views import UnreadableImageError, decode
from hard_ray.distillation.checkpoints import STATE_FILE, CheckpointStore
from hard_ray.errors import ConfigError, DataError, HardrayError, ModelError, RunFolderError
from hard_ray.networks.checkpoint import read_checkpoint
from hard_ray.orchestration.jobs.package import choose
from hard_ray.orchestration.run.reporter import Silent
from hard_ray.runs.snapshots import read_snapshot
from tests.support.helpers import Trap, plant_secret, run_here, tiny_config


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    path = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(path)))
    assert path.exists()  # the trap works where something unpickles it
    path.unlink()
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_checkpoint_of_a_teacher_is_refused_and_not_run(tmp_path: Path, sprung: Path, zipped: bool):
    path = tmp_path / "teacher.pth"
    torch.save({"state_dict": Trap(sprung)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        read_checkpoint(path)
    assert not sprung.exists()


def test_a_malicious_checkpoint_of_a_run_is_passed_over_and_not_run(tmp_path: Path, sprung: Path):
    """Even one whose digest was put right."""
    import hashlib
    import json

    config = tiny_config("optim.steps=10")
    run_here(config, tmp_path / "run")
    (tmp_path / "run" / "outcome.json").unlink()
    for path in CheckpointStore(tmp_path / "run" / "checkpoints").list():
        torch.save({"student": Trap(sprung)}, path / "optimizers.pt")
        state = json.loads((path / STATE_FILE).read_text())
        state["sha256"]["optimizers.pt"] = hashlib.sha256((path / "optimizers.pt").read_bytes()).hexdigest()
        (path / STATE_FILE).write_text(json.dumps(state))
    with pytest.raises(RunFolderError, match="every checkpoint is damaged"):
        run_here(config, tmp_path / "run")
    assert not sprung.exists()


def test_yaml_makes_no_objects(sprung: Path):
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml(f"!!python/object/apply:pathlib.Path.touch [{sprung}]", "mine.yaml")
    assert not sprung.exists()


def test_aliases_of_aliases_are_refused_before_they_are_unfolded(tmp_path: Path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    for text in ("\n".join([*lines, "data: {img_size: *a11}"]), "a: &a [*a]"):
        with pytest.raises(ConfigError, match=r"100,000 values|within the node that it repeats"):
            parse_yaml(text, "a bomb")
        (tmp_path / "bomb.yaml").write_text(text)
        assert not choose(tmp_path, [], whole=True).left_out
    twice = "a: 1\na: 2\npassword:\n  hunter2-hunter2\n"
    (tmp_path / "twice.yaml").write_text(twice)
    assert "password" in choose(tmp_path, [], whole=True).left_out[0].reason
    assert parse_yaml("a: &a {x: 1}\nb: *a", "an alias") == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_wrong_value_is_shown_in_part_and_without_its_password():
    with pytest.raises(ConfigError) as caught:
        load_config(preset="digits", overrides=["data.img_size=" + "x" * 10_000])
    assert len(str(caught.value)) < 500
    for override in ("tracking.uri.x=http://u:hidden@h", "=http://u:hidden@h", "tracking.uri: http://u:hidden@h"):
        with pytest.raises(ConfigError) as caught:
            load_config(preset="digits", overrides=[override])
        assert "hidden" not in str(caught.value)


def test_a_line_that_is_not_valid_yaml_is_not_repeated_with_its_password(tmp_path: Path):
    line = 'uri: "postgresql://me:hunter22@host/db'
    (tmp_path / "mine.yaml").write_text(f"tracking:\n  {line}\nseed: 1\n")
    for given in ({"files": [tmp_path / "mine.yaml"]}, {"overrides": [f"tracking.{line.replace(': ', '=', 1)}"]}):
        with pytest.raises(ConfigError, match=r"quoted scalar \(line \d, column \d\): found unexpected end") as caught:
            load_config(**given)
        assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("damage", ["bomb", "deflate", "header"])
def test_archives_of_arrays_that_are_bombs_or_damaged_are_refused(tmp_path: Path, damage: str):
    path = tmp_path / "step-00000001.npz"
    if damage == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
            for _ in range(1100):
                member.write(bytes(2**20))
    else:
        np.savez_compressed(path, x=np.arange(10_000))
        content = bytearray(path.read_bytes())
        if damage == "deflate":
            content[200:400] = b"\xff" * 200
        else:
            np.savez(path, x=np.arange(10))
            content = bytearray(path.read_bytes().replace(b"(10,)", b"(1e9)"))
        path.write_bytes(bytes(content))
    with pytest.raises(RunFolderError, match="is not a readable snapshot"):
        read_snapshot(path)


def test_members_of_a_shard_that_leave_their_folder_leave_nothing(tmp_path: Path):
    """Shards are read where they are and never unpacked: a member's name is a key, and no path."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    shard = tmp_path / "data" / "train" / "0.tar"
    shard.parent.mkdir(parents=True)
    with tarfile.open(shard, "w") as archive:
        for number in range(20):
            for suffix, data in (("png", stream.getvalue()), ("cls", str(number % 2).encode())):
                info = tarfile.TarInfo(f"../../escaped-{number}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    before = sorted(tmp_path.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        try:
            index = build_index(load_config(overrides=["data.kind=webdataset", f"data.path={tmp_path / 'data'}"]).data)
            index.reader.read([0, 1])
        except HardrayError:
            pass  # refused, which is as good
    assert sorted(tmp_path.rglob("*")) == before


def test_a_picture_that_unpacks_to_a_gigapixel_is_unreadable():
    stream = io.BytesIO()
    Image.new("1", (40_000, 30_000)).save(stream, "PNG")
    assert len(stream.getvalue()) < 1_000_000
    with pytest.raises(UnreadableImageError, match="DecompressionBomb"):
        decode(stream.getvalue(), in_chans=3)


def test_an_array_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as stream:
        stream.write(b"\0\0\x08\x01" + (10).to_bytes(4, "big"))
        for _ in range(64):
            stream.write(bytes(2**20))
    with pytest.raises(DataError, match="another number"):
        read_idx(path)
    (tmp_path / "huge").write_bytes(b"\0\0\x08\x02" + b"\xff" * 8)
    with pytest.raises(DataError, match="more than"):
        read_idx(tmp_path / "huge")


def test_a_planted_secret_is_nowhere_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tokens of the environment and a password in an address: searched in every byte of the run and of MLflow."""
    from hard_ray.orchestration.run.driver import Driver
    from hard_ray.orchestration.run.plan import write_configs
    from hard_ray.runs.folder import create_run
    from hard_ray.runs.tracking import tracking_uri

    secret = plant_secret(monkeypatch)
    config = tiny_config("tracking.enabled=true", "tracking.gallery_images=2")
    folder = create_run(tmp_path / "run")
    driver = Driver(config, build_index(config.data), folder, Silent())
    plans = driver.plans(train_teacher=False)
    write_configs(folder, driver.index, plans)
    tracking = driver._tracking(plans)
    assert tracking is not None
    tracking.start()
    run_here(config, folder.path)
    assert tracking.stop(lambda: tracking.followers[-1].close("FINISHED"), patience_s=60)
    assert tracking_uri(config.tracking, folder).startswith("sqlite")
    searched = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"mlflow.db", "config.yaml", "metrics.jsonl"} <= {path.name for path in searched}
    assert [path.name for path in searched if secret.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("key", ["tracking.uri", "runtime.address"])
def test_a_password_in_an_address_is_refused_and_not_repeated(key: str):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[f"{key}=http://me:hunter2@mlflow.example.com:5000"])
    assert "hunter2" not in str(caught.value)
    assert "environment" in str(caught.value)
