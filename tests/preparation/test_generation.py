"""Generated sets without Ray: what is stored, what is refused, and what a distillation finds."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cli.verbs.generate import teacher_lines
from hard_ray.config.generation import GenerationConfig, generation_settings
from hard_ray.config.loader import load_config
from hard_ray.config.networks import StudentConfig
from hard_ray.config.run import RunConfig
from hard_ray.data.checked_shard import digest_of, shard_name, spans
from hard_ray.data.generated_set import MANIFEST, SCHEMA, open_generated
from hard_ray.data.generated_shard import ROW_GROUP_BYTES, verify_shard
from hard_ray.data.index import ImageIndex
from hard_ray.data.pictures import EvalPictures, TrainPictures
from hard_ray.data.schedule import Schedule
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, label_gradient
from hard_ray.errors import ConfigError, DataError
from hard_ray.files import write_json
from hard_ray.maths.attacks import START_DRAWS, attack
from hard_ray.maths.noise import normal
from hard_ray.networks.network import build_student, build_teacher, image_spec
from hard_ray.networks.precision import Precision, to_pixels
from hard_ray.preparation.answers import answered_index
from hard_ray.preparation.generation import AttackStatistics, Dad, Originals, encode_png, make_shard
from tests.augmentors.made import Halving
from tests.support.helpers import make_image_folder, tiny_config, untrained_teacher
from tests.support.without_labels import config_of, heap, saved_teacher

CPU = Precision(torch.device("cpu"))
ELEVEN = tuple(str(number) for number in range(11))


def settings_of(index: ImageIndex, **more: object) -> dict:
    return {"data_fingerprint": index.fingerprint(), "eps": 0.1, **more}


def folder_config(root: Path, img_size: int, *overrides: str) -> RunConfig:
    given = ("data.kind=image_folder", f"data.path={root}", f"data.img_size={img_size}", "teacher.model=cifar_resnet8")
    return load_config(overrides=[*given, *overrides])


def dad(config: RunConfig, index: ImageIndex, teacher: FrozenNetwork | None = None, **settings: object) -> Dad:
    torch.set_num_threads(1)
    given = {"batch_size": 16, "shard_size": 50, "eps": 2.0, "step_size": 1.0, **settings}
    generation = GenerationConfig(autoencoder={"model": "none"}, **given)
    teacher = teacher or untrained_teacher(config, index)
    return Dad(Halving(config.data.in_chans), LocalPool(teacher), generation, 3, CPU)


def write_set(folder: Path, config: RunConfig, method: Dad, index: ImageIndex, count: int | None = None) -> list:
    """A finished set of the training split, or its first images."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = index.rows("train")[:count]
    pictures = EvalPictures(index.reader, index.labels, config.data, rows)
    settings = settings_of(index)
    headers = [
        make_shard(method, pictures, number, span, settings=settings, folder=folder)
        for number, span in enumerate(spans(len(rows), method.config.shard_size))
    ]
    shards = [{"file": shard_name(h.shard), "first": h.first, "last": h.last, "rows": h.rows} for h in headers]
    manifest = {"complete": True, "data_fingerprint": index.fingerprint(), "shards": shards}
    write_json(folder / MANIFEST, manifest)
    return headers


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig, Dad, ImageIndex, list]:
    """120 digits in three shards."""
    config = tiny_config()
    index = build_index(config.data)
    folder = tmp_path_factory.mktemp("set")
    method = dad(config, index)
    return folder, config, method, index, write_set(folder, config, method, index, 120)


def table_of(folder: Path, number: int) -> dict:
    return pq.ParquetFile(folder / shard_name(number)).read().to_pydict()


def decoded(png: bytes) -> np.ndarray:
    array = np.asarray(Image.open(io.BytesIO(png)))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def test_a_shard_has_the_sample_ids_labels_and_the_teachers_answers_to_the_decoded_pixels(digits: tuple):
    folder, _, method, index, headers = digits
    assert [(h.first, h.last, h.rows) for h in headers] == [(0, 49, 50), (50, 99, 50), (100, 119, 20)]
    for header in headers:
        table = table_of(folder, header.shard)
        ids = index.rows("train")[header.first : header.last + 1]
        assert table["sample_id"] == [str(row) for row in ids]
        assert table["label"] == index.labels[ids].tolist()
        pixels = np.stack([decoded(image["bytes"]) for image in table["image"]])
        assert pixels.shape == (header.rows, 1, 16, 16)
        for start in range(0, header.rows, 16):  # the batches that it was made in
            part = slice(start, start + 16)
            assert np.array_equal(method.pool.teacher.logits(pixels[part]), np.float32(table["logits"][part]))


