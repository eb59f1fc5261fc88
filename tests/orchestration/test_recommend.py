"""A recommendation's stages in this process, its page, and once the whole command with Ray."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from hard_ray.config import recommend
from hard_ray.config.loader import load_config
from hard_ray.config.recommend import LEARNED, RecommendRun, with_teacher
from hard_ray.config.run import RunConfig
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.errors import HardrayError, RunFolderError
from hard_ray.networks.network import build_teacher, image_spec
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.recommend import measure, scores, stages
from hard_ray.orchestration.recommend.measure import held_out, measurement
from hard_ray.orchestration.recommend.record import Record
from hard_ray.orchestration.recommend.scores import Scores
from hard_ray.orchestration.recommend.stages import Stages, corrupted_images
from hard_ray.preparation import recommend_plan
from hard_ray.preparation.answers import answered_index
from hard_ray.preparation.recommend_folder import RecommendFolder, check_new_recommendation, open_recommendation
from hard_ray.preparation.recommend_gains import gains, read_answers
from hard_ray.reports.recommendation import gain_table, pilot_table, write_page
from hard_ray.runs.folder import RunFolder
from hard_ray.storage.address import Remote, is_url
from hard_ray.storage.mirror import working_copy
from tests.orchestration.commands import finish, start, succeed, wait_until, write_config
from tests.support.helpers import InProcess, KilledError, run_here, tiny_config, untrained_teacher
from tests.support.without_labels import config_of, heap, saved_teacher

SHARE = DataShare(1, 1e8)
SETTINGS = RecommendRun(budget_s=3600, suites=("clean", "shifts"), images=60)


@dataclass
class TrainsHere:
    """Trains pilots in this process."""

    pool: LocalPool
    index: ImageIndex
    dies_in: str | None = None
    """The rung in whose second pilot the process dies."""
    diverges: str | None = None
    trained: list[str] = field(default_factory=list)

    def forget(self, folder: RunFolder) -> None:
        shutil.rmtree(folder.path, ignore_errors=True)

    def train(self, folder: RunFolder, configs: Mapping[str, RunConfig], updates: int) -> dict[str, str]:
        left = {name: config for name, config in configs.items() if name != self.diverges}
        for place, (name, config) in enumerate(left.items()):
            if folder.part(name).is_finished:
                continue
            if folder.path.name == self.dies_in and place == 1:
                raise KilledError
            run_here(config, folder.part(name).path, self.pool, index=self.index)
            self.trained.append(f"{folder.path.name}/{name}")
        return {self.diverges: "the loss is nan"} if self.diverges in configs else {}


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    """Without Ray: this process reads the images. All is as short as it gets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "Pipeline", InProcess)
        patch.setattr(scores, "Pipeline", InProcess)
        patch.setattr(scores, "MOST_GROUPS", scores.FEWEST_GROUPS)
        patch.setattr(scores, "BATCH", scores.SMALL_BATCH)
        patch.setattr(recommend, "STRENGTHS", (0.5,))
        patch.setattr(recommend, "TEMPERATURES", (2.0,))
        patch.setattr(stages, "SEEDS", 2)
        patch.setattr(stages, "PROBE", 4)
        patch.setattr(recommend_plan, "FEWEST", 10)
        yield


SHORT = ("optim.steps=24", "checkpoints.every=9")


def begin(path: Path, settings: RecommendRun = SETTINGS, said: list[str] | None = None, **how: str) -> Stages:
    """The stages of a recommendation in a folder, as a start of the command makes them."""
    own = tiny_config(*SHORT)
    index = build_index(own.data)
    return stages_of(path, own, index, untrained_teacher(own, index), settings, said, **how)


def begin_without_labels(path: Path, said: list[str]) -> Stages:
    """The stages of a recommendation for images without labels, under `path`."""
    own = config_of(heap(path / "heap", count=120), saved_teacher(path / "teacher"), *SHORT, "optim.batch_size=16")
    index = answered_index(own.data, own.teacher)
    teacher = FrozenNetwork(build_teacher(own.teacher, image_spec(own.data, index.classes)))
    return stages_of(path / "r", own, index, teacher, SETTINGS, said)


def stages_of(
    path: Path,
    own: RunConfig,
    index: ImageIndex,
    teacher: FrozenNetwork,
    settings: RecommendRun,
    said: list[str] | None,
    **how: str,
) -> Stages:
    lines = [] if said is None else said
    config, folder, pool = with_teacher(own), RecommendFolder(path), LocalPool(teacher)
    folder.path.mkdir(exist_ok=True)
    folder.begin(own, settings)
    record, held = Record.read(folder), held_out(index, settings.images, seed=0)
    record.start_clock()
    slow = corrupted_images(config, settings, held, record, lines.append)
    return Stages(
        config=config,
        own=own,
        settings=settings,
        index=held,
        folder=folder,
        record=record,
        trainer=TrainsHere(pool, index, **how),
        measurement=measurement(config, held, pool, SHARE, settings.suites, slow_images=slow),
        scores=Scores(config, index, folder.scores, pool, pool.identity(), SHARE, lines.append),
        say=lines.append,
    )


