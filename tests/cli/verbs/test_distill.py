import subprocess
from pathlib import Path

import pytest
import timm
import torch

from hard_ray.errors import HardrayError
from tests.cli.commands import HARDRAY, invoke
from tests.support.data_folders import fill_splits, put
from tests.support.helpers import make_image_folder


def test_configuration_mistakes_are_one_message_and_exit_code_2():
    done = invoke("distill", "--preset", "digits", "optim.lrr=1", "seed=-1", "augmentor.strength=2")
    assert done.exit_code == 2
    assert "3 problems in preset digits + the overrides" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.kind=image_folder", "data.path=/no/such/folder"], "there is no such folder"),
        (["student.model=resnett18"], "did you mean resnet18"),
        (["teacher.checkpoint=/no/weights.pt"], "there is no such file"),
        (["optim.batch_size=5000"], "optim.batch_size 5000 is larger than the training split of 1297 images"),
        (["teacher.recipe.batch_size=5000"], "teacher.recipe.batch_size 5000 is larger than the training split"),
        (
            ["student={model: convnext_atto, model_kwargs: {}}"],
            "convnext_atto cannot take images of 1 x 28 x 28",
        ),
        (["optim.lr=1e30"], "lower optim.lr"),
        (["--output", "/proc/run"], "/proc/run cannot be written"),
        (["augmentor={kind: vae, autoencoder: {model: /no/such/folder}}"], "there is no such folder"),
        (["tracking.uri=./mlruns"], "tracking.uri is ./mlruns, a folder: MLflow records in folders no more"),
    ],
)
def test_a_dry_run_finds_what_a_run_would_fail_on(arguments: list[str], words: str):
    done = invoke("distill", "--preset", "digits", "--dry-run", *arguments)
    assert done.exit_code == 1
    assert words in " ".join(done.stderr.split())


def test_a_dry_run_prints_the_plan_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("distill", "--preset", "digits", "--dry-run")
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stdout.split())
    for words in (
        "1,297 train, 200 val, 300 test",
        "3,000 student updates of 64 images = 150 epochs",
        "teacher pool: 1 CPU",
        "trained first",
        "labels_only, kd",
        "16 images of each split decoded, a teacher update by teacher.recipe (loss ",
        "a student update of 41 images (loss ",
        "an augmentor update (loss ",
        "can be written; about",
        "estimated",
        "the new sqlite database",
    ):
        assert words in text, text
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_the_dimension_of_an_embedding():
    done = invoke("distill", "--preset", "digits", "objective.kind=embedding", "--dry-run")
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "its last layer projects to the teacher's embedding of 64 values" in text
    assert "objective embedding; augmentor affine" in text
    assert "an augmentor update" in text


def test_a_dry_run_says_the_grids_of_tokens_and_the_bytes_of_an_answer():
    tokens = (
        "objective={kind: embedding, w_tokens: 1}",
        "student={model: hardray_cnn, model_kwargs: {widths: [8, 16]}}",
    )
    done = invoke("distill", "--preset", "digits", *tokens, "--dry-run")
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "the teacher's are 7 x 7 of 64 values; the student's map of 14 x 14 is resized" in text
    assert "an answer has 12,800 bytes an image, and 256 without tokens" in text


def test_a_dry_run_says_what_is_left_out_and_where_splits_come_from(tmp_path: Path):
    fill_splits(tmp_path, "train", "validation", each=40)
    put(tmp_path, {"train/cat/a.heic": b"", "train/@eaDir/x.png": b""})
    done = invoke(
        "distill", "--preset", "digits", "--dry-run", f"data={{kind: image_folder, path: {tmp_path}, img_size: 28}}"
    )
    assert done.exit_code == 0, done.stderr
    text = "".join(done.stdout.split())
    for words in (f"val: 80 images, folder {tmp_path}/validation", "1: .heic images are not read", "1: hidden"):
        assert words.replace(" ", "") in text, done.stdout


def test_a_dry_run_says_what_was_chosen_in_a_file_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import hard_ray.networks  # noqa: F401

    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"net": timm.create_model("hardray_cnn").state_dict(), "epoch": 3}, tmp_path / "t.pth")
    done = invoke("distill", "--preset", "digits", "--dry-run", "teacher.checkpoint=~/t.pth")
    assert done.exit_code == 0, done.stderr
    assert "weights the weights are the entry 'net' of the file" in " ".join(done.stdout.split())


