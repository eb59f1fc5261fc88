"""`hardray fit-head` and `hardray probe` on actors: features once, continued, the same in any number of replicas."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from hard_ray import api
from hard_ray.config.heads import head_settings
from hard_ray.config.networks import TeacherConfig
from hard_ray.config.run import RunConfig
from hard_ray.data.index import NO_LABEL
from hard_ray.data.pictures import EvalPictures, to_batch
from hard_ray.data.sources.build import build_index
from hard_ray.errors import DataError, HardrayError, ModelError, RunFolderError, TeacherError
from hard_ray.export.saved_model import open_model
from hard_ray.files import read_json
from hard_ray.networks.network import build_teacher, image_spec
from hard_ray.orchestration import features as module
from hard_ray.orchestration.features import rows_of
from hard_ray.orchestration.fit_head import head_rows, plan_lines
from hard_ray.storage.address import Remote
from tests.orchestration.commands import kill_everything, start, succeed
from tests.support import without_labels
from tests.support.helpers import tiny_config


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network without a class head, as timm saves it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tower") / "cnn"
    model = timm.create_model("hardray_cnn", widths=(8, 16), num_classes=0).eval()
    timm.models.save_for_hf(model, str(folder), safe_serialization=True)
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards of the digits."""
    for place in (module, "hard_ray.preparation.features", "hard_ray.orchestration.fit_head"):
        target = place if isinstance(place, str) else place.__name__
        monkeypatch.setattr(f"{target}.SHARD_IMAGES", 300)


def config_of(tower: Path | Remote, *overrides: str) -> RunConfig:
    return tiny_config(f'teacher.model="local-dir:{tower}"', "teacher.model_kwargs={}", *overrides)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "features").glob("*.parquet"))}


def longhand(tower: Path, config: RunConfig, split: str) -> np.ndarray:
    """Features of a split by timm alone, one image at a time."""
    index = build_index(config.data)
    model = timm.create_model(f"local-dir:{tower}", pretrained=True).eval()
    rows = index.rows(split)
    batch = to_batch(EvalPictures(index.reader, index.labels, config.data, rows)(np.arange(len(rows))), keep_bad=False)
    with torch.inference_mode():
        return torch.cat([model(torch.from_numpy(image[None]).float() / 255) for image in batch.images]).numpy()


def test_a_probe_teaches_evaluates_and_goes_on_from_features_that_are_there(
    tower: Path, tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
):
    config = config_of(tower)
    said: list[str] = []
    options = {"kind": "probe", "c": (0.1, 10.0)}
    made = api.fit_head(config, options, tmp_path / "teacher", say=said.append)
    assert any("shard     6 of 6" in line for line in said)
    index = build_index(config.data)
    # accuracy, longhand: timm's features, the folder's own weights
    teacher = build_teacher(TeacherConfig(model=f"local-dir:{made.folder}"), image_spec(config.data, index.classes))
    wanted = longhand(tower, config, "test") @ teacher.model.head.weight.numpy().T + teacher.model.head.bias.numpy()
    accuracy = 100 * (wanted.argmax(1) == index.labels[index.rows("test")]).mean()
    assert made.facts["top1"]["test"] == pytest.approx(accuracy, abs=0.35)
    assert made.facts["top1"]["test"] > 50
    assert read_json(tmp_path / "teacher/head.json") == made.facts
    assert made.facts["identity"] == teacher.identity()
    assert open_model(str(tmp_path / "teacher")).names == index.classes
    # one shard is lost: it alone is made again, with the same bytes
    before = shards(tmp_path / "teacher")
    assert len(before) == 6
    (tmp_path / "teacher/features/shard-00004.parquet").unlink()
    (tmp_path / "teacher/features/.shard-00002.parquet.tmp").write_bytes(b"half of one")
    again = api.fit_head(config, options, tmp_path / "teacher", say=said.append)
    assert "5 of 6 shards are there, and intact" in said
    assert shards(tmp_path / "teacher") == before
    assert again.facts == made.facts
    # another head uses the same features: nothing of Ray is started
    monkeypatch.setattr(module, "networks_only", lambda *_: pytest.fail("Ray is started"))
    other = api.fit_head(config, {**options, "c": (0.5,)}, tmp_path / "teacher")
    assert other.facts["c"] == 0.5
    with pytest.raises(
        DataError, match=r"was made with other settings \(view.interpolation was bicubic, now nearest\)"
    ):
        api.fit_head(config_of(tower, "data.interpolation=nearest"), options, tmp_path / "teacher")