def test_an_image_is_the_longhand_of_the_method(digits: tuple):
    folder, config, method, index, _ = digits
    rows = index.rows("train")[:16]
    pixels = torch.tensor(EvalPictures(index.reader, index.labels, config.data, rows)(np.arange(16))["image"])
    labels = torch.tensor(index.labels[rows])
    centre = method.coder.reconstruct(pixels / 255.0)
    noise = normal("generate", seed=3, epochs=np.zeros(16, np.int64), sample_ids=rows, count=START_DRAWS)
    gradient = label_gradient(method.pool, CPU)
    with torch.no_grad():
        found = attack(centre, torch.tensor(noise), lambda images: gradient(images, labels), method.config)
        expected = to_pixels(method.coder.reconstruct(found).clamp(0, 1))
    stored = [decoded(image["bytes"]) for image in table_of(folder, 0)["image"][:16]]
    assert np.array_equal(np.stack(stored), expected)
    assert not np.array_equal(expected, to_pixels(centre))


def test_the_score_says_how_far_images_moved_and_what_the_teacher_says_at_each_stage(digits: tuple):
    folder, config, method, index, headers = digits
    total = sum((AttackStatistics.of(header.score) for header in headers), AttackStatistics())
    assert total.images == 120
    assert 0 < total.means()["distance"] <= method.config.eps
    labels = index.labels[index.rows("train")[:120]]
    logits = np.concatenate([np.float32(table_of(folder, number)["logits"]) for number in range(3)])
    assert total.generated == (logits.argmax(axis=1) == labels).sum()
    rows = index.rows("train")[:120]
    pixels = EvalPictures(index.reader, index.labels, config.data, rows)(np.arange(120))["image"]
    teacher = method.pool.teacher
    assert total.clean == (teacher.logits(pixels).argmax(axis=1) == labels).sum()
    rounded = to_pixels(method.discretised(pixels))
    assert total.reconstructed == (teacher.logits(rounded).argmax(axis=1) == labels).sum()


def test_the_attack_lowers_the_teachers_probability_of_the_label():
    config = tiny_config()
    index = build_index(config.data)
    means = []
    for steps in (1, 8):
        method = dad(config, index, eps=4.0, steps=steps, random_start=0.0)
        rows = index.rows("train")[:32]
        columns = EvalPictures(index.reader, index.labels, config.data, rows)(np.arange(32))
        reconstructed = to_pixels(method.discretised(columns["image"]))
        made = method.make(Originals(columns["image"], columns["label"], columns["sample_id"]))
        means.append(
            [
                torch.tensor(logits).log_softmax(1)[torch.arange(32), torch.tensor(columns["label"])].mean().item()
                for logits in (method.pool.teacher.logits(reconstructed), made.logits.result())
            ]
        )
    assert means[0][1] < means[0][0]
    assert means[1][1] < means[0][1]


def test_a_shard_is_made_to_the_same_bytes_whatever_was_made_before(digits: tuple, tmp_path: Path):
    folder, config, method, index, headers = digits
    rows = index.rows("train")[:120]
    pictures = EvalPictures(index.reader, index.labels, config.data, rows)
    again = make_shard(method, pictures, 1, range(50, 100), settings=settings_of(index), folder=tmp_path)
    assert again == headers[1]
    assert (tmp_path / shard_name(1)).read_bytes() == (folder / shard_name(1)).read_bytes()


def test_a_shard_is_verified_whole(digits: tuple):
    folder, _, _, index, headers = digits
    for header in headers:
        assert verify_shard(folder / shard_name(header.shard), header.shard, settings_of(index)) == header


def test_a_flipped_byte_anywhere_in_a_shards_content_is_found_and_the_file_named(digits: tuple, tmp_path: Path):
    folder, _, _, index, _ = digits
    content = (folder / shard_name(2)).read_bytes()
    path = tmp_path / shard_name(2)
    table = table_of(folder, 2)
    places = {
        "an image": content.index(table["image"][7]["bytes"]) + 60,
        "logits": content.index(np.float32(table["logits"][3]).tobytes()),
        "an id": content.index(table["sample_id"][5].encode()),
        "a label": content.index(np.int32(table["label"][:4]).tobytes()),
        "the header": content.index(b'"generated"') + 14,
        "the end": len(content) - 2,
    }
    for what, place in places.items():
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(bytes(damaged))
        with pytest.raises(DataError, match=rf"{path}: (is damaged|cannot be read).*delete this file") as caught:
            verify_shard(path, 2, settings_of(index))
        assert "choose another --output" in str(caught.value), what
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read as a shard"):
        verify_shard(path, 2, settings_of(index))


def test_a_shard_of_other_settings_or_another_place_is_refused_by_name(digits: tuple):
    folder, _, _, index, _ = digits
    path = folder / shard_name(1)
    with pytest.raises(DataError, match=rf"{path}: was made with other settings \(eps was 0\.1, now 0\.2\); delete"):
        verify_shard(path, 1, settings_of(index, eps=0.2))
    with pytest.raises(DataError, match=r"0001\.parquet: holds shard 1; delete"):
        verify_shard(path, 4, settings_of(index))


