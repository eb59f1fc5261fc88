import json
from pathlib import Path

import pytest

from hard_ray.export.saved_model import open_model
from tests.cli.commands import invoke


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
    assert f"error: {tmp_path / 'bad.png'}: no image can be read from it" in done.stderr
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
