"""An evaluation's folder and numbers; most of it in this process, once with Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.verbs.evaluate import result_table
from hard_ray.config.evaluation import evaluation_settings
from hard_ray.config.run import RunConfig
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.data.pictures import EvalPictures
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.teacher_cache import cached_teacher
from hard_ray.errors import DataError, ModelError, RunFolderError, TeacherError
from hard_ray.evaluation.corruptions import Corruption, sample_of
from hard_ray.evaluation.plan import SuitePlan, plan_suite
from hard_ray.export.target import Target, target_of
from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network
from hard_ray.files import read_json, write_json, write_text
from hard_ray.networks.network import Network, build_student, build_teacher, image_spec
from hard_ray.orchestration import network_actors
from hard_ray.orchestration.cluster.demand import DATA_CPUS
from hard_ray.orchestration.cluster.resources import Cluster
from hard_ray.orchestration.evaluate import job as evaluate
from hard_ray.orchestration.evaluate.actors import EvaluationActor
from hard_ray.orchestration.evaluate.job import Evaluation
from hard_ray.preparation.answers import answered_index
from hard_ray.runs.folder import RunFolder
from tests.support.helpers import make_image_folder, tiny_config
from tests.support.without_labels import config_of, heap, saved_teacher


def saved(folder: Path, config: RunConfig, role: str) -> Network:
    """A network with random weights, in timm's layout."""
    index = build_index(config.data)
    torch.manual_seed(len(role))
    network = build_student(getattr(config, role), image_spec(config.data, index.classes), role=role)
    export_network(
        network,
        folder,
        images=image_spec(config.data, index.classes),
        facts=TrainingFacts("", 0, "", "", "", 0, EvalView()),
    )
    return network.eval()


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path, Network, Network]:
    """A configuration with a teacher, a student's folder, and both networks."""
    root = tmp_path_factory.mktemp("networks")
    teacher = saved(root / "teacher", tiny_config(), "teacher")
    config = tiny_config(f"teacher.checkpoint={root / 'teacher'}", "data.max_bad_fraction=0")
    return config, root / "student", saved(root / "student", config, "student"), teacher


class Here:
    """Ray Data's part of a job, in this process."""

    measured: list[str] = []

    @staticmethod
    def dataset(job: Evaluation, plan: SuitePlan) -> Any:
        Here.measured.append(plan.suite)
        return _Rows(job, plan)


class _Rows:
    def __init__(self, job: Evaluation, plan: SuitePlan) -> None:
        self.job, self.plan = job, plan

    def iter_batches(self, **_: object) -> Iterator[dict]:
        actor = EvaluationActor(self.job.networks, self.plan.conditions)
        for piece in self.plan.pieces():
            views = list(self.plan.views(*piece))
            yield actor({key: np.concatenate([view[key] for view in views]) for key in views[0]})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Without Ray; the suites that were measured."""

    @contextmanager
    def networks_only(config: RunConfig, *_: object) -> Iterator:
        yield config, Cluster(is_own=False, resources={"CPU": 2.0})

    Here.measured = []
    monkeypatch.setattr(evaluate, "networks_only", networks_only)
    monkeypatch.setattr(Evaluation, "_dataset", Here.dataset)
    return Here.measured


def longhand(config: RunConfig, network: Network, rows: np.ndarray, change: Any = None) -> np.ndarray:
    """The network's guesses on rows of the data, one image at a time."""
    index = build_index(config.data)
    images = EvalPictures(index.reader, index.labels, config.data, rows)(np.arange(len(rows)))["image"]
    images = images if change is None else change(images, rows)
    with torch.no_grad():
        logits = [network(torch.tensor(image[None]).float() / 255.0) for image in images]
    return torch.cat(logits).argmax(1).numpy()