@pytest.fixture(scope="module")
def finished(here: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stages, list[str]]:
    """A finished recommendation, and what it said."""
    said: list[str] = []
    made = begin(tmp_path_factory.mktemp("finished") / "r", said=said)
    made.run()
    return made, said


def read(folder: RecommendFolder) -> dict:
    return json.loads(folder.record.read_text())


def test_rungs_have_fewer_candidates_and_more_updates_and_end_with_a_configuration(
    finished: tuple[Stages, list[str]],
):
    made, said = finished
    record = read(made.folder)
    rungs = [record["rungs"][f"rung-{number}"] for number in (1, 2)]
    assert [entry["updates"] for entry in rungs] == [12, 24]  # the second is as long as the whole training
    assert [len(entry["names"]) for entry in rungs] == [2 + 3 + len(LEARNED), 2 + (3 + len(LEARNED)) // 2]
    assert {"kd", "labels_only"} <= set(rungs[1]["names"])
    first = [name for name in rungs[0]["order"] if name not in ("kd", "labels_only")]
    assert set(rungs[1]["names"]) - {"kd", "labels_only"} == set(first[: len(first) // 2])
    assert {entry["seed"] for entry in rungs} == {0}
    assert record["rungs"]["seed-2"]["seed"] == 1
    assert record["rungs"]["seed-2"]["names"] == ["kd", record["conclusion"]["best"]]
    assert [line for line in said if line.startswith("plan: rung 1: 12 updates of kd, labels_only and ")]
    conclusion = record["conclusion"]
    assert conclusion["gain"]["seeds"] == 2
    found = load_config([made.folder.recommended])
    assert found.optim == made.own.optim
    assert found.experiment == made.own.experiment
    assert found.augmentor.kind == ("identity" if conclusion["recommended"] == "kd" else conclusion["best"])


def test_pilots_of_a_rung_see_the_same_images_and_are_compared_image_by_image(finished: tuple[Stages, list[str]]):
    made, _ = finished
    record, folder = read(made.folder), made.folder
    kd, labels = (read_answers(folder.answers("rung-1", name)) for name in ("kd", "labels_only"))
    assert np.array_equal(kd["clean"].ids, np.sort(kd["clean"].ids))
    assert len(kd["clean"].ids) == 60
    assert np.array_equal(kd["shifts"].ids, labels["shifts"].ids)
    test = build_index(made.config.data).rows("test")
    assert not set(kd["clean"].ids.tolist()) & set(test.tolist())
    pilots = record["rungs"]["rung-1"]["pilots"]
    assert pilots["kd"]["update_s"] != record["rungs"]["rung-2"]["pilots"]["kd"]["update_s"]  # each rung its own
    header, rows = pilot_table(record, "rung-1")
    assert {row[header.index("ms/update")] for row in rows} == {
        f"{1000 * one['update_s']:.1f}" for one in pilots.values()
    }
    assert pilots["labels_only"]["gain"]["score"]["points"] == pytest.approx(gains([labels], [kd]).score.points)
    assert pilots["kd"]["suites"]["clean"]["top1"] == pytest.approx(100 * kd["clean"].right.mean())


def as_after_the_first_rung(finished: tuple[Stages, list[str]], path: Path) -> None:
    """A copy of the finished recommendation, without all that came after its first rung."""
    folder = RecommendFolder(shutil.copytree(finished[0].folder.path, path))
    record = read(folder)
    kept = ("probe", "rung-1")
    record["rungs"] = {name: entry for name, entry in record["rungs"].items() if name in kept}
    folder.record.write_text(json.dumps({key: value for key, value in record.items() if key != "conclusion"}))
    for rung in (folder.path / "pilots").iterdir():
        if rung.name not in kept:
            shutil.rmtree(rung)


def test_after_a_kill_finished_pilots_and_scores_are_not_made_again(finished: tuple[Stages, list[str]], tmp_path: Path):
    as_after_the_first_rung(finished, tmp_path / "r")
    killed = begin(tmp_path / "r", dies_in="rung-2")
    with pytest.raises(KilledError):
        killed.run()
    before = read(killed.folder)
    assert "order" not in before["rungs"]["rung-2"]
    write_page(killed.folder)
    assert "No recommendation yet" in killed.folder.report.read_text()
    again = begin(tmp_path / "r")
    again.run()
    after = read(again.folder)
    assert after["rungs"]["rung-1"] == before["rungs"]["rung-1"]
    assert after["scores"] == before["scores"]
    assert after["spent_s"] > before["spent_s"]
    assert not {name for name in again.trainer.trained if name.startswith(("rung-1", "probe"))}
    assert len([name for name in again.trainer.trained if name.startswith("rung-2")]) == 3
    assert "conclusion" in after
    last = begin(tmp_path / "r")
    last.run()
    assert last.trainer.trained == []
    assert read(last.folder)["conclusion"] == after["conclusion"]


def test_a_candidate_that_diverges_is_named_and_left_out(finished: tuple[Stages, list[str]], tmp_path: Path):
    as_after_the_first_rung(finished, tmp_path / "r")
    order = read(RecommendFolder(tmp_path / "r"))["rungs"]["rung-1"]["order"]
    left = next(name for name in order if name not in ("kd", "labels_only"))
    made = begin(tmp_path / "r", diverges=left)
    made.run()
    record = read(made.folder)
    assert record["rungs"]["rung-2"]["diverged"] == {left: "the loss is nan"}
    assert left not in record["rungs"]["rung-2"]["order"]
    assert record["conclusion"]["best"] not in (left, None)


def test_plain_kd_that_diverges_ends_it(tmp_path: Path):
    with pytest.raises(HardrayError, match="plain KD, which everything is compared with, has no finite loss"):
        begin(tmp_path / "r", diverges="kd").run()


def test_a_budget_for_less_than_two_pilots_is_refused_with_what_it_needs(tmp_path: Path):
    small = begin(tmp_path / "r", SETTINGS.model_copy(update={"budget_s": 0.5}))
    with pytest.raises(
        HardrayError, match=r"too small for plain KD and one candidate: .* give --budget [0-9.]+m or more"
    ):
        small.run()
    assert "conclusion" not in read(small.folder)
    assert "T. stddev" in " ".join(read(small.folder)["skipped"])  # it had no time for it either


def test_what_a_small_budget_leaves_out_is_named_in_the_record_and_on_the_page(
    finished: tuple[Stages, list[str]], tmp_path: Path
):
    as_after_the_first_rung(finished, tmp_path / "r")
    made = begin(tmp_path / "r", SETTINGS.model_copy(update={"budget_s": read(finished[0].folder)["spent_s"]}))
    made.run()
    assert made.trainer.trained == []
    skipped = " ".join(read(made.folder)["skipped"])
    for words in ("rung 2, 24 updates of kd", "seed 2 of kd and", "objective.temperature="):
        assert words in skipped
    page = write_page(made.folder).read_text()
    assert "Left out for lack of time" in page
    assert "seed 2 of kd and" in page
    assert read(made.folder)["conclusion"]["gain"]["seeds"] == 1


def test_candidates_that_were_left_after_few_updates_are_named(
    finished: tuple[Stages, list[str]], monkeypatch: pytest.MonkeyPatch
):
    made, _ = finished
    monkeypatch.setitem(made.record.values, "skipped", [])
    made._name_hasty(made._plan({}))  # 12 of 24 updates are half of the training
    assert made.record.values["skipped"] == []
    monkeypatch.setattr(stages, "RIPE_SHARE", 0.6)
    made._name_hasty(made._plan({}))
    (text,) = made.record.values["skipped"]
    behind = set(made.record.values["rungs"]["rung-1"]["order"]) - set(made.record.values["rungs"]["rung-2"]["names"])
    assert text.startswith("more than 12 of 24 updates of ")
    assert behind
    assert all(name in text for name in behind)


def test_corruptions_are_measured_on_as_many_images_as_the_budget_makes(tmp_path: Path):
    suites = ("clean", "corruptions")
    hurried = begin(tmp_path / "r", RecommendRun(budget_s=1, suites=suites, images=60), said=(said := []))
    assert hurried.record.values["corrupted_images"] == 50
    assert "corruptions are measured on 50 images" in said
    hurried.look_at_teacher()
    images = read(hurried.folder)["teacher"]["images"]
    assert images == {"clean": 60, "corruptions": 50}
    assert len(read(hurried.folder)["teacher"]["by"]["corruptions"]) == 15


def test_the_page_says_what_was_found(finished: tuple[Stages, list[str]]):
    made, _ = finished
    record = read(made.folder)
    page = write_page(made.folder).read_text()
    conclusion = record["conclusion"]
    for words in (
        f"hardray distill -c {made.folder.recommended}",
        "What there is to hand on",
        "student as it begins",
        "rung-2: 24 updates, seed 0",
        "Strength and temperature",
        "T. stddev",
    ):
        assert words in page
    for sentence in (*conclusion["sentences"], *conclusion["warnings"]):
        assert sentence.replace("'", "&#x27;") in page
    assert page.count("<svg") >= 3
    assert "http" not in page.replace("http://www.w3.org", "")


@pytest.fixture(scope="module")
def unlabelled(here: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stages, list[str]]:
    """A finished recommendation for images without labels, and what it said."""
    said: list[str] = []
    made = begin_without_labels(tmp_path_factory.mktemp("unlabelled"), said)
    made.run()
    return made, said


def test_without_labels_pilots_are_compared_by_their_agreement_with_the_teacher(unlabelled: tuple[Stages, list[str]]):
    made, said = unlabelled
    record, folder = read(made.folder), made.folder
    rung = record["rungs"]["rung-1"]
    assert record["plan"]["references"] == ["kd"]
    assert "labels_only" not in json.dumps(record)
    kd = read_answers(folder.answers("rung-1", "kd"))
    assert kd["clean"].right is None
    assert rung["pilots"]["kd"]["suites"]["clean"].keys() == {"agreement", "loss"}
    assert rung["pilots"]["kd"]["suites"]["clean"]["agreement"] == pytest.approx(100 * kd["clean"].agrees.mean())
    teacher = record["teacher"]["suites"]["shifts"]
    assert (teacher["agreement"], teacher["loss"]) == (100.0, pytest.approx(0.0, abs=1e-6))
    best = next(name for name in rung["order"] if name != "kd")
    ours = read_answers(folder.answers("rung-1", best))
    assert rung["pilots"][best]["gain"]["score"]["points"] == pytest.approx(gains([ours], [kd]).score.points)
    assert [line for line in said if line.startswith("student as it begins: agreement with the teacher clean ")]
    assert load_config([folder.recommended]).data == made.own.data


def test_without_labels_no_page_or_table_speaks_of_top_1(unlabelled: tuple[Stages, list[str]]):
    made, said = unlabelled
    record = read(made.folder)
    page = write_page(made.folder).read_text()
    tables = [pilot_table(record, "rung-1"), gain_table(record)]
    for text in (page, json.dumps(tables), json.dumps(record), *said):
        assert not re.search(r"top-?1|\bnan\b|labels only", text, re.IGNORECASE), text
    for words in ("Agreement with the teacher on held-out images", "points of agreement", "student as it begins"):
        assert words in page
    assert all(len(row) == len(header) for header, rows in tables for row in rows)
    assert len(pilot_table(record, "rung-1")[0]) == len({*pilot_table(record, "rung-1")[0]})


def test_a_folder_holds_one_recommendation(tmp_path: Path):
    check_new_recommendation(tmp_path / "r")
    folder = RecommendFolder(tmp_path / "r")
    with pytest.raises(RunFolderError, match="holds no recommendation"):
        open_recommendation(tmp_path / "r")
    folder.path.mkdir()
    folder.begin(tiny_config(), SETTINGS)
    assert open_recommendation(tmp_path / "r").begun() == (tiny_config(), SETTINGS)
    with pytest.raises(RunFolderError, match="continue it with `hardray recommend --resume"):
        check_new_recommendation(tmp_path / "r")
    folder.record.write_text('{"rungs": []}')
    with pytest.raises(RunFolderError, match="holds something else"):
        folder.read_record()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds no recommendation; choose another --output"):
        check_new_recommendation(tmp_path / "other")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("output", ["r", "file://{}/bucket/r"])
def test_the_command_stops_at_a_signal_and_a_resume_ends_it(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """At a URL, the resume is on another machine: its cache has nothing of the first one."""
    output = output.format(tmp_path)

    def here(machine: str) -> RecommendFolder:
        monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / machine))
        return RecommendFolder(working_copy(Remote.parse(output)) if is_url(output) else tmp_path / output)

    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "300000")
    config = write_config(tmp_path, "optim.steps=400", "teacher.recipe.epochs=3")
    options = ("--budget", "20m", "--suite", "clean", "--suite", "shifts", "--images", "80")
    folder = here("one")
    process = start("recommend", "-c", config, *options, "--output", output, cwd=tmp_path)
    first = folder.pilot("rung-1", "kd")
    wait_until(first.metrics.is_file, "the first rung began", process, timeout=900)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 130, out
    assert "continue with `hardray recommend --resume" in " ".join(out.split())
    before = read(folder)
    assert before["status"] == "stopped"
    folder = here("two")
    text = succeed("recommend", "--resume", output, cwd=tmp_path, timeout=1200)
    after = read(folder)
    assert (after["status"], after["scores"]) == ("finished", before["scores"])
    assert after["conclusion"]["sentences"][0] in " ".join(text.split())
    assert after["spent_s"] < 1200
    assert load_config([folder.recommended]).student.model == "hardray_mlp"
    assert folder.report.is_file()
    dry = start("distill", "-c", str(folder.recommended), "--dry-run", cwd=tmp_path)
    assert "a student update of" in finish(dry)
