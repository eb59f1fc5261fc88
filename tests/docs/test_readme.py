"""Every command in the README is real: each is run here, and long ones up to the point where training would start."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from hard_ray.config.autoencoder_training import AutoencoderRun
from hard_ray.config.evaluation import EvaluationConfig
from hard_ray.config.generation import GenerationConfig
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.scoring import DEFAULT_AUGMENTORS, ScoreRun
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index
from hard_ray.errors import HardrayError
from hard_ray.export.target import Target
from hard_ray.files import write_json
from hard_ray.networks.network import build_teacher, image_spec
from hard_ray.orchestration import score_augmentations as score
from hard_ray.orchestration import train_autoencoder as autoencoder
from hard_ray.orchestration.evaluate import job as orchestration_evaluate
from hard_ray.orchestration.generate import job as orchestration_generate
from hard_ray.orchestration.train_autoencoder import check_output
from hard_ray.preparation.folders import AutoencoderFolder
from tests.cli.commands import HARDRAY, invoke
from tests.support.compared import finished
from tests.support.helpers import make_image_folder, run_here, tiny_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands of the README's bash blocks and of its tables."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return lines + re.findall(r"^\| `(hardray [^`]*)` \|", README, flags=re.MULTILINE)


def test_the_readme_has_commands_and_their_make_targets_exist():
    found = commands()
    assert {"make demo", "make test"} <= set(found)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {command.split()[1] for command in found if command.startswith("make ")} <= set(targets)
    assert {command.split()[0] for command in found} == {"make", "hardray"}


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands find what they name."""
    place = tmp_path_factory.mktemp("readme")
    make_image_folder(place / "data/birds", per_class=70)
    save_file(timm.create_model("resnet50", num_classes=2).state_dict(), place / "t.safetensors")
    (place / "my.yaml").write_text("data: {kind: image_folder, img_size: 32}\noptim: {batch_size: 16}\n")
    return place


def runnable(command: str, place: Path) -> list[str]:
    """The arguments, with the README's absolute folder below `place`."""
    return shlex.split(command.replace("/data/birds", str(place / "data/birds")))[1:]


TRAININGS = [c for c in commands() if re.match(r"hardray (distill|train-teacher)", c) and "--resume" not in c]


@pytest.mark.parametrize("command", TRAININGS)
def test_trainings_pass_every_check(command: str, birds: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(birds)
    done = invoke(*runnable(command, birds), "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert re.search("(student|teacher) updates", done.stdout)


@pytest.mark.parametrize("command", [c for c in commands() if re.match(r"hardray (show|presets|doctor|tune)", c)])
def test_commands_that_print_end_well(command: str, birds: Path):
    done = invoke(*runnable(command, birds))
    assert done.exit_code == 0, done.stdout + done.stderr
    assert len(done.stdout) > 100


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("hardray train-autoencoder")])
def test_train_autoencoder_commands_describe_a_training(command: str, birds: Path, monkeypatch: pytest.MonkeyPatch):
    trained = []

    def train(run: AutoencoderRun, output: Path, **_: object) -> dict:
        trained.append(run)
        check_output(AutoencoderFolder(output))
        assert len(build_index(run.data).rows("train")) == 140
        return {"psnr": 20.0, "images": 8, "parameters": 1, "seconds": {"training": 1.0}}

    monkeypatch.chdir(birds)
    monkeypatch.setattr(autoencoder, "train_autoencoder", train)
    done = invoke(*runnable(command, birds))
    assert done.exit_code == 0, done.stderr
    assert len(trained) == 1
    assert "20.00 dB on 8 validation images" in done.stdout


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("hardray score-augmentations")])
def test_score_augmentations_commands_describe_a_comparison(command: str, birds: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    @contextmanager
    def asking(config: RunConfig, run: ScoreRun, index: ImageIndex, _: object) -> Iterator[None]:
        assert len(index.rows("train")) == 140
        asked.append((config, run))
        raise HardrayError("here the teacher would be asked")
        yield

    monkeypatch.chdir(birds)
    monkeypatch.setattr(score, "asking", asking)
    done = invoke(*runnable(command, birds))
    assert "here the teacher would be asked" in done.stderr
    ((config, run),) = asked
    assert tuple(run.augmentors) == DEFAULT_AUGMENTORS
    assert config.teacher.model == "resnet50"


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("hardray import-teacher")])
def test_import_teacher_commands_make_a_teacher(command: str, birds: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(birds)
    torch.save({"model": timm.create_model("resnet50", num_classes=2).state_dict()}, birds / "t.pth")
    (birds / "names.txt").write_text("ant\nbee\n")
    done = invoke(*runnable(command, birds))
    assert done.exit_code == 0, done.stderr
    assert (birds / "teachers/birds/config.json").is_file()


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("hardray generate")])
def test_generate_commands_describe_a_set(command: str, birds: Path, monkeypatch: pytest.MonkeyPatch):
    made = []

    def make(config: RunConfig, generation: GenerationConfig, output: Path, say: object, mirror: object) -> dict:
        assert mirror is None
        made.append(generation)
        index = build_index(config.data)
        assert len(index.rows("train")) == 140
        assert build_teacher(config.teacher, image_spec(config.data, index.classes)).model.num_classes == 2
        top1 = {"clean": 90.0, "reconstructed": 80.0, "generated": 70.0}
        manifest = {"images": 140, "shards": [{}], "distance": 0.04, "top1": top1, "bad_images": [], "split": "train"}
        return {**manifest, "settings": {"norm": "l2", "eps": 0.1}}

    monkeypatch.chdir(birds)
    monkeypatch.setattr(orchestration_generate, "generate", make)
    done = invoke(*runnable(command, birds))
    assert done.exit_code == 0, done.stderr
    assert made[0].autoencoder.model == "local-dir:autoencoders/birds-vq"
    assert "140 images in 1 shards" in done.stdout
    assert "augmentor.kind=generated augmentor.path=generated/birds" in done.stdout


