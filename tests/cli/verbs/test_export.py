from pathlib import Path

import pytest

from hard_ray.export import graphs
from tests.cli.commands import invoke, words
from tests.support.helpers import tiny_config
from tests.support.saved_students import saved_run


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
        ([str(run / "student"), "--best"], "so --best has nothing to choose from"),
    ):
        done = invoke("export", *arguments, "--to", str(tmp_path / "e"))
        assert done.exit_code == 1
        assert said in words(done.stderr)
        assert not (tmp_path / "e").exists()
