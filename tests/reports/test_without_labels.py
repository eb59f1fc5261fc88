"""The pages, pictures and comparisons of runs on images without labels: agreement, and nothing that needs labels."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from cli.verbs.compare import tables_of
from hard_ray.config.loader import load_config
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.files import read_json, write_json
from hard_ray.reports.comparison.groups import read_comparison
from hard_ray.reports.comparison.page import write_comparison
from hard_ray.reports.comparison.tables import by_condition, results, t_tests
from hard_ray.reports.evaluation_plots import draw_evaluation
from hard_ray.reports.gallery import draw_gallery, draw_generated, draw_strip, titles_of
from hard_ray.reports.run.page import write_page
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.record import read_record
from hard_ray.runs.snapshots import Guesses, read_snapshot, snapshot_paths
from tests.reports.test_run_page import Page
from tests.support.compared import finished
from tests.support.without_labels import ANSWERS, config_of, finished_without_labels, heap, saved_teacher

NEEDS_LABELS = re.compile(r"[Tt]op-?1|\b(ECE|ece|nan|None|mCE|[Aa]ccuracy)\b")
"""Words that say something of labels, or of a number that does not exist."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("without")
    places = heap(root / "images", count=80), saved_teacher(root / "teacher")
    config = config_of(
        *places,
        "tracking.gallery_images=4",
        "optim.steps=12",
        "validate.every=0.1",
        "validate.suites=[clean,shifted]",
        "validate.final=[corruptions]",
        "experiment.controls=[kd]",
        "augmentor.kind=affine",
    )
    return finished_without_labels(config, root / "heap-run")


def texts_of(figure) -> str:
    from matplotlib.text import Text

    return " | ".join(text.get_text() for text in figure.findobj(Text))


def test_the_page_of_a_run_says_agreement_and_nothing_of_labels(run: RunFolder):
    page = Page(write_page(run.path).read_text(encoding="utf-8"))
    shown = page.text.partition("Provenance")[0]
    assert "Agreement with the teacher on the test split, percent." in shown
    assert not NEEDS_LABELS.search(shown)
    agreement = read_json(run.summary)["models"]["student"]["clean"]
    assert f"{agreement:.1f}" in shown


def test_the_page_of_a_run_that_goes_on_says_what_its_number_is(run: RunFolder, tmp_path: Path):
    going_on = tmp_path / "going-on"
    shutil.copytree(run.path, going_on)
    for name in ("summary.json", "evaluation.json", "outcome.json"):
        (going_on / name).unlink()
    shown = Page(write_page(going_on).read_text(encoding="utf-8")).text
    last = read_record(going_on).of_kind("val")[-1]
    assert f"updates: agreement with the teacher, clean {last['val/agreement']:.1f} %, shifted" in shown
    assert "student, plain KD" in shown  # the control has ended


def test_a_later_evaluation_has_no_column_for_what_needs_labels(run: RunFolder, tmp_path: Path):
    measured = tmp_path / "measured"
    shutil.copytree(run.path, measured)
    found = read_json(run.evaluation)
    RunFolder(measured).later_evaluation.mkdir()
    write_json(RunFolder(measured).later_evaluation / "evaluation.json", found)
    text = write_page(measured).read_text(encoding="utf-8")
    table = text.partition("<h2>Evaluation</h2>")[2].partition("</table>")[0]
    assert re.findall("<th>(.*?)</th>", table) == ["suite", "agreement", "images"]
    figures = draw_evaluation(found)
    assert "reliability" not in figures
    assert "corruptions" in figures
    assert "agreement, %" in texts_of(figures["corruptions"])
    assert not any(NEEDS_LABELS.search(texts_of(figure)) for figure in figures.values())


def test_above_an_image_without_a_label_is_the_teachers_prediction(run: RunFolder):
    snapshot = read_snapshot(snapshot_paths(run)[-1])
    assert set(snapshot.labels.tolist()) == {-1}
    titles = titles_of(snapshot.labels, snapshot.original.teacher, ANSWERS)
    assert titles == [f"T {ANSWERS[number]}" for number in snapshot.original.teacher.classes]
    for figure in (draw_gallery(snapshot, ANSWERS), draw_strip([snapshot], ANSWERS)):
        assert all(title in texts_of(figure) for title in titles)
    some = np.array([2, -1, 0, -1])
    mixed = titles_of(some, snapshot.original.teacher, ANSWERS)
    assert (mixed[0], mixed[2]) == ("neither", "left")
    assert mixed[1] == titles[1]


def test_generated_images_are_compared_with_the_answer_on_the_original():
    images = np.zeros((2, 1, 4, 4), dtype=np.uint8)
    before = Guesses(np.array([1, 2]), np.array([0.9, 0.8], np.float32))
    after = Guesses(np.array([1, 0]), np.array([0.7, 0.6], np.float32))
    stages = {"original": (images, before), "reconstructed": (images, before), "generated": (images, after)}
    figure = draw_generated(stages, np.array([-1, -1]), ANSWERS, heading="h")
    axes = figure.axes
    assert [axis.get_title() for axis in axes[:2]] == ["T right", "T neither"]
    colours = [axis.xaxis.label.get_color() for axis in axes[:6]]
    assert len(set(colours[:5])) == 1
    assert colours[5] != colours[0]  # the teacher gave up its answer for the second image alone