def test_a_dry_run_of_an_output_that_holds_a_run_is_refused(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    done = invoke("distill", "--preset", "digits", "--dry-run", "--output", str(tmp_path))
    assert done.exit_code == 1
    assert "holds a run already" in done.stderr


def test_resume_takes_no_other_configuration(tmp_path: Path):
    for given in (("distill", "optim.lr=1"), ("distill", "--dry-run"), ("train-teacher", "--dry-run")):
        done = invoke(*given, "--resume", str(tmp_path))
        assert done.exit_code == 2
        assert "give nothing else" in done.stderr
    done = invoke("distill", "--resume", str(tmp_path))
    assert done.exit_code == 1
    assert "holds no run" in done.stderr


def test_an_output_that_holds_another_run_is_refused(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    done = invoke("distill", "--preset", "digits", "--output", str(tmp_path))
    assert done.exit_code == 1
    assert "holds a run already" in done.stderr


def test_an_address_that_does_not_answer_is_a_message(tmp_path: Path):
    done = subprocess.run(
        [HARDRAY, "distill", "--preset", "digits", "runtime.address=127.0.0.1:1", "--output", str(tmp_path / "r")],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no Ray cluster answers at 127.0.0.1:1" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optim.opt=adamm"], "did you mean adam"),
        (["optim.batch_size=5000"], "larger than the training split of 1297 images"),
        (["tracking.uri=./mlruns"], "tracking.uri is ./mlruns, a folder: MLflow records in folders no more"),
        (["student.model=resnett18"], "did you mean resnet18"),
        (["augmentor={kind: vae, autoencoder: {model: /no/such/folder}}"], "there is no such folder"),
        (["runtime.num_workers=64"], "the run reserves 66 CPUs"),
    ],
)
def test_a_mistake_that_is_found_before_the_start_leaves_the_output_free(
    tmp_path: Path, arguments: list[str], words: str
):
    done = invoke("distill", "--preset", "digits", "--output", str(tmp_path / "run"), *arguments)
    assert done.exit_code == 1
    assert words in " ".join(done.stderr.split())
    assert not [path for path in (tmp_path / "run").glob("*") if path.name != ".lock"]


def test_a_folder_with_one_class_is_refused(tmp_path: Path):
    root = make_image_folder(tmp_path / "data", classes=("ant",))
    done = invoke("distill", "--data", str(root), "--dry-run")
    assert done.exit_code == 1
    assert "one class only" in done.stderr


def test_continue_begins_a_run_and_goes_on_with_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from hard_ray import api
    from hard_ray.config.loader import load_config
    from hard_ray.config.safe_yaml import dump_yaml

    told: list[tuple[str, Path]] = []

    class ReachedError(HardrayError):
        pass

    def reach(verb: str, folder: Path):
        told.append((verb, folder))
        raise ReachedError(verb)

    monkeypatch.setattr(api, "distill", lambda config, folder, reporter: reach("distill", folder))
    monkeypatch.setattr(api, "resume", lambda folder, reporter: reach("resume", folder))
    run = tmp_path / "run"
    command = ("distill", "--preset", "digits", "--output", str(run), "--continue")
    assert invoke(*command).exit_code == 1
    run.mkdir()
    resolved = load_config([], preset="digits", overrides=["runtime.threads=2", "runtime.amp_dtype=float32"])
    (run / "config.yaml").write_text(dump_yaml(resolved))
    assert invoke(*command).exit_code == 1
    assert told == [("distill", run), ("resume", run)]
    other = invoke(*command, "optim.lr=0.5")
    assert other.exit_code == 2
    assert "optim.lr is 0.5, the run has" in other.stderr
    assert len(told) == 2
    assert "give --output" in invoke("distill", "--preset", "digits", "--continue").stderr


def test_a_dry_run_says_what_is_done_to_training_images():
    done = invoke("distill", "--preset", "digits", "--dry-run", "data.augment={auto_augment: v0, reprob: 0.25}")
    assert done.exit_code == 0, done.stderr
    assert "augment auto_augment v0, reprob 0.25" in " ".join(done.stdout.split())