def test_every_number_of_a_suite_is_what_a_plain_loop_finds(networks, here, tmp_path: Path):
    config, student, network, teacher = networks
    settings = evaluation_settings({"suites": ["clean", "corruptions"], "images": 40, "severities": [1, 5]})
    result = evaluate.evaluate(target_of(str(student), config), settings, tmp_path / "e")
    index = build_index(config.data)
    test = index.rows("test")
    own, beside = (longhand(config, each, test) for each in (network, teacher))
    clean = result["suites"]["clean"]
    assert clean["n"] == 300
    assert clean["top1"] == pytest.approx(100 * (own == index.labels[test]).mean())
    assert clean["agreement"] == pytest.approx(100 * (own == beside).mean())
    assert result["teacher"]["clean"]["top1"] == pytest.approx(100 * (beside == index.labels[test]).mean())
    sample = np.sort(sample_of(test, 40, seed=config.data.split_seed))
    for severity in (1, 5):
        guesses = longhand(config, network, sample, Corruption("fog", severity))
        found = result["suites"]["corruptions"]["by"]["fog"][str(severity)]
        assert found == pytest.approx(100 * (guesses == index.labels[sample]).mean())
    assert result["suites"]["corruptions"]["n"] == 15 * 2 * 40
    assert result["suites"]["corruptions"]["mce_vs_teacher"] > 0
    assert "mce" not in result["suites"]["corruptions"]
    assert read_json(tmp_path / "e" / "evaluation.json") == result
    assert {path.name for path in (tmp_path / "e").glob("*.png")} == {"corruptions.png", "reliability.png"}


def test_finished_suites_are_not_measured_again(networks, here, tmp_path: Path):
    config, student, _, _ = networks
    target, said = target_of(str(student), config), []
    first = evaluate.evaluate(target, evaluation_settings({"suites": ["clean"]}), tmp_path / "e")
    both = evaluation_settings({"suites": ["clean", "shifts"], "images": 30})
    evaluate.evaluate(target, both, tmp_path / "e", say=said.append)
    assert here == ["clean", "shifts"]
    assert "clean: measured before, with the same settings" in said
    again = evaluate.evaluate(target, evaluation_settings({"suites": ["shifts"], "images": 50}), tmp_path / "e")
    assert here == ["clean", "shifts", "shifts"]
    assert again["suites"]["clean"] == first["suites"]["clean"]
    assert again["measured"]["shifts"]["images"] == 50 * len(again["suites"]["shifts"]["by"]["shift"])


