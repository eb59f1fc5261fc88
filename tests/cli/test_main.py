import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hard_ray_cli.main import app
from typer.testing import CliRunner

from hard_ray.errors import HardrayError
from tests.support.helpers import make_image_folder

HARDRAY = str(Path(sys.executable).with_name("hardray"))


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_help_answers_at_once_and_imports_nothing_heavy():
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([HARDRAY, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "distill" in done.stdout
    assert min(times) < 0.5  # of a processor's time: the clock on the wall depends on what else is running
    code = (
        "import sys, hard_ray_cli.main; print([m for m in ('torch','ray','mlflow','timm','numpy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_show_prints_what_loads_back_to_the_same(tmp_path: Path):
    first = invoke("show", "--preset", "digits", "optim.lr=0.3", "seed=4")
    assert first.exit_code == 0
    path = tmp_path / "c.yaml"
    path.write_text(first.stdout)
    assert invoke("show", "-c", str(path)).stdout == first.stdout
    assert yaml.safe_load(first.stdout)["optim"]["lr"] == 0.3


def test_show_schema_is_a_json_schema_that_the_presets_satisfy():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(invoke("show", "--schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(invoke("show", "--preset", "digits").stdout), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"optim": {"lrr": 1}}, schema)


def test_shorthands_for_teacher_and_data(tmp_path: Path):
    done = invoke("show", "--teacher", "resnet50", "--data", str(tmp_path / "a b"))
    config = yaml.safe_load(done.stdout)
    assert config["teacher"]["model"] == "resnet50"
    assert config["data"]["kind"] == "image_folder"
    assert config["data"]["path"] == str(tmp_path / "a b")
    assert yaml.safe_load(invoke("show", "--data", "/x", "data.kind=parquet").stdout)["data"]["kind"] == "parquet"


def test_data_is_an_image_folder_unless_preset_file_or_override_says_otherwise(tmp_path: Path):
    sized, parquet = tmp_path / "sized.yaml", tmp_path / "parquet.yaml"
    sized.write_text("data: {img_size: 64}\n")
    parquet.write_text("data: {kind: parquet, path: /y}\n")

    def data(*arguments: str) -> tuple[str, str, int]:
        done = invoke("show", "--data", "/x", *arguments)
        assert done.exit_code == 0, done.stderr
        found = yaml.safe_load(done.stdout)["data"]
        return found["kind"], found["path"], found["img_size"]

    assert data("-c", str(sized)) == ("image_folder", "/x", 64)
    assert data("-c", str(sized), "-c", str(parquet)) == ("parquet", "/x", 224)
    assert data("--preset", "mnist-shift") == ("idx", "/x", 28)
    assert data("--preset", "mnist-shift", "-c", str(sized)) == ("idx", "/x", 64)
    assert data("--preset", "cifar10") == ("image_folder", "/x", 32)
    assert data("--preset", "digits", "data.kind=image_folder") == ("image_folder", "/x", 224)
    refused = invoke("show", "--preset", "digits", "--data", "/x")
    assert refused.exit_code == 2
    assert "data.path: unknown key here; another kind of data has it" in refused.stderr


def test_a_teacher_is_trained_on_an_image_folder_too(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("data: {img_size: 32}\n")
    root = make_image_folder(tmp_path / "data")
    options = ("--data", str(root), "--model", "resnet18", "teacher.recipe.batch_size=8", "--dry-run")
    done = invoke("train-teacher", "-c", str(tmp_path / "mine.yaml"), *options)
    assert done.exit_code == 0, done.stderr
    assert "data.kind image_folder" in done.stdout


def test_presets_are_listed_with_a_line_each():
    done = invoke("presets")
    assert done.exit_code == 0
    assert "digits" in done.stdout
    assert "HARD-Affine" in done.stdout


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
        (["optim.batch_size=5000"], "larger than the training split of 1297 images"),
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
        "1,000 student updates of 64 images = 50 epochs",
        "teacher pool: 1 CPU",
        "trained first",
        "labels_only, kd",
        "estimated",
    ):
        assert words in text, text
    assert list(tmp_path.iterdir()) == []


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


def test_ui_without_runs_says_what_to_give(tmp_path: Path):
    done = invoke("ui", "--runs", str(tmp_path))
    assert done.exit_code == 1
    assert "holds no mlflow.db" in done.stderr


@pytest.mark.parametrize("command", ["sync", "gallery", "report"])
def test_what_is_done_with_a_run_wants_a_run(tmp_path: Path, command: str):
    done = invoke(command, str(tmp_path))
    assert done.exit_code == 1
    assert "holds no run" in done.stderr


def test_a_folder_with_one_class_is_refused(tmp_path: Path):
    root = make_image_folder(tmp_path / "data", classes=("ant",))
    done = invoke("distill", "--data", str(root), "--dry-run")
    assert done.exit_code == 1
    assert "one class only" in done.stderr


def test_version():
    assert invoke("--version").stdout.startswith("hardray 0.")


def test_mistakes_in_the_options_of_an_autoencoder_are_one_message_and_start_nothing(tmp_path: Path):
    output = tmp_path / "ae"
    command = ("train-autoencoder", "--kind", "kl", "--preset", "digits", "--output", str(output))
    done = invoke(*command, "--steps", "0", "--lr", "-1", "--widths", "8,x", "--codes", "9")
    assert done.exit_code == 2
    text = " ".join(done.stderr.split())
    assert "4 problems in the options" in text
    for key in ("training.steps", "training.lr", "training.widths.1", "training.codes"):
        assert key in text
    assert invoke(*command, "--batch-size", "5000").exit_code == 1
    assert not output.exists()


def test_a_folder_that_is_no_unfinished_autoencoder_is_refused(tmp_path: Path):
    command = ("train-autoencoder", "--kind", "vq", "--preset", "digits", "--output", str(tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    done = invoke(*command)
    assert done.exit_code == 1
    assert "holds no autoencoder of hardray's" in " ".join(done.stderr.split())
    (tmp_path / "training.yaml").write_text("seed: 0")
    (tmp_path / "result.json").write_text('{"psnr": 21.5}')
    done = invoke(*command)
    assert done.exit_code == 1
    assert "holds a finished autoencoder (21.50 dB)" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--augmentors", "identity,affine"], 2, "kind affine learns from a student"),
        (["--augmentors", "cutmix,cutmix"], 2, "'cutmix' stands twice"),
        (["--augmentors", "strong={kind: rand_augment, magnitude: 99}"], 2, "augmentors.strong.magnitude"),
        (["--augmentors", "strong={kind: [}"], 2, "not valid YAML"),
        (["--groups", "1"], 2, "groups"),
        (["--losses", "/no/such/file.json"], 2, "cannot be read as JSON"),
        (["--batch-size", "5000"], 1, "larger than the training split of 1297 images"),
        (["teacher.checkpoint=/no/weights.pt"], 1, "there is no such file"),
    ],
)
def test_mistakes_in_a_comparison_of_augmentations_are_messages_and_start_nothing(
    tmp_path: Path, arguments: list[str], code: int, words: str
):
    done = invoke("score-augmentations", "--preset", "digits", "--output", str(tmp_path / "s"), *arguments)
    assert done.exit_code == code, done.stdout + done.stderr
    assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "s").exists()


def test_scores_are_a_table_that_says_what_is_noise():
    from hard_ray_cli.verbs.score_augmentations import score_lines, score_table
    from rich.console import Console

    facts = {"t_stddev": 0.00415, "standard_error": 0.00012, "behind": 0.0, "behind_error": 0.0, "is_tied": True}
    near = {**facts, "t_stddev": 0.0042, "behind": 0.00005, "behind_error": 0.00004}
    far = {**facts, "t_stddev": 0.0055, "behind": 0.00135, "behind_error": 0.00006, "is_tied": False}
    scores = {"cutmix_pick": facts, "cutmix": near, "identity": far}
    result = {"scores": scores, "groups": 80, "iterations": 5, "batch_size": 64, "correlation": {"pearson": 0.958}}
    console = Console(width=80, record=True)
    console.print(score_table(result))
    first, second, third = [line for line in console.export_text().splitlines() if "±" in line]
    assert "4.150 ± 0.120" in first and "noise" not in first
    assert "0.050 ± 0.040" in second and "within noise" in second
    assert "1.350 ± 0.060" in third and "noise" not in third
    text = " ".join(score_lines(result, Path("s")))
    assert "80 groups of 640 images" in text and "0.958" in text


def test_a_checkpoint_that_is_not_there_cannot_be_imported(tmp_path: Path):
    done = invoke("import-teacher", str(tmp_path / "w.pt"), "--model", "resnet18", "--output", str(tmp_path / "t"))
    assert done.exit_code == 1
    assert "there is no such file" in " ".join(done.stderr.split())


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
