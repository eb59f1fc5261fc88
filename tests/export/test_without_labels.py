"""What is exported of a student of images without labels: its card and predictions; what MLflow says of its data."""

import re
from pathlib import Path

import pytest

from hard_ray.data.sources.build import build_index
from hard_ray.export.predict import predictions
from hard_ray.export.saved_model import open_model
from hard_ray.export.student import export
from hard_ray.files import read_json, write_json
from hard_ray.preparation.answers import answered_index
from hard_ray.runs.dataset import dataset_facts, dataset_input
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.summary import markdown
from tests.support.helpers import tiny_config
from tests.support.without_labels import ANSWERS, config_of, finished_without_labels, heap, saved_teacher


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("without")
    return heap(root / "images", count=60), saved_teacher(root / "teacher")


@pytest.fixture(scope="module")
def run(places: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config = config_of(*places, "optim.steps=6", "validate.suites=[clean,shifted]")
    return finished_without_labels(config, tmp_path_factory.mktemp("runs") / "heap-run")


def section(card: str, name: str) -> str:
    return card.partition(f"## {name}\n")[2].partition("\n## ")[0]


def test_the_card_says_agreement_and_that_no_image_had_a_label(run: RunFolder, tmp_path: Path):
    export(run.path, tmp_path / "e")
    card = (tmp_path / "e" / "README.md").read_text()
    assert "3 outputs, those of its teacher, trained by knowledge distillation on images without labels" in card
    assert "| suite |  | images | agreement |\n" in section(card, "Measured")
    found = read_json(run.evaluation)["suites"]["clean"]
    assert f"| clean | unchanged images | {found['n']} | {found['agreement']:.2f} |" in section(card, "Measured")
    assert "how often it is right was not measured" in section(card, "Limits")
    assert [f"{number}. {name}" for number, name in enumerate(ANSWERS)] == section(card, "Outputs").strip().split("\n")
    assert not re.search(r"top-1|ECE|\bnan\b|None|--class-map", card)


def test_the_card_of_the_best_weights_says_their_agreement(run: RunFolder, tmp_path: Path):
    export(run.path, tmp_path / "e", best=True)
    card = (tmp_path / "e" / "README.md").read_text()
    best = read_json(run.outcome)["best_agreement"]
    assert f"chosen: agreement with the teacher {best:.2f} %." in section(card, "Measured")


def test_outputs_without_names_are_numbered(places: tuple[Path, Path], tmp_path: Path):
    teacher = saved_teacher(tmp_path / "unnamed", named=False)
    run = finished_without_labels(config_of(places[0], teacher, "optim.steps=2"), tmp_path / "run")
    export(run.path, tmp_path / "e")
    card = (tmp_path / "e" / "README.md").read_text()
    assert section(card, "Outputs").strip() == "3, without names: outputs are numbered from 0."


def test_a_prediction_is_named_as_the_teacher_names_it(run: RunFolder, places: tuple[Path, Path]):
    found = list(predictions(open_model(str(run.path)), [places[0]], top=3, batch_size=16))
    assert len(found) == 60
    assert all({guess.name for guess in each.top} == set(ANSWERS) for each in found)
    assert all(ANSWERS[guess.output] == guess.name for each in found for guess in each.top)


def test_mlflows_data_set_has_no_classes_where_images_have_no_labels(places: tuple[Path, Path], tmp_path: Path):
    config = config_of(*places)
    facts = dataset_facts(config.data, answered_index(config.data, config.teacher))
    assert "classes" not in facts
    assert facts["rows"] == {"train": 48, "val": 6, "test": 6}
    write_json(tmp_path / "dataset.json", facts)
    assert "classes" not in dataset_input(read_json(tmp_path / "dataset.json")).dataset.profile
    digits = tiny_config().data
    labelled = dataset_facts(digits, build_index(digits))
    assert labelled["classes"] == 10
    assert '"classes": 10' in dataset_input(labelled).dataset.profile


def test_the_text_of_the_runs_page_in_mlflow_says_agreement(run: RunFolder, places: tuple[Path, Path]):
    text = markdown(read_json(run.summary), config_of(*places))
    assert text.startswith("On the test split, in percent: agreement with the teacher.")
    assert "top-1" not in text
