"""The page of a run, and its pictures, from the folder alone."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.errors import RunFolderError
from hard_ray.files import read_json, write_json, write_text
from hard_ray.reports.run.page import mean_and_deviation, write_page
from hard_ray.reports.run.pictures import write_pictures
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import read_points
from hard_ray.runs.record import shareable
from hard_ray.runs.snapshots import read_snapshot, snapshot_paths
from tests.runs.test_record import evaluation, log, run_at, switch, train
from tests.support.helpers import finished_run, tiny_config

CONFIG = tiny_config(
    "tracking.gallery_images=4",
    "optim.steps=12",
    "validate.every=0.1",
    "validate.suites=[clean,shifted]",
    "experiment.controls=[kd]",
)
VOID = {"meta", "br", "img", "hr", "input", "link"}


class Page(HTMLParser):
    """Elements, what they refer to, and the texts; a tag that is not closed where it should be is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.references += [value for key, value in attrs if key in ("src", "href", "xlink:href", "srcset", "action")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return finished_run(CONFIG, tmp_path_factory.mktemp("runs") / "digits-run")


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Page:
    return Page(write_page(run.path).read_text(encoding="utf-8"))


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_page_holds_the_results_of_the_summary(run: RunFolder, page: Page):
    models = read_json(run.summary)["models"]
    assert models.keys() == {"teacher", "kd", "student"}
    for scores in models.values():
        assert f"{scores['clean']:.1f}{scores['shifted']:.1f}" in page.text
    assert "digits-run" in page.text
    assert "student, plain KD" in page.text
    assert "Not finished" not in page.text


def test_the_page_loads_nothing_from_anywhere(run: RunFolder, page: Page):
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in page.references)
    assert any(reference.startswith("data:image/png") for reference in page.references)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    text = run.report.read_text(encoding="utf-8")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_the_page_shows_phases_parameters_and_configuration(run: RunFolder, page: Page):
    switches = [point for _, point in read_points(run.metrics) if point["kind"] == "switch"]
    assert len(switches) > 1
    assert f"{len(switches)} phase switches and their reasons" in page.text
    for point in switches:
        assert f"{point['from_update']}{point['to']}{point['reason']}" in page.text
    assert "rotation, degrees-30 to 30" in page.text
    identity = read_json(run.summary)["teacher_identity"]
    assert identity in page.text
    for place in (0, -1):
        assert mean_and_deviation("shift_x", read_snapshot(snapshot_paths(run)[place]).samples["shift_x"]) in page.text
    assert words(dump_yaml(CONFIG)) in words(page.text)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("rotation", np.radians([10.0, 20.0]), "15.0 ± 5.0"),
        ("rotation", np.radians([10.0, 40.0]), "25 ± 15"),
        ("shift_x", np.array([-0.2, 0.196]), "-0.001 ± 0.099"),
        ("other", np.array([-0.5, 0.499]), "0.00 ± 0.50"),
        ("other", np.array([2.0, 2.0]), "2.000 ± 0.000"),
        ("other", np.array([0.15789474, 0.15789475]), "0.1579 ± 0.0000"),
        ("other", np.array([4321.0, 4321.001]), "4321 ± 0"),
        ("other", np.zeros(2), "0.000 ± 0.000"),
    ],
)
def test_a_mean_has_the_places_of_its_deviation(name: str, values: np.ndarray, expected: str):
    assert mean_and_deviation(name, values) == expected


def test_a_suite_of_severities_is_a_curve_and_one_of_conditions_a_table(run: RunFolder, tmp_path: Path):
    copy = run_at(tmp_path / "copy")
    found = evaluation(70.0, teacher=98.0)
    by = {"fog": {"1": 40.0, "3": 20.0}, "snow": {"3": 50.0}}
    for suites in (found["suites"], found["teacher"]):
        suites["shifts"] = {"top1": 50.0, "by": {"shift": {"0": 70.0, "6": 30.0}}}
        suites["corruptions"] = {"top1": 50.0, "by": by}
    write_json(copy / "evaluation.json", found)
    shown = Page(write_page(copy).read_text())
    assert "shift, pixels" in shown.text
    assert "Suite corruptions by condition" in shown.text
    assert "fog30.030.0" in shown.text
    assert "snow50.050.0" in shown.text


