"""What `hardray recommend` refuses and prints before and after anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from hard_ray_cli.verbs.recommend import result_lines

from hard_ray.config.loader import absolute, load_config
from hard_ray.config.recommend import recommend_settings
from hard_ray.files import make_folder
from hard_ray.orchestration.recommend.driver import Recommendation
from hard_ray.preparation.recommend_folder import RECOMMENDATION, RecommendFolder
from hard_ray.runs.place import new_place
from tests.cli.commands import invoke, words
from tests.support.without_labels import VIEW, heap, saved_teacher

SMALL = ("--preset", "digits", "--suite", "clean")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--preset", "digits"), 2, "give --budget, such as --budget 20m"),
        ((*SMALL, "--budget", "20"), 2, "want a time such as 90s, 20m or 1.5h, got '20'"),
        (("--preset", "digits", "--suite", "clear", "--budget", "2m"), 2, "suites.0: Input should be 'clean'"),
        ((*SMALL, "--budget", "2m", "--images", "0"), 2, "images: Input should be greater than 0"),
        (("--resume", "x", "--budget", "2m"), 2, "--resume takes everything from its folder"),
        (("--resume", "x", "--continue"), 2, "--resume takes everything from its folder"),
        (("--resume", "/no/such/folder"), 1, "holds no recommendation"),
        ((*SMALL, "--budget", "2m", "optim.batch_size=5000"), 1, "larger than the training split"),
        ((*SMALL, "--budget", "2m", "teacher.checkpoint=/no/weights.pt"), 1, "there is no such file"),
        ((*SMALL, "--budget", "2m", "controller.l_max=0.5"), 2, "a relative l_max must exceed 1"),
        ((*SMALL, "--budget", "0.001s"), 1, "a budget of 0 s is too small: an update takes about"),
    ],
)
def test_mistakes_are_messages_and_start_nothing(tmp_path: Path, arguments: tuple[str, ...], code: int, text: str):
    output = () if "--resume" in arguments else ("--output", str(tmp_path / "r"))
    done = invoke("recommend", *arguments, *output)
    assert done.exit_code == code, done.stdout + done.stderr
    assert text in words(done.stderr)
    assert not (tmp_path / "r").exists()


def test_a_dry_run_tries_the_first_updates_and_says_the_plan(tmp_path: Path):
    done = invoke("recommend", *SMALL, "--budget", "20m", "--dry-run", "--output", str(tmp_path / "r"))
    assert done.exit_code == 0, done.stderr
    text = words(done.stdout)
    for part in (
        "hardray_cnn; without weights: trained first, outside of the budget, and cached",
        "on 200 images of the validation split: clean",
        "T. stddev of flip, crop_flip, cutout",
        "kd, labels_only, affine, policy, and the 3 of lowest T. stddev",
        "16 images of each split decoded",
        "an augmentor update (loss ",
        "rungs of at most",
    ):
        assert part in text, text
    assert not (tmp_path / "r").exists()


def test_a_url_that_holds_a_recommendation_is_refused_with_the_command_that_continues_it(tmp_path: Path):
    url = f"file://{tmp_path}/bucket/r"
    options = (*SMALL, "--budget", "20m", "--dry-run", "--output", url)
    done = invoke("recommend", *options)
    assert done.exit_code == 0, done.stderr
    assert url in "".join(done.stdout.split())
    assert not (tmp_path / "bucket").exists()
    with new_place(Path(url), print, RECOMMENDATION) as place:
        make_folder(place.folder)
        (place.folder / "settings.yaml").write_text("x: 1")
        place.send()
    done = invoke("recommend", *options)
    assert done.exit_code == 1
    assert f"holds a recommendation already; continue it with `hardray recommend --resume {url}`" in words(done.stderr)
    done = invoke("recommend", "--resume", url)
    assert done.exit_code == 1
    assert f"{url} holds no recommendation: it has no settings.yaml with its base.yaml" in words(done.stderr)


@pytest.mark.parametrize("at", ["{}/r", "file://{}/bucket/r"])
def test_a_retried_job_goes_on_with_its_recommendation_and_with_no_other(tmp_path: Path, at: str):
    output, budget = at.format(tmp_path), ("--budget", "20m", "--images", "50")
    options = ("--preset", "digits", "--suite", "clean", "--output", output, "--continue", "--dry-run")
    assert "goes on" not in words(invoke("recommend", *options, *budget).stdout)
    config = absolute(load_config(preset="digits"))
    settings = recommend_settings(budget_s=1200, suites=["clean"], images=50)
    with new_place(Path(output), print, RECOMMENDATION) as place:
        make_folder(place.folder)
        RecommendFolder(place.folder).begin(config, settings)
        place.send()
    done = invoke("recommend", *options, *budget)
    assert done.exit_code == 0, done.stderr
    assert "which holds a recommendation that goes on" in words(done.stdout)
    done = invoke("recommend", *options, "--budget", "30m", "--images", "50", "optim.lr=0.3")
    assert done.exit_code == 2
    assert "holds a recommendation of another configuration: optim.lr is 0.3" in words(done.stderr)
    done = invoke("recommend", *options, "--budget", "30m", "--images", "50")
    assert "budget_s is 1800.0, the recommendation has 1200.0; choose another --output" in words(done.stderr)
    done = invoke("recommend", "--preset", "digits", *budget, "--continue")
    assert "--continue resumes the run in --output; give --output" in words(done.stderr)


def test_something_else_at_a_url_is_no_recommendation_to_go_on_with(tmp_path: Path):
    url = f"file://{tmp_path}/bucket/r"
    with new_place(Path(url), print) as place:
        make_folder(place.folder)
        (place.folder / "config.yaml").write_text("x: 1")
        place.send()
    done = invoke("recommend", *SMALL, "--budget", "20m", "--output", url, "--continue")
    assert done.exit_code == 1
    assert f"{url} already exists and holds no recommendation; choose another --output" in words(done.stderr)


def test_a_dry_run_without_labels_has_no_student_of_labels(tmp_path: Path):
    images, teacher = heap(tmp_path / "heap", count=120), saved_teacher(tmp_path / "teacher")
    given = ("--teacher", f"local-dir:{teacher}", "--data", str(images), "data.kind=images", *VIEW)
    tiny = (
        "optim.batch_size=16",
        "student.model_kwargs={widths: [24]}",
        "tracking.enabled=false",
        "experiment.controls=[]",
    )
    options = ("--suite", "clean", "--budget", "20m", "--dry-run", "--output", str(tmp_path / "r"))
    done = invoke("recommend", "--preset", "digits", *given, *tiny, *options)
    assert done.exit_code == 0, done.stderr
    text = words(done.stdout)
    assert "images without labels; the teacher has 3 answers" in text
    assert "pilots kd, affine, policy, and the 3 of lowest T. stddev" in text


def test_the_end_says_what_to_take_why_not_and_what_was_left_out():
    conclusion = {
        "sentences": ["Take [affine]: +2.00 ± 1.00 points.", "By suite: x."],
        "warnings": ["Labels do as well."],
    }
    record = {"conclusion": conclusion, "skipped": ["seed 2 of kd and affine", "augmentor.strength=0.5 of affine"]}
    found = Recommendation(Path("r"), record, Path("r/report.html"), Path("r/recommended.yaml"))
    lines = result_lines(record, found)
    assert lines[0] == r"[bold]Take \[affine]: +2.00 ± 1.00 points.[/bold]"
    assert lines[2] == "[yellow]Labels do as well.[/yellow]"
    assert "left out for lack of time: seed 2 of kd and affine; augmentor.strength=0.5 of affine" in lines
    assert lines[-1].endswith("hardray distill -c r/recommended.yaml")