def test_settings_have_one_digest_whatever_their_order():
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_row_groups_are_small_and_images_are_stored_as_they_are(tmp_path: Path):
    root = make_image_folder(tmp_path / "data", per_class=60)
    config = folder_config(root, 128)
    index = build_index(config.data)
    write_set(tmp_path / "set", config, dad(config, index, shard_size=200), index)
    parquet = pq.ParquetFile(tmp_path / "set" / shard_name(0))
    groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
    assert len(groups) > 4
    for group in groups:
        column = next(group.column(n) for n in range(group.num_columns) if "bytes" in group.column(n).path_in_schema)
        assert column.compression == "UNCOMPRESSED"
        assert not column.has_dictionary_page
        assert column.total_uncompressed_size < 1.5 * ROW_GROUP_BYTES
    assert parquet.schema_arrow.remove_metadata() == SCHEMA


def test_unreadable_images_are_left_out_and_named(tmp_path: Path):
    root = make_image_folder(tmp_path / "data", per_class=20)
    paths = sorted((root / "train").rglob("*.png"))
    for number in (3, *range(20, 30)):
        paths[number].write_bytes(b"no image")
    config = folder_config(root, 16)
    index = build_index(config.data)
    headers = write_set(tmp_path / "set", config, dad(config, index, shard_size=10, batch_size=4), index)
    assert [header.rows for header in headers] == [9, 10, 0, 10]
    assert headers[0].bad == (str(paths[3]),)
    assert len(headers[2].bad) == 10
    for header in headers:
        assert verify_shard(tmp_path / "set" / shard_name(header.shard), header.shard, settings_of(index)) == header
    made = open_generated(tmp_path / "set", index)
    assert (made.place[index.rows("train")] < 0).sum() == 11
    with pytest.raises(DataError, match="has no image for sample id 3"):
        made.read(np.array([2, 3]))
    columns = EvalPictures(index.reader, index.labels, config.data, index.rows("train"), made)(np.arange(6))
    assert columns["generated"][3].max() == 0
    assert columns["generated"][2].max() > 0


@pytest.fixture(scope="module")
def eleven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig, ImageIndex]:
    """Eleven classes whose names have another order as texts than as numbers; each image has its class's grey."""
    root = tmp_path_factory.mktemp("eleven")
    for split, count in (("train", 6), ("val", 2)):
        for name in ELEVEN:
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                grey = np.full((16, 16, 3), 20 * int(name) + 10 + image, dtype=np.uint8)
                Image.fromarray(grey).save(folder / f"{image}.png")
    config = folder_config(root, 16, "data.crop=none", "data.crop_pct=1", "data.hflip=0")
    return root, config, build_index(config.data)


def test_eleven_classes_keep_their_labels_through_storage_and_into_a_batch(eleven: tuple, tmp_path: Path):
    """DAD's released code names folders by number and reads them in the order of texts: 0, 1, 10, 2, ..."""
    _, config, index = eleven
    assert index.classes != ELEVEN
    write_set(tmp_path, config, dad(config, index, eps=0.01, step_size=0.01, shard_size=20), index)
    for number in range(4):
        table = table_of(tmp_path, number)
        for name, label, image in zip(table["sample_id"], table["label"], table["image"], strict=True):
            assert label == index.labels[int(name)]
            assert abs(int(np.median(decoded(image["bytes"]))) - 20 * int(index.classes[label]) - 12) <= 4
    made = open_generated(tmp_path, index)
    schedule = Schedule(index.rows("train"), 22, seed=5)
    columns = TrainPictures(index.reader, index.labels, config.data, schedule, made)(np.arange(66))
    assert sorted(set(columns["label"].tolist())) == list(range(11))
    for label, image, generated in zip(columns["label"], columns["image"], columns["generated"], strict=True):
        assert abs(int(np.median(generated)) - int(np.median(image))) <= 2
        assert abs(int(np.median(generated)) - 20 * int(index.classes[label]) - 12) <= 4


def test_the_attack_is_told_the_label_that_is_stored(eleven: tuple):
    _, config, index = eleven
    torch.manual_seed(0)
    network = build_student(
        StudentConfig(model="cifar_resnet8"), image_spec(config.data, index.classes), role="teacher"
    )
    method = dad(config, index, FrozenNetwork(network))
    given = []
    inner = method.pool.loss_and_grad

    class Listening(LocalPool):
        def loss_and_grad(self, images, objective, context):
            given.append(context["labels"])
            return inner(images, objective, context)

    method.pool = Listening(method.pool.teacher)
    columns = EvalPictures(index.reader, index.labels, config.data, index.rows("train"))(np.arange(66))
    method.make(Originals(columns["image"], columns["label"], columns["sample_id"]))
    assert np.array_equal(given[0], index.labels[index.rows("train")])


