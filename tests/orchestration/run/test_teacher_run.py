"""`hardray train-teacher` without Ray: its configuration and its messages."""

from pathlib import Path

import pytest
import timm
import torch
from hard_ray_cli.main import app
from hard_ray_cli.verbs.train_teacher import recipe_line, teaching_line
from typer.testing import CliRunner

from hard_ray.config.loader import load_config
from hard_ray.config.networks import TeacherConfig
from hard_ray.config.run import asks_teacher
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.teacher_training import load_teacher_config, teacher_run, teacher_training
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.teacher_cache import cached_teacher
from hard_ray.errors import ConfigError, HardrayError
from hard_ray.files import read_json
from hard_ray.networks.network import ImageSpec, build_teacher
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.run import driver
from hard_ray.orchestration.run.driver import RunResult
from hard_ray.orchestration.run.plan import RunPlan
from hard_ray.preparation.checks import examine
from hard_ray.ranks import Ranks
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.summary import summarise
from tests.networks.test_network import saved_by_timm
from tests.support.helpers import TINY, LocalBuilder, assert_equal_bits, student_weights, tiny_config

RECIPE = ("teacher.recipe.steps=6", "teacher.recipe.batch_size=32", "teacher.recipe.seed=3")
DIGITS = ImageSpec(16, 1, tuple("0123456789"))
KWARGS = {"widths": [4, 8]}


def train_here(run, folder: Path, role: str = "main") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plan = RunPlan("test", role, run, folder)
    parts = (plan, build_index(run.data), Ranks(), torch.device("cpu"), DataShare(1, 1e8), folder / "stop")
    LocalBuilder(*parts, None).train()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_here(teacher_run(tiny_config(*RECIPE, "validate.final=[shifted]")), folder)
    return folder


def test_a_teacher_from_nothing_has_the_bits_of_the_one_that_distill_caches(trained: Path, tmp_path: Path):
    torch.set_num_threads(1)
    train_here(teacher_training(tiny_config(*RECIPE)), tmp_path / "cached", role="teacher")
    assert_equal_bits(student_weights(trained), student_weights(tmp_path / "cached"))


def test_the_run_asks_no_teacher_and_loads_back_to_the_same(tmp_path: Path):
    run = teacher_run(tiny_config(*RECIPE, "experiment.controls=[kd]", "experiment.name=mine"))
    assert not asks_teacher(run)
    assert not run.teacher.has_weights
    assert (run.seed, run.optim.steps, run.experiment.name, run.experiment.controls) == (3, 6, "mine", ())
    (tmp_path / "c.yaml").write_text(dump_yaml(run))
    assert load_config([tmp_path / "c.yaml"]) == run


def test_the_folder_is_a_runs_and_its_student_a_teacher_for_distill(trained: Path):
    folder = RunFolder(trained)
    assert set(read_json(folder.evaluation)["suites"]) == {"clean", "shifted"}
    assert folder.metrics.is_file() and folder.best.is_dir()
    assert "trained on labels with hardray" in (folder.student / "README.md").read_text()
    given = TeacherConfig(model="hardray_cnn", checkpoint=folder.student, model_kwargs=KWARGS)
    teacher = build_teacher(given, DIGITS)
    weights = student_weights(trained)
    for key, value in teacher.model.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_weights_for_seven_classes_are_fine_tuned_to_ten(tmp_path: Path):
    folder = saved_by_timm(tmp_path / "seven", list("abcdefg"), name="hardray_cnn", in_chans=1, **KWARGS)
    still = ("teacher.recipe.lr=1e-20", "teacher.recipe.warmup_lr=1e-20", "teacher.recipe.steps=1")
    overrides = [*TINY, *RECIPE, *still, f"teacher.checkpoint={folder}"]
    config = load_teacher_config(preset="digits", overrides=overrides)
    with pytest.raises(HardrayError, match="has 7 outputs, the data has 10 classes; fine-tune the teacher"):
        examine(config)
    run = teacher_run(config)
    _, network, _ = examine(run, role="teacher")
    assert network.has_new_head
    train_here(run, tmp_path / "run")
    before, after = (
        timm.create_model(f"local-dir:{folder}", pretrained=True, **KWARGS),
        student_weights(tmp_path / "run"),
    )
    for key, value in before.named_parameters():
        if key.startswith("head."):
            assert after[key].shape[0] == 10
        else:
            torch.testing.assert_close(after[key], value.detach(), rtol=0, atol=1e-15)
    given = TeacherConfig(model="hardray_cnn", checkpoint=tmp_path / "run/student", model_kwargs=KWARGS)
    assert build_teacher(given, DIGITS).model.num_classes == 10


