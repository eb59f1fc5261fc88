import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from hard_ray.api import export, predict
from hard_ray.errors import ModelError, RunFolderError
from hard_ray.export.predict import Prediction, predictions
from hard_ray.export.saved_model import open_model
from tests.data.encoded import encoded, exif, pgm, turn, with_segment
from tests.support.data_folders import HEIC, SIDECAR, fill, image, put
from tests.support.saved_students import number_config, number_folder, real_views, saved_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on eleven classes, whose pictures are beside it."""
    path = tmp_path_factory.mktemp("predict")
    config = number_config(number_folder(path / "numbers", size=(40, 24)), "student.model=test_resnet")
    saved_run(path / "run", config, steps=40)
    return path / "run"


@pytest.fixture(scope="module")
def pictures(run: Path) -> list[Path]:
    return sorted((run.parent / "numbers/test").rglob("*.png"))


def logits(run: Path) -> torch.Tensor:
    """What the student says of the test split."""
    model = open_model(str(run))
    with torch.no_grad():
        return model.network(real_views(model.record.config, 33))


def test_the_top_classes_are_the_networks(run: Path, pictures: list[Path]):
    found = list(predict(run, [run.parent / "numbers/test"], top=3, batch_size=8))
    assert [each.image for each in found] == pictures
    values, outputs = logits(run).softmax(dim=1).topk(3)
    for each, row, columns in zip(found, values.tolist(), outputs.tolist(), strict=True):
        assert [guess.output for guess in each.top] == columns
        assert [guess.probability for guess in each.top] == pytest.approx(row, abs=1e-5)
        assert each.problem is None
    names = ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert [each.top[0].name for each in found] == [names[row[0]] for row in outputs.tolist()]
    right = sum(each.top[0].name == each.image.parent.name for each in found)
    assert right > 11  # by chance 3: another order of the names would show


def test_an_export_sees_pictures_as_the_run_did(run: Path, pictures: list[Path], tmp_path: Path):
    made = export(run, tmp_path / "e")
    wanted = [each.top for each in predict(run, pictures)]
    for name in (made.folder, f"local-dir:{made.folder}"):
        for each, top in zip(predict(name, pictures), wanted, strict=True):
            assert [guess.name for guess in each.top] == [guess.name for guess in top]
            assert [g.probability for g in each.top] == pytest.approx([g.probability for g in top], abs=1e-6)


def test_batches_do_not_change_answers(run: Path, pictures: list[Path]):
    whole, single = (list(predict(run, pictures, batch_size=size)) for size in (64, 1))
    for one, other in zip(whole, single, strict=True):
        assert [g.output for g in one.top] == [g.output for g in other.top]
        assert [g.probability for g in one.top] == pytest.approx([g.probability for g in other.top], abs=1e-5)


def test_images_are_read_a_batch_at_a_time(run: Path, pictures: list[Path], tmp_path: Path):
    copies = [shutil.copy(path, tmp_path / f"{number}.png") for number, path in enumerate(pictures[:9])]
    found: Iterator[Prediction] = predict(run, copies, batch_size=4)
    next(found)
    for path in copies[4:]:
        Path(path).unlink()  # the second batch is not read yet
    assert [each.problem is None for each in found] == [True] * 3 + [False] * 5


def test_the_best_of_a_run_is_another_model(run: Path, pictures: list[Path]):
    assert [each.top for each in predict(run, pictures)] != [each.top for each in predict(run, pictures, best=True)]


def test_there_are_at_most_as_many_classes_as_there_are(run: Path, pictures: list[Path]):
    (found,) = predict(run, pictures[:1], top=99)
    assert sum(guess.probability for guess in found.top) == pytest.approx(1.0, abs=1e-5)
    assert len(found.top) == 11


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(run: Path, pictures: list[Path], tmp_path: Path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "half.png").write_bytes(pictures[0].read_bytes()[:60])
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "text.png", pictures[0], tmp_path / "none.jpg", tmp_path / "half.png", tmp_path / "empty"]
    found = list(predict(run, [*given, pictures[1]]))
    assert [each.image for each in found] == [*given, pictures[1]]
    text, first, none, half, empty, last = found
    assert text.problem.startswith("no image can be read from it: want JPEG, PNG")
    assert none.problem == "No such file or directory"
    assert half.problem
    assert empty.problem == "the folder holds no image"
    assert not text.top
    assert [first.top, last.top] == [each.top for each in predict(run, pictures[:2])]


def test_a_picture_of_sixteen_bits_has_the_answer_of_the_one_of_eight(run: Path, pictures: list[Path], tmp_path: Path):
    grey = np.asarray(Image.open(pictures[0]).convert("L"))
    Image.fromarray(grey).save(tmp_path / "0.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "1.tif")
    (tmp_path / "2.pgm").write_bytes(pgm(grey.astype(np.uint16) * 257, 65535))
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "3.tif")
    eight, *wide, unknown = predict(run, [tmp_path])
    for each in wide:
        assert each.top == eight.top
    assert unknown.top == ()
    assert "mode is F, floating-point numbers whose range is not known; save it with 8 or 16" in unknown.problem


def test_damaged_metadata_costs_no_answer(run: Path, pictures: list[Path], tmp_path: Path):
    picture = encoded(Image.open(pictures[0]).convert("RGB"), "JPEG", quality=95)
    words, orientation = (0x0128, 2, 4, b"abc\0"), turn(6)
    for name, block in {"0.jpg": exif(orientation), "1.jpg": exif(orientation, words)}.items():
        (tmp_path / name).write_bytes(with_segment(picture, 0xE1, block))
    intact, damaged = predict(run, [tmp_path])
    assert damaged.top == intact.top != ()


def test_a_folder_without_names_numbers_its_classes(run: Path, pictures: list[Path], tmp_path: Path):
    import json

    shutil.copytree(run / "student", tmp_path / "student")
    config = json.loads((tmp_path / "student/config.json").read_text())
    del config["label_names"]
    (tmp_path / "student/config.json").write_text(json.dumps(config))
    (found,) = predict(tmp_path / "student", pictures[:1], top=1)
    assert found.top[0].name == str(found.top[0].output)
    assert open_model(str(tmp_path / "student")).names is None


def test_a_timm_model_sees_its_own_evaluation_view(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    torch.manual_seed(0)
    model = timm.create_model("test_resnet.r160_in1k", num_classes=1000).eval()
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: model)
    path = tmp_path / "a.jpg"
    Image.radial_gradient("L").resize((300, 200)).convert("RGB").save(path)
    data = timm.data.resolve_model_data_config(model)
    seen = timm.data.create_transform(**data, is_training=False)(Image.open(path))[None]
    assert data["crop_pct"] < 1.0
    with torch.no_grad():
        wanted = model(seen).softmax(dim=1)[0]
    (found,) = predict("test_resnet.r160_in1k", [path], top=1)
    assert found.top[0].output == int(wanted.argmax())
    assert found.top[0].probability == pytest.approx(float(wanted.max()), rel=1e-4)
    assert open_model("test_resnet.r160_in1k").names[0] == "tench, Tinca tinca"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18x", "timm knows no such model; did you mean"),
        ("cifar_resnet8", "timm has no weights for it; name a run, or a folder that holds some"),
        ("runs/none", "there is no such folder; want a run folder, a folder in timm's layout, or a timm"),
        ("local-dir:/no/such/folder", "the model cannot be loaded"),
    ],
)
def test_models_that_cannot_be_used_are_errors_before_an_image_is_read(name: str, words: str):
    with pytest.raises(ModelError, match=words):
        predict(name, ["a.png"])


def test_a_folder_that_is_no_model_is_an_error(run: Path):
    with pytest.raises(RunFolderError, match="is no run, which has a config.yaml"):
        predict(run.parent / "numbers", ["a.png"])
    with pytest.raises(RunFolderError, match="--best has nothing to choose from"):
        predict(run / "student", ["a.png"], best=True)
    with pytest.raises(RunFolderError, match="--best has nothing to choose from"):
        predict("resnet18", ["a.png"], best=True)


def test_folders_are_listed_as_training_lists_them(run: Path, tmp_path: Path):
    fill(tmp_path, "a", "b", each=2)
    hidden = ("a/._0.png", "@eaDir/a/0.png", ".ipynb_checkpoints/x.png", "Thumbs.db", "notes.txt")
    put(
        tmp_path, {**dict.fromkeys(hidden, SIDECAR), "a/2.jfif": image(form="JPEG"), "b/x.heic": HEIC, "b/y.heic": HEIC}
    )
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "b/again.png").symlink_to("0.png")
    (tmp_path / "b/broken.png").symlink_to("nowhere.png")
    found = {str(each.image.relative_to(tmp_path)): each for each in predict(run, [tmp_path], top=1)}
    assert list(found) == ["a/0.png", "a/1.png", "a/2.jfif", "b/0.png", "b/1.png", "b/broken.png", "b/x.heic"]
    assert [name for name, each in found.items() if each.problem is None] == list(found)[:5]
    assert found["b/x.heic"].problem == ".heic images are not read: convert them to JPEG or PNG (1 more)"
    assert found["b/broken.png"].problem == "a link that leads nowhere"


def test_no_images_are_no_predictions(run: Path):
    assert list(predictions(open_model(str(run)), [], top=5, batch_size=4)) == []
