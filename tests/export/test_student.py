import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from hard_ray.config.loader import load_config
from hard_ray.errors import DataError, ModelError, RunFolderError
from hard_ray.export import graphs
from hard_ray.export import student as exporting
from hard_ray.export.saved_model import open_model
from hard_ray.export.student import Exported, export, real_images
from hard_ray.export.student_card import SUITES
from tests.support.helpers import tiny_config
from tests.support.saved_students import number_config, number_folder, random_network, real_views, saved_run

STUDENTS = ("cifar_resnet8", "test_resnet")
"""One of hardray's own architectures, and one that is timm's."""
NUMBERS = ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return number_folder(tmp_path_factory.mktemp("numbers") / "numbers")


@pytest.fixture(scope="module", params=STUDENTS)
def whole(request: pytest.FixtureRequest, numbers: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An export with everything, of a run on eleven classes."""
    path = tmp_path_factory.mktemp(request.param)
    config = number_config(numbers, f"student.model={request.param}", "seed=17", "optim.lr=0.0375")
    saved_run(path / "run", config, steps=40)
    return export(path / "run", path / "export", onnx=True, torch_export=True)


def onnx_logits(path: Path, images: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def pt2_logits(path: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.export.load(path).module()(images)


@pytest.mark.parametrize("count", [1, 7, 33])
@pytest.mark.parametrize(("file", "ask"), [("model.onnx", onnx_logits), ("model.pt2", pt2_logits)])
def test_a_file_gives_the_networks_logits_on_real_images_at_any_batch(whole: Exported, file: str, ask, count: int):
    record = whole.model.record
    images = real_views(record.config, count)
    assert images.shape == (count, 3, 32, 32)
    student = timm.create_model(f"local-dir:{record.folder.student}", pretrained=True).eval()
    mean, std = (torch.tensor(student.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        wanted = student((images - mean) / std)
    got = ask(whole.folder / file, images)
    assert (got - wanted).abs().max() < 1e-4
    assert torch.equal(got.argmax(dim=1), wanted.argmax(dim=1))
    assert count < 33 or len(set(wanted.argmax(dim=1).tolist())) > 5


def test_the_export_says_what_was_checked(whole: Exported):
    noted = json.loads((whole.folder / "export.json").read_text())
    assert [check["file"] for check in noted["checks"]] == ["model.onnx", "model.pt2"]
    assert all(check["images"] == 33 and 0.0 <= check["max_difference"] < 1e-4 for check in noted["checks"])
    assert sorted(noted["files"]) == sorted(path.name for path in whole.folder.iterdir())
    card = (whole.folder / "README.md").read_text()
    for check in whole.checks:
        assert f"`{check.file}` takes **images in [0, 1]**" in card
        assert f"at most {check.max_difference:.1e}" in card


def test_timm_loads_the_export_with_the_students_weights_and_view(whole: Exported):
    loaded = timm.create_model(f"local-dir:{whole.folder}", pretrained=True)
    for key, value in whole.model.network.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    data = timm.data.resolve_model_data_config(loaded, use_test_size=True)  # as timm's validate.py asks
    assert data["input_size"] == (3, 32, 32)
    assert (data["interpolation"], data["crop_pct"], data["crop_mode"]) == ("bicubic", 1.0, "squash")
    assert tuple(data["mean"]) == whole.model.network.contract.mean
    assert tuple(data["std"]) == whole.model.network.contract.std


def test_eleven_classes_keep_their_order(whole: Exported):
    assert (whole.folder / "classes.txt").read_text().split() == NUMBERS
    assert json.loads((whole.folder / "config.json").read_text())["label_names"] == NUMBERS
    assert list(open_model(str(whole.folder)).names) == NUMBERS
    assert "\n2. 10\n3. 2\n" in (whole.folder / "README.md").read_text()


def test_the_card_holds_recipe_and_measurements(whole: Exported):
    card = (whole.folder / "README.md").read_text()
    for row in (
        "| data | image_folder numbers, 59 training images |",
        "| learning rate | 0.0375 at its peak, cosine |",
        "| batch size | 64 |",
        "| updates | 4,321 (and 1,234 of the augmentor) |",
        "| seed | 17 |",
        "| weights | after the last update |",
        "| versions | torch 2.14.1 |",
    ):
        assert row in card
    assert "| clean | unchanged images | 300 | 93.21 | 94.32 | 4.56 | 98.76 | 1.23 |" in card
    assert "| 2,400 | 61.05 | 62.50 | 7.89 | 91.40 | 2.50 |" in card
    assert "hard: temperature 4, w_clean 1, w_aug 1" in card
    assert "hardray_cnn, trained on the same data" in card
    assert "identity 0123456789ab" in card
    limits = card.split("## Limits")[1].split("##")[0]
    assert "rotations" in limits
    assert "corruptions" in limits
    assert "shifted (" not in limits
    assert str(whole.folder.parent) not in card


def test_the_cards_python_runs(whole: Exported):
    card = (whole.folder / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("PATH", str(whole.folder))
    assert ("import hard_ray.networks" in code) == (whole.model.network.architecture == "cifar_resnet8")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_suite_has_a_description():
    from typing import get_args

    from hard_ray.config.validation import Suite

    assert set(SUITES) == set(get_args(Suite))


# ------------------------------------------------------------------ what is exported


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of digits, with a student that takes no time."""
    path = tmp_path_factory.mktemp("digits") / "run"
    saved_run(path, tiny_config())
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()


def test_the_best_is_other_weights_and_borrows_no_figures(digits: Path, tmp_path: Path):
    export(digits, tmp_path / "last")
    export(digits, tmp_path / "best", best=True)
    best, last = weights(tmp_path / "best"), weights(tmp_path / "last")
    assert all(torch.equal(value, weights(digits / "best")[key]) for key, value in best.items())
    assert not torch.equal(best["head.weight"], last["head.weight"])
    card = (tmp_path / "best/README.md").read_text()
    assert "the best on the validation split" in card
    assert "top-1 90.50 %" in card
    assert "93.21" not in card
    assert "clean (unchanged images)" in card.split("## Limits")[1]


def test_an_unfinished_run_has_a_best_but_no_student(tmp_path: Path):
    saved_run(tmp_path / "run", tiny_config(), is_finished=False)
    with pytest.raises(RunFolderError, match=r"no finished student; continue .* --resume .*or take the best .* --best"):
        export(tmp_path / "run", tmp_path / "e")
    made = export(tmp_path / "run", tmp_path / "e", best=True)
    assert made.model.is_best
    assert "1,297 training images |" in (made.folder / "README.md").read_text()
    saved_run(tmp_path / "young", tiny_config(), is_finished=False, has_best=False)
    with pytest.raises(RunFolderError, match=r"no finished student; continue the run with .*young`$"):
        export(tmp_path / "young", tmp_path / "f")
    with pytest.raises(RunFolderError, match="has no best/"):
        export(tmp_path / "young", tmp_path / "f", best=True)
    assert not (tmp_path / "f").exists()


def test_a_run_from_before_the_count_was_a_fact_has_it_in_its_card(digits: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    for folder in (run / "student", run / "best"):
        written = json.loads((folder / "config.json").read_text())
        del written["training_images"]
        (folder / "config.json").write_text(json.dumps(written))
    (run / "student/README.md").unlink()
    for best in (False, True):
        made = export(run, tmp_path / f"e{best}", best=best)
        assert " training images |" in (made.folder / "README.md").read_text()


def test_a_bare_folder_is_exported_and_checked_on_photographs(digits: Path, tmp_path: Path):
    made = export(digits / "student", tmp_path / "e", torch_export=True)
    assert all(torch.equal(value, weights(digits / "student")[key]) for key, value in weights(made.folder).items())
    assert (made.checks[0].images, made.checks[0].source) == (48, "parts of photographs")
    card = (made.folder / "README.md").read_text()
    assert "Nothing: the folder is from no run, so its data and training are unknown." in card
    assert (made.folder / "classes.txt").read_text().split() == list("0123456789")


def test_a_run_on_labels_says_so(tmp_path: Path):
    config = load_config(preset="digits", overrides=["objective.kind=cross_entropy", "augmentor.kind=identity"])
    saved_run(tmp_path / "run", config)
    card = (export(tmp_path / "run", tmp_path / "e").folder / "README.md").read_text()
    assert "trained on labels with hardray" in card
    assert "| teacher | none: trained on labels alone |" in card


def test_real_images_are_the_final_splits(digits: Path):
    images = real_images(open_model(str(digits)))
    assert images.shape == (64, 1, 16, 16)
    views = real_views(tiny_config(), 300)
    assert torch.equal(images, views[::4][:64])


def test_a_network_that_resizes_is_written_with_its_resizing(numbers: Path, tmp_path: Path):
    config = number_config(numbers, "student.model=test_resnet", "student.img_size=48")
    network = saved_run(tmp_path / "run", config)
    made = export(tmp_path / "run", tmp_path / "e", torch_export=True)
    images = real_views(config, 7)
    with torch.no_grad():
        assert (pt2_logits(made.folder / "model.pt2", images) - network(images)).abs().max() < 1e-4
    card = (made.folder / "README.md").read_text()
    assert "resized to 32 pixels that the network then resized to 48" in card
    written = json.loads((made.folder / "config.json").read_text())["pretrained_cfg"]
    assert written["interpolation"] == network.contract.interpolation
    assert written["input_size"] == [3, 48, 48]


# -------------------------------------------------------------------------- the place


def test_an_export_is_replaced_and_leaves_nothing_of_the_old_one(digits: Path, tmp_path: Path):
    export(digits, tmp_path / "e", torch_export=True)
    export(digits, tmp_path / "e", best=True)
    assert not (tmp_path / "e/model.pt2").exists()
    assert all(torch.equal(value, weights(digits / "best")[key]) for key, value in weights(tmp_path / "e").items())
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_what_no_export_wrote_is_not_replaced(digits: Path, tmp_path: Path):
    export(digits, tmp_path / "e")
    (tmp_path / "e/notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds 'notes.txt', which no export wrote; choose another --to"):
        export(digits, tmp_path / "e")
    assert (tmp_path / "e/notes.txt").read_text() == "mine"
    with pytest.raises(RunFolderError, match="which no export wrote"):
        export(digits / "student", digits)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        export(digits, tmp_path / "file")
    with pytest.raises(RunFolderError, match="cannot be the export of itself"):
        export(digits / "student", digits / "student")


def test_a_damaged_note_marks_no_export(digits: Path, tmp_path: Path):
    (tmp_path / "e").mkdir()
    (tmp_path / "e/export.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"holds 'export.json'"):
        export(digits, tmp_path / "e")


# ----------------------------------------------------------------------------- errors


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunFolderError, match="there is no such folder"):
        export(tmp_path / "none", tmp_path / "e")
    with pytest.raises(RunFolderError, match=r"is no run, which has a config.yaml, and no folder in timm's layout"):
        export(tmp_path, tmp_path / "e")


def test_best_wants_a_run(digits: Path, tmp_path: Path):
    with pytest.raises(RunFolderError, match="so --best has nothing to choose from"):
        export(digits / "student", tmp_path / "e", best=True)


def test_damaged_weights_are_an_error(digits: Path, tmp_path: Path):
    made = export(digits, tmp_path / "e").folder
    (made / "model.safetensors").write_bytes(b"\0" * 16)
    with pytest.raises(ModelError, match="the model cannot be loaded"):
        export(made, tmp_path / "f")


@pytest.mark.parametrize("missing", graphs.ONNX_PACKAGES)
def test_missing_packages_are_named_before_anything_is_written(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
):
    monkeypatch.setattr(graphs, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(ModelError, match=rf"needs {missing}, which cannot .*pip install '\.\[onnx\]'"):
        export(digits, tmp_path / "e", onnx=True)
    assert not list(tmp_path.iterdir())


def test_data_that_is_gone_matters_to_files_alone(tmp_path: Path):
    config = number_config(number_folder(tmp_path / "numbers", per_class=2), "student.model=test_resnet")
    saved_run(tmp_path / "run", config)
    (tmp_path / "numbers").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"not where the run had them: .*or export .*student, which is checked on phot"):
        export(tmp_path / "run", tmp_path / "e", torch_export=True)
    assert not (tmp_path / "e").exists()
    assert (export(tmp_path / "run", tmp_path / "e").folder / "model.safetensors").is_file()


def test_a_file_that_is_not_the_network_is_not_left_behind(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    earlier = export(digits, tmp_path / "e").folder
    other = random_network(tiny_config().student, open_model(str(digits)).images, seed=5)
    write = graphs.write_graph
    monkeypatch.setattr(exporting, "write_graph", lambda kind, network, path, images: write(kind, other, path, images))
    with pytest.raises(ModelError, match=r"model.pt2 was written, but is not the network: on 64 images its logits"):
        export(digits, tmp_path / "e", torch_export=True)
    assert not (earlier / "model.pt2").exists()
    assert (earlier / "model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_a_file_that_does_not_run_is_an_error(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporting, "write_graph", lambda kind, network, path, images: path.write_bytes(b"no graph"))
    for options in ({"onnx": True}, {"torch_export": True}):
        with pytest.raises(ModelError, match="was written, but does not run"):
            export(digits, tmp_path / "e", **options)
    assert not (tmp_path / "e").exists()


class OneImageAtATime(nn.Module):
    """No graph can have this: what it does depends on the number of images."""

    pretrained_cfg = {"architecture": "one_at_a_time"}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([image.mean().view(1, 1) for image in images.tolist()])


def test_an_architecture_that_has_no_graph_is_an_error(digits: Path, tmp_path: Path):
    saved = open_model(str(digits))
    saved.network.model = OneImageAtATime()
    with pytest.raises(ModelError, match=r"one_at_a_time cannot be written as model.pt2"):
        graphs.write_graph("pt2", saved.network, tmp_path / "model.pt2", saved.images)


def test_files_are_compared_by_logit_and_by_class():
    wanted = torch.tensor([[1.0, 2.0], [30.0, 10.0]])
    assert graphs.compare(wanted + 1e-3, wanted, file="f") == pytest.approx(1e-3, rel=0.02)  # 30 * 1e-4 is allowed
    for wrong in (wanted + 4e-3, wanted * float("nan")):
        with pytest.raises(ModelError, match="is not the network"):
            graphs.compare(wrong, wanted, file="f")
    near = torch.tensor([[1.0, 1.0 + 1e-6]])
    with pytest.raises(ModelError, match="1 images get another class"):
        graphs.compare(near.flip(1), near, file="f")


# ------------------------------------------------------------------- timm's own script


@pytest.mark.skipif("HARDRAY_TIMM_VALIDATE" not in os.environ, reason="HARDRAY_TIMM_VALIDATE names no validate.py")
def test_timms_validate_counts_the_same_images_right(whole: Exported, capsys: pytest.CaptureFixture):
    script = os.environ["HARDRAY_TIMM_VALIDATE"]
    config = whole.model.record.config
    command = [
        *(script, str(config.data.path / "test"), "--split", "", "--model", f"local-dir:{whole.folder}"),
        *("--class-map", str(whole.folder / "classes.txt"), "--device", "cpu", "--workers", "1", "--batch-size", "8"),
    ]
    wrapper = (
        "import runpy, sys, hard_ray.networks; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], {}, '__main__')"
    )
    own = whole.model.network.architecture == "cifar_resnet8"
    start = [sys.executable, "-c", wrapper] if own else [sys.executable]
    done = subprocess.run([*start, *command], check=True, capture_output=True, text=True)
    said = json.loads(done.stdout.split("--result\n")[1])
    labels = np.repeat(np.arange(11), 3)
    with torch.no_grad():
        right = int((whole.model.network(real_views(config, 33)).argmax(dim=1).numpy() == labels).sum())
    assert right > 11  # by chance 3: another order of the classes would show
    assert said["top1"] == pytest.approx(100 * right / 33, abs=1e-4)
    assert (said["img_size"], said["crop_pct"], said["interpolation"]) == (32, 1.0, "bicubic")