def test_features_and_teacher_at_a_url_serve_other_machines(
    tower: Path, tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hard_ray.storage.lock.SETTLE_S", 0.01)
    at = Remote.parse(f"file://{tmp_path}/bucket")
    shutil.copytree(tower, tmp_path / "bucket/tower")
    config, options = config_of(at / "tower"), {"kind": "prototypes", "count": 20}
    local = api.fit_head(config_of(tower), options, tmp_path / "local")
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "one"))
    made = api.fit_head(config, options, str(at / "heads/twenty"))
    assert made.facts["identity"] == local.facts["identity"]
    assert shards(made.folder) == shards(tmp_path / "local")
    monkeypatch.setattr(module, "networks_only", lambda *_: pytest.fail("Ray is started"))
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "two"))
    other = api.fit_head(config, {**options, "count": 16}, str(at / "heads/twenty"))
    spec = image_spec(config.data, other.names)
    teacher = build_teacher(TeacherConfig(model=f"local-dir:{at / 'heads/twenty'}"), spec)
    assert teacher.identity() == other.facts["identity"]


def test_replicas_make_the_same_features_and_prototypes_do_not_look_at_labels(
    tower: Path, tmp_path: Path, cluster: None
):
    one = api.fit_head(config_of(tower), {"kind": "prototypes", "count": 20}, tmp_path / "one")
    two = api.fit_head(config_of(tower, "runtime.num_workers=2"), {"kind": "prototypes", "count": 20}, tmp_path / "two")
    assert shards(tmp_path / "one") == shards(tmp_path / "two")
    assert one.facts["identity"] == two.facts["identity"]
    assert one.names[:2] == ("prototype 0", "prototype 1")
    spec = image_spec(config_of(tower).data, one.names)
    teacher = build_teacher(TeacherConfig(model=f"local-dir:{tmp_path / 'one'}"), spec)
    features = longhand(tower, config_of(tower), "train")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    centres = teacher.model.head.weight.numpy()
    assert np.allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-6)
    sizes = np.bincount((unit @ centres.T).argmax(1), minlength=20)
    assert sizes.min() > 0