# ---------------------------------------------------------------------- comparisons


HEAP = ("data.kind=images", "data.path=/heap", "data.img_size=16", "teacher.model=local-dir:/teacher")
KD = ("objective.kind=kd", "objective.alpha=1", "augmentor.kind=identity")


def configured(path: Path, *overrides: str) -> Path:
    """The run folder with another configuration; nothing is read from its paths."""
    (path / "config.yaml").write_text(dump_yaml(load_config(overrides=overrides)))
    return path


def of_agreement(path: Path, value: float, *overrides: str, teacher: str = "t") -> Path:
    """A finished run without labels whose student agrees with its teacher on so many percent."""
    finished(path, teacher=teacher, clean=value)
    clean = {"n": 300, "agreement": value, "loss": 1.0}
    shifted = {**clean, "agreement": value - 10, "by": {"shift": {"2": value - 5, "5": value - 15}}}
    suites = {"clean": clean, "shifted": shifted}
    write_json(path / "evaluation.json", {"split": "test", "suites": suites, "teacher": {}})
    text = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(text.replace("val/top1", "val/agreement"))
    return configured(path, *HEAP, *overrides)


def test_runs_without_labels_are_compared_by_agreement(tmp_path: Path):
    paths = []
    for seed in (0, 1):
        for name, value in (("kd", 60.0), ("hard", 70.0)):
            more = [f"seed={seed}", *(KD if name == "kd" else [])]
            paths.append(of_agreement(tmp_path / f"{name}-s{seed}", value + seed * (1 if name == "kd" else 1.5), *more))
    comparison = read_comparison(paths)
    assert comparison.measure == "agreement"
    header, body = results(comparison)
    assert header == ["runs", "seeds", "clean", "shifted", "s/update", "updates"]
    assert body[0][2] == "60.5 (60.0 to 61.0)"
    assert t_tests(comparison)[0][0] == "difference of agreement"
    assert [pair.found.difference for pair in comparison.pairs] == pytest.approx([10.25, 10.25])
    assert by_condition(comparison, "shifted")["kd"] == {"shift": {"2": 55.5, "5": 45.5}}
    assert not any(NEEDS_LABELS.search(title) for title in tables_of(comparison))
    written = write_comparison(paths)
    assert not NEEDS_LABELS.search(Page(written.page.read_text(encoding="utf-8")).text)
    numbers = read_json(written.numbers)
    assert numbers["measure"] == "agreement"
    assert numbers["groups"][0]["metrics"]["agreement/clean"]["mean"] == 60.5
    assert not comparison.warnings


def test_runs_with_and_without_labels_are_compared_by_agreement_which_is_said(tmp_path: Path):
    labelled = finished(tmp_path / "labelled", clean=80.0, shifted=70.0)
    heap_run = of_agreement(tmp_path / "heap", 60.0)
    comparison = read_comparison([labelled, heap_run])
    assert comparison.measure == "agreement"
    values = {run.name: run.values() for run in comparison.runs}
    assert values["labelled"]["agreement/clean"] == 79.0  # the suite's agreement, not its top-1
    assert values["heap"]["agreement/clean"] == 60.0
    (said,) = [text for text in comparison.warnings if "Not every run has labels" in text]
    assert "labelled" in said
    assert set(by_condition(comparison, "shifted")) == {"heap"}


def test_agreements_with_different_teachers_are_not_tested(tmp_path: Path):
    paths = [
        of_agreement(tmp_path / f"{name}-s{seed}", value + seed, f"seed={seed}", *more, teacher=name)
        for name, value, more in (("one", 60.0, []), ("two", 70.0, ["optim.lr=0.01"]))
        for seed in (0, 1)
    ]
    comparison = read_comparison(paths)
    assert not comparison.pairs
    assert any("different teachers" in text for text in comparison.warnings)


def test_a_run_that_goes_on_says_agreement(tmp_path: Path):
    paths = [of_agreement(tmp_path / name, 60.0) for name in ("one", "two")]
    for name in ("evaluation.json", "outcome.json"):
        (paths[0] / name).unlink()
    states = read_comparison(paths).states
    assert "one is not finished: 60 updates have been logged; 58.0 % agreement on clean images" in states[0]


def test_labelled_runs_are_compared_as_ever(tmp_path: Path):
    paths = [finished(tmp_path / name, clean=80.0) for name in ("one", "two")]
    numbers = read_json(write_comparison(paths).numbers)
    assert "measure" not in numbers
    assert set(numbers["groups"][0]["metrics"]) == {"top1/clean", "agreement", "ece", "seconds_per_update", "updates"}


def test_images_that_are_only_trained_on_do_not_make_numbers_incomparable(tmp_path: Path):
    folder = ["data.kind=image_folder", "data.path=/birds", "data.img_size=16"]
    more = ["data.unlabelled.kind=images", "data.unlabelled.path=/heap"]
    alone = configured(finished(tmp_path / "alone", clean=60.0), *folder)
    both = configured(finished(tmp_path / "both", clean=70.0), *folder, *more)
    paths = [alone, both]
    assert not any("different images" in text for text in read_comparison(paths).warnings)