def test_a_stop_keeps_the_suites_before_it(networks, here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, student, _, _ = networks
    settings = evaluation_settings({"suites": ["clean", "rotations"], "images": 20})

    def stop(job: Evaluation, plan: SuitePlan) -> Any:
        if plan.suite == "rotations":
            raise SystemExit  # as sudden as it gets within a process
        return Here.dataset(job, plan)

    monkeypatch.setattr(Evaluation, "_dataset", stop)
    with pytest.raises(SystemExit):
        evaluate.evaluate(target_of(str(student), config), settings, tmp_path / "e")
    assert list(read_json(tmp_path / "e" / "evaluation.json")["suites"]) == ["clean"]
    monkeypatch.setattr(Evaluation, "_dataset", Here.dataset)
    result = evaluate.evaluate(target_of(str(student), config), settings, tmp_path / "e")
    assert here == ["clean", "rotations"]
    assert list(result["suites"]) == ["clean", "rotations"]


def test_results_of_another_model_are_not_mixed_in(networks, here, tmp_path: Path):
    config, student, _, _ = networks
    settings = evaluation_settings({"suites": ["clean"]})
    evaluate.evaluate(target_of(str(student), config), settings, tmp_path / "e")
    other = tiny_config("student.model_kwargs={widths: [8]}", f"teacher.checkpoint={config.teacher.checkpoint}")
    saved(tmp_path / "other", other, "student")
    with pytest.raises(RunFolderError, match="is of another model, teacher, split or data"):
        evaluate.evaluate(target_of(str(tmp_path / "other"), config), settings, tmp_path / "e")
    write_text(tmp_path / "notes.txt", "mine")
    with pytest.raises(RunFolderError, match="holds no evaluation; choose another --output"):
        evaluate.evaluate(target_of(str(student), config), settings, tmp_path)


def test_a_runs_student_is_measured_with_the_runs_own_data(networks, here, tmp_path: Path):
    config, _, _, _ = networks
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    write_text(run.config, dump_yaml(config))
    with pytest.raises(
        RunFolderError, match="has no finished student; continue the run with `hardray distill --resume"
    ):
        target_of(str(run.path), None)
    network = saved(run.student, config, "student")
    assert target_of(str(run.path), None).is_outcome
    larger = config.model_copy(update={"data": config.data.model_copy(update={"img_size": 48})})
    assert target_of(str(run.path), larger).model.img_size == config.student.img_size
    target = target_of(str(run.path), None, ["data.split_seed=3"])
    assert not target.is_outcome
    assert target.config.data.split_seed == 3
    assert target.default_output == run.path / "evaluation"
    result = evaluate.evaluate(
        target_of(str(run.path), None), evaluation_settings({"suites": ["clean"]}), run.later_evaluation
    )
    index = build_index(config.data)
    guesses = longhand(config, network, index.rows("test"))
    assert result["suites"]["clean"]["top1"] == pytest.approx(
        100 * (guesses == index.labels[index.rows("test")]).mean()
    )


def test_what_is_no_model_is_said(tmp_path: Path):
    with pytest.raises(RunFolderError, match="is no run folder .* give --data, --preset or -c"):
        target_of("resnet18", None)
    with pytest.raises(ModelError, match="want a run folder, a folder in timm's layout, or a timm model name"):
        target_of(str(tmp_path / "gone"), tiny_config())
    assert target_of("resnet18", tiny_config()).model.pretrained
    assert target_of("hf-hub:a/b", tiny_config()).default_output == Path("runs/evaluation-hf-hub-a-b")


def test_unreadable_images_are_left_out_and_named(here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = make_image_folder(tmp_path / "data")
    broken = next(iter(sorted((root / "val").glob("*/*"))))
    broken.write_bytes(b"no picture")
    base = [
        "data.kind=image_folder",
        f"data.path={root}",
        "data.img_size=8",
        "student.model=hardray_cnn",
        "student.model_kwargs={widths: [4]}",
        "runtime.threads=1",
    ]
    from hard_ray.config.loader import load_config

    config = load_config(overrides=[*base, "data.max_bad_fraction=0.5"])
    saved(tmp_path / "student", config, "student")
    settings = evaluation_settings({"suites": ["clean"]})
    target = target_of(str(tmp_path / "student"), config)
    result = evaluate.evaluate(target, settings, tmp_path / "e", with_teacher=False)
    images = len(list((root / "val").glob("*/*")))
    assert result["suites"]["clean"]["n"] == images - 1
    assert str(broken) in (tmp_path / "e" / "bad_images.txt").read_text()
    monkeypatch.setattr("hard_ray.evaluation.plan.LARGEST_PIECE", 2)
    pieces = sorted((root / "val").glob("*/*"))
    pieces[1].write_bytes(b"no picture")
    result = evaluate.evaluate(target, settings, tmp_path / "whole", with_teacher=False)
    assert result["suites"]["clean"]["n"] == images - 2
    assert (tmp_path / "whole" / "bad_images.txt").read_text() == f"{pieces[0]}\n{pieces[1]}\n"
    for path in pieces:
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="clean: none of its images can be read"):
        evaluate.evaluate(target, settings, tmp_path / "none", with_teacher=False)
    strict = Target(load_config(overrides=[*base, "data.max_bad_fraction=0"]), target.model)
    with pytest.raises(DataError, match="images cannot be read, more than the 0"):
        evaluate.evaluate(strict, settings, tmp_path / "strict", with_teacher=False)


def test_the_pieces_cover_every_row_of_every_source_once(networks):
    config, _, _, _ = networks
    index = build_index(config.data)
    plan = plan_suite(
        "shifts",
        evaluation_settings({"images": None}),
        index,
        config.data,
        split="test",
        block_bytes=37 * config.data.img_size**2,
    )
    assert plan.piece == 37
    covered = [position for _, start, stop in plan.pieces() for position in range(start, stop)]
    assert covered == list(range(300))
    assert plan.images == 300 * len(plan.conditions)


@pytest.mark.slow
def test_a_ray_job_finds_what_this_process_finds(networks, cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, student, _, _ = networks
    settings = evaluation_settings({"suites": ["clean", "shifts", "adversarial"], "images": 60})
    target = target_of(str(student), config)
    remote = evaluate.evaluate(target, settings, tmp_path / "ray")
    monkeypatch.setattr(Evaluation, "_dataset", Here.dataset)
    local = evaluate.evaluate(target, settings, tmp_path / "here")
    for suite in settings.suites:
        for key in ("top1", "agreement", "n"):
            assert remote["suites"][suite][key] == local["suites"][suite][key], (suite, key)
        assert remote["suites"][suite]["loss"] == pytest.approx(local["suites"][suite]["loss"], rel=1e-6)
        assert remote["suites"][suite].get("by") == local["suites"][suite].get("by")


@pytest.mark.parametrize(
    ("cores", "runtime", "cpus", "wanted"),
    [
        (1, {}, 2, (1, 1.0, 1)),
        (2, {}, 2, (2, 0.5, 1)),
        (2, {"cpus_per_worker": 2.0}, 3, (1, 2.0, 2)),
        (64, {}, 64, (8, 1.0, 8)),
        (64, {"cpus_per_worker": 8}, 64, (8, 7, 8)),
        (2, {"num_workers": 3}, 4, (3, 1.0, 1)),
    ],
)
def test_one_machines_cores_are_all_used(cores: int, runtime: dict, cpus: float, wanted: tuple, monkeypatch):
    monkeypatch.setattr(network_actors, "usable_cores", lambda: cores)
    given = RuntimeConfig.model_validate({**runtime, "threads": 5})
    cluster = Cluster(is_own=True, resources={"CPU": cpus})
    assert evaluate.Actors.of(given, cluster) == evaluate.Actors(wanted[0], wanted[1], 0.0, wanted[2])
    assert wanted[0] * wanted[1] + DATA_CPUS <= cpus
    as_workers = evaluate.Actors(given.num_workers, given.cpus_per_worker, 0.0, 5)
    assert evaluate.Actors.of(given, replace(cluster, is_own=False)) == as_workers
    with_gpus = given.model_copy(update={"gpus_per_worker": 1.0})
    assert evaluate.Actors.of(with_gpus, cluster) == replace(as_workers, gpus=1.0)


def test_an_evaluation_finds_the_teacher_that_a_run_trained(networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The cache knows it by the number of workers, which are not the evaluation's."""
    config, student, _, _ = networks
    found = []

    def trained(config: RunConfig, index: Any) -> Any:
        found.append(cached_teacher(config, index))
        raise TeacherError("stop here")

    @contextmanager
    def machine(*_: object, **__: object) -> Iterator[Cluster]:
        yield Cluster(is_own=True, resources={"CPU": 8.0})

    monkeypatch.setattr(network_actors, "usable_cores", lambda: 8)
    monkeypatch.setattr(network_actors, "connected", machine)
    monkeypatch.setattr(evaluate, "trained_teacher", trained)
    monkeypatch.setattr(Evaluation, "_dataset", Here.dataset)
    evaluate.evaluate(target_of(str(student), config), evaluation_settings({"suites": ["clean"]}), tmp_path / "found")
    resolved = network_actors.resolve_runtime(config, Cluster(is_own=True, resources={"CPU": 8.0}))
    assert found == [cached_teacher(resolved, build_index(config.data))]


def test_a_runs_mlflow_run_is_told(networks, here, tmp_path: Path):
    from mlflow import MlflowClient

    from hard_ray.runs.tracking import Follower, tracking_uri

    base, _, _, _ = networks
    config = tiny_config(f"teacher.checkpoint={base.teacher.checkpoint}", "tracking.enabled=true")
    run = RunFolder(tmp_path / "runs" / "one")
    run.path.mkdir(parents=True)
    write_text(run.config, dump_yaml(config))
    saved(run.student, config, "student")
    uri = tracking_uri(config.tracking, run)
    Follower(run, config, "one", uri).sync()
    result = evaluate.evaluate(
        target_of(str(run.path), None),
        evaluation_settings({"suites": ["clean", "rotations"], "images": 20}),
        run.later_evaluation,
    )
    run_id = read_json(run.tracking)["run_id"]
    client = MlflowClient(uri)
    metrics = client.get_run(run_id).data.metrics
    assert metrics["ood/rotations/top1"] == pytest.approx(result["suites"]["rotations"]["top1"])
    assert metrics["test/agreement"] == pytest.approx(result["suites"]["clean"]["agreement"])
    files = {each.path for each in client.list_artifacts(run_id, "evaluation")}
    assert {"evaluation/evaluation.json", "evaluation/reliability.png", "evaluation/rotations.png"} <= files
    write_json(run.tracking, {})
    again = evaluate.evaluate(
        target_of(str(run.path), None), evaluation_settings({"suites": ["clean"]}), run.later_evaluation
    )
    assert again["suites"]["clean"] == result["suites"]["clean"]


# ------------------------------------------------------------------- without labels


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("without")
    return heap(root / "images", count=80), saved_teacher(root / "teacher")


def test_without_labels_every_number_is_an_agreement(places: tuple[Path, Path], here, tmp_path: Path):
    config = config_of(*places)
    index = answered_index(config.data, config.teacher)
    images = image_spec(config.data, index.classes)
    torch.manual_seed(7)
    student = build_student(config.student, images, role="student")
    export_network(student, tmp_path / "s", images=images, facts=TrainingFacts("", 0, "", "", "", 0, EvalView()))
    teacher = build_teacher(config.teacher, images).eval()
    settings = evaluation_settings(
        {"suites": ["clean", "corruptions", "adversarial"], "images": 6, "severities": [5], "attack": {"steps": 2}}
    )
    lines: list[str] = []
    target = target_of(f"{tmp_path / 's'}", config)
    result = evaluate.evaluate(target, settings, tmp_path / "e", say=lines.append)
    test = index.rows("test")
    own, answers = (longhand(config, each.eval(), test) for each in (student, teacher))
    assert result["suites"]["clean"]["agreement"] == pytest.approx(100 * (own == answers).mean())
    sample = np.sort(sample_of(test, 6, seed=config.data.split_seed))
    own, answers = (longhand(config, each, sample, Corruption("fog", 5)) for each in (student, teacher))
    assert result["suites"]["corruptions"]["by"]["fog"]["5"] == pytest.approx(100 * (own == answers).mean())
    assert result["teacher"] == {}
    assert set(result["suites"]["clean"]) == set(result["suites"]["adversarial"]) == {"n", "agreement", "loss"}
    assert {path.name for path in (tmp_path / "e").glob("*.png")} == {"corruptions.png"}
    assert any(line.startswith("clean: agreement ") for line in lines)
    assert not any("top-1" in line for line in lines)
    table = result_table(result)
    assert [column.header for column in table.columns] == ["suite", "agreement", "images"]
    assert next(iter(table.columns[1].cells)) == f"{result['suites']['clean']['agreement']:.2f}"


@pytest.mark.parametrize(
    ("options", "with_teacher", "said"),
    [
        ({}, False, "without the teacher there is nothing to judge a model by; leave out --no-teacher, or name images"),
        ({"suites": [], "published": {"imagenet-r": "r"}}, True, "imagenet-r is measured by the labels of its own"),
    ],
)
def test_what_needs_labels_is_refused_before_anything_starts(
    places: tuple[Path, Path], here, tmp_path: Path, options: dict, with_teacher: bool, said: str
):
    target = target_of(str(places[1]), config_of(*places))
    with pytest.raises(DataError, match=said) as caught:
        evaluate.evaluate(target, evaluation_settings(options), tmp_path / "e", with_teacher=with_teacher)
    assert str(caught.value).startswith("data.kind is images, so that the images have no labels")
    assert not here
    assert not (tmp_path / "e").exists()