@pytest.fixture(scope="module")
def tracked(birds: Path) -> Path:
    """A finished run in `runs/birds` that was not sent to MLflow."""
    folder = birds / "runs/birds"
    config = tiny_config("tracking.enabled=true", "tracking.gallery_images=2", "optim.steps=4")
    run_here(config, folder)
    (folder / "config.yaml").write_text(dump_yaml(config))
    write_json(folder / "summary.json", {})
    return folder


def test_sync(tracked: Path, birds: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(birds)
    assert "hardray sync runs/birds" in commands()
    done = invoke("sync", "runs/birds")
    assert done.exit_code == 0, done.stderr
    assert "is up to date" in done.stdout


@pytest.mark.parametrize(
    ("command", "made"),
    [
        ("hardray report runs/birds", ["report.html"]),
        ("hardray gallery runs/birds", ["gallery/grid.png", "gallery/strip.png", "gallery/distribution.png"]),
    ],
)
def test_report_and_gallery(command: str, made: list[str], tracked: Path, birds: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(birds)
    assert command in commands()
    done = invoke(*runnable(command, birds))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [str(tracked / name) for name in made]
    assert all((tracked / name).stat().st_size > 10_000 for name in made)


def test_evaluate(tracked: Path, birds: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(birds)
    (command,) = [c for c in commands() if c.startswith("hardray evaluate")]
    told: list[tuple[Target, EvaluationConfig, Path]] = []

    def evaluate(target: Target, evaluation: EvaluationConfig, output: Path, **_: object) -> dict:
        told.append((target, evaluation, output))
        score = {"top1": 50.0, "ece": 1.0, "n": 10}
        return {"split": "test", "suites": dict.fromkeys(evaluation.names, score), "teacher": {}}

    monkeypatch.setattr(orchestration_evaluate, "evaluate", evaluate)
    done = invoke(*runnable(command, birds))
    assert done.exit_code == 0, done.stderr
    ((target, evaluation, output),) = told
    assert evaluation.names == ("clean", "corruptions", "adversarial")
    assert target.run is not None
    assert output == tracked / "evaluation"
    assert "50.00" in done.stdout


def test_compare(birds: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(birds)
    (command,) = [c for c in commands() if c.startswith("hardray compare")]
    for name, seed, lr in (("hard", 0, 1), ("hard", 1, 1), ("kd", 0, 2), ("kd", 1, 2)):
        finished(birds / f"runs/{name}-s{seed}", f"seed={seed}", f"optim.lr={lr}", clean=90.0 + seed * lr)
    done = invoke(*runnable(command, birds))
    assert done.exit_code == 0, done.stderr
    assert "kd - hard" in done.stdout
    assert (birds / "runs/compare.html").is_file()


def test_export_and_predict(tracked: Path, birds: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(birds)
    exporting, predicting = (next(c for c in commands() if c.startswith(f"hardray {v}")) for v in ("export", "predict"))
    done = invoke(*runnable(exporting, birds))
    assert done.exit_code == 0, done.stderr
    assert (birds / "exports/birds/model.onnx").is_file()
    done = invoke(*runnable(predicting, birds))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count(" %  ") == 3 * 8


@pytest.mark.slow
def test_ui(tracked: Path, birds: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(birds)
    assert "hardray ui" in commands()
    assert invoke("sync", "runs/birds").exit_code == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([HARDRAY, "ui", "--port", str(port)], start_new_session=True)
    try:
        assert b"<title>MLflow</title>" in page(f"http://127.0.0.1:{port}/")
    finally:
        os.killpg(server.pid, signal.SIGINT)  # what Ctrl-C sends
        server.wait(timeout=60)


def page(url: str, patience_s: float = 200.0) -> bytes:
    """The answer of a server, once it answers."""
    end = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def test_a_resume_without_a_run_is_the_only_thing_wrong_with_the_readmes_resume(tmp_path: Path):
    (command,) = [c for c in commands() if "--resume" in c]
    done = invoke(*shlex.split(command)[1:])
    assert done.exit_code == 1
    assert "holds no run" in done.stderr
