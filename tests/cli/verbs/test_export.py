import json
from pathlib import Path

import pytest

from hard_ray.export.saved_model import open_model
from hard_ray.export.timm_folder import graphs
from tests.cli.test_main import invoke
from tests.support.helpers import tiny_config
from tests.support.saved_students import number_config, number_folder, saved_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home")
    config = number_config(number_folder(path / "numbers"), "student.model=test_resnet")
    saved_run(path / "run", config, steps=20)
    return path / "run"


def words(text: str) -> str:
    return " ".join(text.split())


def test_export_says_what_it_wrote_and_how_near_it_came(run: Path, tmp_path: Path):
    done = invoke("export", str(run), "--to", str(tmp_path / "e"), "--torch-export")
    assert done.exit_code == 0, done.stderr
    assert "test_resnet 11 classes after the last update" in words(done.stdout)
    assert "model.pt2 equals the network on 33 images of the run: logits differ by at most" in words(done.stdout)
    assert done.stdout.splitlines()[-1].endswith(str(tmp_path / "e"))
    done = invoke("export", str(run), "--to", str(tmp_path / "e"), "--best")
    assert "best on the validation split" in done.stdout
    assert not (tmp_path / "e/model.pt2").exists()


def test_export_writes_onnx(tmp_path: Path):
    saved_run(tmp_path / "run", tiny_config())
    done = invoke("export", str(tmp_path / "run"), "--to", str(tmp_path / "e"), "--onnx")
    assert done.exit_code == 0, done.stderr
    assert "model.onnx equals the network on 64 images of the run" in words(done.stdout)
    assert (tmp_path / "e/model.onnx").stat().st_size > 1000


def test_mistakes_of_an_export_are_messages(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphs, "find_spec", lambda name: None)
    for arguments, said in (
        ([str(run), "--onnx"], "an ONNX file needs onnx and onnxscript and onnxruntime, which cannot be imported"),
        ([str(tmp_path)], "is no run, which has a config.yaml"),
        ([str(run / "student"), "--best"], "so that --best has nothing to choose from"),
    ):
        done = invoke("export", *arguments, "--to", str(tmp_path / "e"))
        assert done.exit_code == 1
        assert said in words(done.stderr)
        assert not (tmp_path / "e").exists()


def test_predict_prints_classes_with_their_probabilities(run: Path):
    images = run.parent / "numbers/test/10"
    done = invoke("predict", str(run), str(images), "--top", "2")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [str(path) for path in sorted(images.iterdir())]
    assert len(lines) == 9
    share, percent, name = lines[1].split()
    assert 0.0 < float(share) <= 100.0
    assert percent == "%"
    assert name in open_model(str(run)).names


def test_predict_names_unreadable_images_and_goes_on(run: Path, tmp_path: Path):
    (tmp_path / "bad.png").write_text("no image")
    good = sorted((run.parent / "numbers/test/3").iterdir())[0]
    done = invoke("predict", str(run), str(tmp_path / "bad.png"), str(good))
    assert done.exit_code == 1
    assert f"error: {tmp_path / 'bad.png'}: UnidentifiedImageError" in done.stderr
    assert done.stdout.splitlines()[0] == str(good)


def test_predict_prints_json_a_line_each(run: Path, tmp_path: Path):
    good = sorted((run.parent / "numbers/test/3").iterdir())[0]
    done = invoke("predict", str(run), str(good), str(tmp_path / "none.png"), "--json", "--top", "11", "--threads", "1")
    assert done.exit_code == 1
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["image"] == str(good)
    assert sum(each["probability"] for each in first["top"]) == pytest.approx(1.0, abs=1e-5)
    assert {each["class"] for each in first["top"]} == set(open_model(str(run)).names)
    assert second == {"image": str(tmp_path / "none.png"), "error": "No such file or directory"}


def test_predict_refuses_what_is_no_model(tmp_path: Path):
    done = invoke("predict", "resnet18x", str(tmp_path))
    assert done.exit_code == 1
    assert "did you mean" in done.stderr