def test_messages_name_the_teacher(tmp_path: Path):
    config = tiny_config("teacher.checkpoint=/no/weights.pt")
    with pytest.raises(HardrayError, match="there is no such file"):
        driver.train_teacher(config, tmp_path / "run")
    with pytest.raises(HardrayError, match="teacher.model resnett18: timm knows no such model"):
        driver.train_teacher(tiny_config("teacher.model=resnett18"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"optim.batch_size 63 cannot be divided among runtime.num_workers 2"):
        weights = ("teacher.pretrained=true", "teacher.recipe.batch_size=63", "runtime.num_workers=2")
        teacher_run(tiny_config(*weights))
    assert not (tmp_path / "run").exists()


def test_the_cache_of_teachers_does_not_know_the_new_head():
    config = tiny_config()
    index = build_index(config.data)
    assert cached_teacher(config, index) == cached_teacher(tiny_config("student.new_head=true"), index)


def test_a_dry_run_prints_the_recipe_and_the_plan_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    weights = saved_by_timm(tmp_path / "seven", list("abcdefg"), name="hardray_cnn", in_chans=1)
    command = ["train-teacher", "--preset", "digits", "--dry-run", f"teacher.checkpoint={weights}"]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stdout.split())
    for words in (
        "teacher hardray_cnn: fine-tuned by adamw, lr 0.0001, weight decay 0.05, 10 epochs in batches of 64",
        "with a new head for 10 classes",
        "200 teacher updates of 64 images = 10 epochs",
        "seed 0",
    ):
        assert words in text, text
    assert "trained first" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["seven"]
    done = CliRunner().invoke(app, ["train-teacher", "--preset", "digits", "--dry-run"], env={"COLUMNS": "160"})
    assert "teacher hardray_cnn: trained from scratch by adamw, lr 0.002" in " ".join(done.stdout.split())


def test_the_command_ends_with_what_distill_wants(trained: Path):
    run = teacher_run(tiny_config(*RECIPE))
    result = RunResult(trained, run, summarise(RunFolder(trained), run, build_index(run.data)), None, None)
    line = teaching_line(result, ["--preset", "digits", "data.img_size=16"])
    assert line.startswith("teach    hardray distill --preset digits data.img_size=16 teacher.model=hardray_cnn ")
    assert f"teacher.checkpoint={trained / 'student'}" in line
    assert """'teacher.model_kwargs={"widths": [4, 8]}'""" in line
    assert recipe_line(tiny_config(*RECIPE)).startswith("teacher hardray_cnn: trained from scratch by adamw")


def test_resume_takes_no_other_configuration_and_wants_a_run(tmp_path: Path):
    done = CliRunner().invoke(app, ["train-teacher", "--resume", str(tmp_path), "--pretrained"])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["train-teacher", "--resume", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds no run" in done.stderr


def test_a_run_on_labels_names_no_teacher_on_its_page(trained: Path):
    from hard_ray.files import write_text
    from hard_ray.reports.run.page import write_page

    run = teacher_run(tiny_config(*RECIPE))
    write_text(RunFolder(trained).config, dump_yaml(run))
    assert "hardray_cnn from labels" in write_page(trained).read_text()