def test_a_probe_of_a_model_measures_its_features(tower: Path, tmp_path: Path, cluster: None):
    config = config_of(tower)
    result = api.probe(str(tower), tmp_path / "probe", config=config, options={"c": (10.0,), "k": 5})
    index = build_index(config.data)
    known, asked = longhand(tower, config, "train"), longhand(tower, config, "test")
    known, asked = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (known, asked))
    hits = 0
    for image, label in zip(asked, index.labels[index.rows("test")], strict=True):
        cosines = known @ image
        nearest = np.argsort(-cosines)[:5]
        votes = np.zeros(10)
        np.add.at(votes, index.labels[index.rows("train")][nearest], np.exp(cosines[nearest] / 0.07))
        hits += votes.argmax() == label
    assert result["top1"]["knn"]["test"] == pytest.approx(100 * hits / len(asked), abs=0.7)
    assert result["top1"]["linear"]["test"] > 50
    assert read_json(tmp_path / "probe/probe.json")["top1"] == result["top1"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_command_continues_with_the_shards_that_it_has(tower: Path, tmp_path: Path):
    many = ["--preset", "digits", "data.img_size=112", "data.digit_size=100", "runtime.num_workers=1"]
    command = ["fit-head", "--kind", "probe", "--c", "1", "--tower", f"local-dir:{tower}", *many, "--output", "teacher"]
    process = start(*command, cwd=tmp_path)
    try:
        end = time.monotonic() + 240
        while not shards(tmp_path / "teacher"):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            kill_everything(process)
    there = shards(tmp_path / "teacher")
    assert not (tmp_path / "teacher/config.json").exists()
    printed = succeed(*command, cwd=tmp_path)
    assert "shards are there, and intact" in " ".join(printed.split())
    after = shards(tmp_path / "teacher")
    assert {name: after[name] for name in there} == there
    assert (tmp_path / "teacher/config.json").is_file()


def test_mistakes_end_the_command_before_anything_starts(tower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "networks_only", lambda *_: pytest.fail("Ray is started"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    probe, many = {"kind": "probe"}, {"kind": "prototypes", "count": 2000}
    cases: list[tuple[RunConfig, dict, str, type[HardrayError], str]] = [
        (tiny_config(), probe, "new", TeacherError, "the tower hardray_cnn has no weights"),
        (config_of(tmp_path / "nowhere"), probe, "new", ModelError, "there is no such folder"),
        (config_of(tower), many, "new", DataError, "--count 2000 is more than the 1297 images"),
        (config_of(tower), probe, "full", RunFolderError, "holds no head of hardray's; choose another --output"),
    ]
    for config, options, output, kind, words in cases:
        with pytest.raises(kind, match=words):
            api.fit_head(config, options, tmp_path / output)
    assert not (tmp_path / "new").exists()


def test_a_dry_run_reads_images_asks_the_tower_and_starts_nothing(
    tower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "networks_only", lambda *_: pytest.fail("Ray is started"))
    lines = plan_lines(config_of(tower), head_settings({"kind": "probe"}), tmp_path / "teacher")
    said = {}
    for key, text in lines:
        said.setdefault(key, text)
    assert "1,297 train, 200 val, 300 test images" in said["data"]
    assert said["pixels"] == "16 x 16, grey"
    assert "1,797 images in 6 shards" in said["features"]
    assert "16 features, frozen" in said["tower"]
    assert "4 images of the training split decoded" in said["tried"]
    assert not (tmp_path / "teacher").exists()


def test_a_shard_of_another_tower_is_refused_by_name(tower: Path, tmp_path: Path, cluster: None):
    api.fit_head(config_of(tower), {"kind": "prototypes", "count": 4, "images": 200}, tmp_path / "teacher")
    other = shutil.copytree(tower, tmp_path / "other")
    torch.manual_seed(9)
    model = timm.create_model("hardray_cnn", widths=(8, 16), num_classes=0)
    timm.models.save_for_hf(model, str(other), safe_serialization=True)
    with pytest.raises(DataError, match=r"features/shard-00000.parquet: was made with other settings \(tower was"):
        api.fit_head(config_of(other), {"kind": "prototypes", "count": 4, "images": 200}, tmp_path / "teacher")


def test_images_of_a_split_are_spread_over_it():
    index = build_index(tiny_config().data)
    rows = rows_of(index, ("train", "test"), 10)
    assert [len(part) for part in rows.values()] == [10, 10]
    assert rows["train"][0] == index.rows("train")[0]
    assert rows["train"][-1] == index.rows("train")[-1]


def test_a_heap_without_labels_gets_prototypes_and_no_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "networks_only", lambda *_: pytest.fail("Ray is started"))
    config = without_labels.config_of(
        without_labels.heap(tmp_path / "heap"), without_labels.saved_teacher(tmp_path / "t")
    )
    lines = dict(plan_lines(config, head_settings({"kind": "prototypes", "count": 8}), tmp_path / "teacher"))
    assert "prototypes: 8 centres" in lines["head"]
    assert "8 features, frozen" in lines["tower"]
    with pytest.raises(DataError, match="the data have no labels, and a probe needs them"):
        plan_lines(config, head_settings({"kind": "probe"}), tmp_path / "teacher")


def test_images_without_a_label_beside_labelled_ones_are_left_out_of_a_probe_alone():
    index = build_index(tiny_config().data)
    labels = index.labels.copy()
    labels[index.rows("train")[::2]] = NO_LABEL
    mixed = replace(index, labels=labels)
    probe, prototypes = head_settings({"kind": "probe"}), head_settings({"kind": "prototypes"})
    assert (labels[head_rows(mixed, probe)["train"]] != NO_LABEL).all()
    assert len(head_rows(mixed, probe)["train"]) == 648
    assert len(head_rows(mixed, prototypes)["train"]) == 1297
