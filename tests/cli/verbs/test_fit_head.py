"""`hardray fit-head` and `hardray probe`: what is refused at once, and what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from tests.cli.commands import invoke, words


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tower") / "cnn"
    model = timm.create_model("hardray_cnn", widths=(8, 16), num_classes=0)
    timm.models.save_for_hf(model, str(folder), safe_serialization=True)
    return f"local-dir:{folder}"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--kind", "probe"], 2, "name the tower with --tower"),
        (["--kind", "svm", "--tower", "x"], 2, "svm"),
        (["--kind", "probe", "--tower", "hardray_cnn"], 1, "the tower hardray_cnn has no weights"),
        (["--kind", "probe", "--tower", "local-dir:/no/such/folder"], 1, "there is no such folder"),
        (["--kind", "prototypes", "--tower", "{tower}", "--count", "5000"], 1, "--count 5000 is more than the 1297"),
        (["--kind", "prototypes", "--tower", "{tower}", "--entropy", "1"], 2, "entropy"),
        (["--kind", "probe", "--tower", "{tower}", "--c", "-1"], 2, "c.0"),
        (["--kind", "probe", "--tower", "{tower}", "--count", "3"], 2, "count"),
        (["--kind", "zero-shot", "--tower", "{tower}"], 2, "classes: is required"),
        (["--kind", "zero-shot", "--tower", "{tower}", "--classes", "n.txt", "--prompts", "a photo"], 2, "want one {}"),
    ],
)
def test_mistakes_are_messages_and_start_nothing(
    arguments: list[str], code: int, message: str, tower: str, tmp_path: Path
):
    given = [part.replace("{tower}", tower) for part in arguments]
    done = invoke("fit-head", "--preset", "digits", "teacher.model_kwargs={}", "--output", str(tmp_path / "t"), *given)
    assert done.exit_code == code, done.output
    assert message in words(done.stderr)
    assert "Traceback" not in done.output
    assert not (tmp_path / "t").exists()


def test_a_dry_run_prints_the_plan(tower: str, tmp_path: Path):
    output = tmp_path / "t"
    done = invoke(
        "fit-head", "--kind", "probe", "--tower", tower, "--preset", "digits", "--output", str(output), "--dry-run"
    )
    assert done.exit_code == 0, done.output
    printed = words(done.stdout)
    assert "16 features, frozen" in printed
    assert "1,797 images in 2 shards" in printed
    assert "4 images of the training split decoded" in printed
    assert not output.exists()


def test_a_probe_of_nothing_is_a_message(tmp_path: Path):
    done = invoke("probe", str(tmp_path / "none"), "--preset", "digits")
    assert done.exit_code == 1
    assert "there is no such folder" in words(done.stderr)


def test_numbers_of_a_probe_are_printed_by_split():
    from hard_ray_cli.verbs.probe import probe_lines

    result = {
        "features": 64,
        "images": {"train": 45000, "val": 5000, "test": 10000},
        "top1": {"knn": {"val": 81.25, "test": 80.5}, "linear": {"val": 84.0, "test": 83.75}},
        "knn": {"k": 20},
        "linear": {"c": 0.1},
        "notes": ["a note"],
        "folder": "runs/probe",
    }
    lines = probe_lines(result)
    assert "64 features[/bold]  45,000 training images" in lines[0]
    assert "test     k-NN 80.50 %  linear 83.75 %  (10,000 images; k 20, C 0.1)" in lines
    assert lines[-2:] == ["note     a note", "results  runs/probe"]