def test_names_from_files_are_texts_and_not_markup(run: RunFolder, tmp_path: Path):
    nasty = "<script>alert('x')</script>&$"
    copy = run_at(tmp_path / "a<b>&c")
    (copy / "gallery").mkdir()
    newest = snapshot_paths(run)[-1]
    (copy / "gallery" / newest.name).write_bytes(newest.read_bytes())
    write_text(RunFolder(copy).classes, f"{nasty}\n" * 10)
    log(copy, train(5, **{"train/loss": 1.0}), {**switch(6, "augmentor"), "reason": nasty})
    text = write_page(copy).read_text()
    shown = Page(text)
    assert "script" not in shown.tags
    assert "b" not in shown.tags
    assert nasty in shown.text
    assert "<script>alert" in shown.text  # the beginning of a class name, under its picture
    assert "a<b>&c" in shown.text


def test_an_unfinished_run_says_so_and_shows_what_there_is(tmp_path: Path):
    run = run_at(tmp_path / "run", "experiment.controls=[kd]", "tracking.gallery_images=4")
    assert "Nothing has been measured yet" in Page(write_page(run).read_text()).text
    (run / "controls" / "kd").mkdir(parents=True)
    write_json(run / "controls/kd/evaluation.json", evaluation(61.5, teacher=99.0))
    log(run, train(5, **{"train/loss": 1.0}), {"kind": "val", "step": 5, "val/top1": 43.25, "val/shifted/top1": 12.0})
    text = Page(write_page(run).read_text()).text
    assert "Not finished: this page shows the 5 updates" in text
    assert "student, plain KD61.5" in text
    assert "on the validation split after 5 updates: clean 43.2 %, shifted 12.0 %" in text
    assert "student, HARD" not in text
    assert "no gallery/step-*.npz yet" in text


def test_a_run_without_pictures_has_a_page_and_no_gallery(tmp_path: Path):
    run = run_at(tmp_path / "run", "tracking.gallery_images=0")
    assert "tracking.gallery_images is 0" in Page(write_page(run).read_text()).text
    with pytest.raises(RunFolderError, match=r"has no snapshots to draw: tracking\.gallery_images is 0"):
        write_pictures(run)


def test_a_control_has_a_page_of_its_own(run: RunFolder):
    control = run.part("controls/kd")
    write_text(control.config, (run.config).read_text())
    text = Page(write_page(control.path).read_text()).text
    assert f"{read_json(control.evaluation)['suites']['clean']['top1']:.1f}" in text
    assert "Not finished" not in text


def test_a_server_is_named_without_its_user(tmp_path: Path):
    config = tiny_config("tracking.uri=postgresql://somebody@host:5000/x")
    assert shareable(config).tracking.uri == "postgresql://host:5000/x"
    run = run_at(tmp_path / "run", "tracking.uri=postgresql://somebody@host:5000/x")
    text = write_page(run).read_text()
    assert "somebody" not in text
    assert yaml.safe_load(Page(text).text.partition("The resolved configuration")[2])["seed"] == 0


def test_pictures_and_page_go_where_they_are_told_to(run: RunFolder, tmp_path: Path):
    paths = write_pictures(run.path, tmp_path / "a" / "b")
    assert [path.name for path in paths] == ["grid.png", "strip.png", "distribution.png"]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(path.name for path in paths)
    assert write_page(run.path, tmp_path / "c" / "x.html") == tmp_path / "c" / "x.html"
    assert (tmp_path / "c" / "x.html").read_text() == write_page(run.path).read_text()
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_pictures(run.path, tmp_path / "file")
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_page(run.path, tmp_path / "file" / "x.html")


def test_pictures_of_the_command_are_not_taken_for_those_of_the_training(run: RunFolder):
    before = run.pictures
    paths = write_pictures(run.path)
    assert all(path.parent == run.gallery for path in paths)
    assert run.pictures == before


def test_neither_needs_torch_ray_or_mlflow(run: RunFolder):
    code = (
        "import sys; from pathlib import Path; from hard_ray.api import gallery, report\n"
        f"run = Path({str(run.path)!r}); gallery(run); report(run)\n"
        "print([m for m in ('torch', 'ray', 'mlflow', 'timm') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_summary_holds_the_account_of_the_data(run: RunFolder):
    data = read_json(run.summary)["data"]
    assert data["splits"]["test"] == {"images": 300, "from": "split off from all images by data.split_seed 0"}
    assert data["classes"]["count"] == 10
    assert data["notes"] == []