def test_a_set_of_other_data_or_an_unfinished_one_is_refused(digits: tuple, tmp_path: Path):
    folder, _, _, index, _ = digits
    open_generated(folder, index)
    other = build_index(tiny_config("data.split_seed=1").data)
    with pytest.raises(DataError, match="was generated from other data than this run's"):
        open_generated(folder, other)
    write_json(tmp_path / MANIFEST, {"complete": False, "data_fingerprint": index.fingerprint(), "shards": []})
    with pytest.raises(DataError, match="is not finished; the same `hardray generate` command goes on"):
        open_generated(tmp_path, index)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels: int):
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 7, 5)).astype(np.uint8)
    assert np.array_equal(decoded(encode_png(pixels)), pixels)


def test_shards_cover_the_split_without_overlap():
    assert spans(10, 4) == [range(4), range(4, 8), range(8, 10)]
    assert spans(8, 4) == [range(4), range(4, 8)]


def test_mistakes_in_the_options_are_one_message():
    with pytest.raises(ConfigError, match="autoencoder: is required.*train-autoencoder --kind vq"):
        generation_settings({"eps": 0.1})
    with pytest.raises(ConfigError) as caught:
        generation_settings({"autoencoder": "a", "eps": -1, "steps": 0, "random_start": 2})
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["eps", "steps", "random_start"]


def test_the_defaults_are_the_papers():
    found = generation_settings({"autoencoder": "hf-hub:a/b"})
    assert (found.norm, found.eps, found.step_size, found.steps, found.random_start) == ("l2", 0.1, 0.01, 1, 0.8)
    assert found.autoencoder.model == "hf-hub:a/b"


# ------------------------------------------------------------------- without labels


def test_without_labels_the_teachers_own_answer_is_attacked_and_no_label_is_stored(tmp_path: Path):
    config = config_of(heap(tmp_path / "images", count=80), saved_teacher(tmp_path / "teacher"))
    index = answered_index(config.data, config.teacher)
    teacher = FrozenNetwork(build_teacher(config.teacher, image_spec(config.data, index.classes)))
    method = dad(config, index, teacher)
    headers = write_set(tmp_path / "set", config, method, index)
    rows = index.rows("train")
    pixels = EvalPictures(index.reader, index.labels, config.data, rows)(np.arange(len(rows)))["image"]
    answers = teacher.logits(pixels).argmax(axis=1)

    # the same set with the answers as labels has the same images
    answered = index.labels.copy()
    answered[rows] = answers
    labelled = replace(index, labels=answered, has_labels=True)
    expected = write_set(tmp_path / "labelled", config, method, labelled)
    for number in range(len(headers)):
        ours, theirs = table_of(tmp_path / "set", number), table_of(tmp_path / "labelled", number)
        assert ours["image"] == theirs["image"]
        assert set(ours["label"]) == {None}
        assert set(theirs["label"]) <= {0, 1, 2}
        assert verify_shard(tmp_path / "set" / shard_name(number), number, settings_of(index)) == headers[number]

    total = sum((AttackStatistics.of(header.score) for header in headers), AttackStatistics())
    known = sum((AttackStatistics.of(header.score) for header in expected), AttackStatistics()).means()["top1"]
    assert total.means()["agreement"] == {name: known[name] for name in ("reconstructed", "generated")}
    assert "top1" not in total.means()
    assert known["clean"] == 100.0
    before = torch.tensor(teacher.logits(to_pixels(method.discretised(pixels)))).softmax(dim=1)
    after = [torch.tensor(table_of(tmp_path / "set", number)["logits"]) for number in range(len(headers))]
    named = torch.from_numpy(answers)[:, None]
    assert (torch.cat(after).softmax(dim=1).gather(1, named) < before.gather(1, named)).float().mean() > 0.9
    assert "unlabelled" not in expected[0].score  # sets with labels are stored as ever


def test_of_some_labelled_images_top1_is_of_those_and_agreement_of_the_others():
    some = AttackStatistics(10, 2.0, clean=3, reconstructed=2, generated=1, unlabelled=6, kept_reconstructed=3)
    assert some.means() == {
        "distance": 0.2,
        "top1": {"clean": 75.0, "reconstructed": 50.0, "generated": 25.0},
        "agreement": {"reconstructed": 50.0, "generated": 0.0},
    }
    assert AttackStatistics.of(some.to_json()) == some


def test_a_verb_says_what_the_teacher_keeps():
    manifest = {"agreement": {"reconstructed": 91.26, "generated": 3.0}}
    (line,) = teacher_lines(manifest)
    assert "attacked the teacher's own answer" in line
    assert "91.3 % of reconstructed images, 3.0 % of generated ones" in line
