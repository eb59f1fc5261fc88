"""Whole runs in this process: repeatable, resumable, honest in their log."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hard_ray.config.controller import Phase
from hard_ray.config.loader import load_config
from hard_ray.config.run import RunConfig, as_control
from hard_ray.data.sources.build import build_index
from hard_ray.distillation import loop
from hard_ray.distillation.checkpoints import CheckpointStore
from hard_ray.distillation.loop import Run, Status
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.errors import AgreedError, RunFolderError, TeacherError
from hard_ray.files import read_json
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.run import builder
from hard_ray.orchestration.run.plan import RunPlan
from hard_ray.ranks import Ranks
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import MetricsLog, read_points
from tests.support.helpers import (
    TINY,
    LocalBuilder,
    assert_equal_bits,
    killed_after,
    make_image_folder,
    run_here,
    student_weights,
    tiny_config,
    untrained_teacher,
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    assert run_here(tiny_config(), folder) is Status.FINISHED
    return folder


def steps_of(folder: Path, kind: str = "train") -> list[int]:
    return [point["step"] for _, point in read_points(folder / "metrics.jsonl") if point["kind"] == kind]


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(straight: Path, tmp_path: Path):
    run_here(tiny_config(), tmp_path / "again")
    assert_equal_bits(student_weights(straight), student_weights(tmp_path / "again"))
    run_here(tiny_config("seed=1"), tmp_path / "other")
    with pytest.raises(AssertionError, match="tensors differ"):
        assert_equal_bits(student_weights(straight), student_weights(tmp_path / "other"))


def test_both_phases_happen_and_every_update_is_logged_once(straight: Path):
    outcome = read_json(straight / "outcome.json")
    assert outcome["steps"]["student"] == 20
    assert outcome["steps"]["augmentor"] >= 4
    assert outcome["switches"] == len(steps_of(straight, "switch")) >= 4
    assert steps_of(straight) == list(range(1, 21 + outcome["steps"]["augmentor"]))
    phases = [point["phase"] for _, point in read_points(straight / "metrics.jsonl") if point["kind"] == "train"]
    assert set(phases) == {0.0, 1.0}


def test_signals_that_are_read_while_the_next_update_is_computed_decide_the_same(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(builder, "Run", functools.partial(Run, reads_late=True))
    run_here(tiny_config(), tmp_path / "late")
    assert_equal_bits(student_weights(straight), student_weights(tmp_path / "late"))
    for kind in ("train", "switch", "val"):
        assert steps_of(tmp_path / "late", kind) == steps_of(straight, kind)
    update, calls = Updater.update, []

    def stopping(self: Updater, *args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) in (5, 12):
            (tmp_path / "stopped" / "stop").touch()
        return update(self, *args, **kwargs)

    monkeypatch.setattr(Updater, "update", stopping)
    monkeypatch.setattr(loop, "STOP_POLL_S", 0.0)
    ends = []
    while not ends or ends[-1] is Status.STOPPED:
        ends.append(run_here(tiny_config(), tmp_path / "stopped"))
        (tmp_path / "stopped" / "stop").unlink(missing_ok=True)
    assert len(ends) == 3
    assert_equal_bits(student_weights(straight), student_weights(tmp_path / "stopped"))
    assert steps_of(tmp_path / "stopped") == steps_of(straight)


@pytest.mark.parametrize("kill_after", [1, 2, 7, 8, 13, 23])
def test_a_run_killed_at_any_update_and_resumed_equals_the_straight_one(
    straight: Path, tmp_path: Path, kill_after: int
):
    with killed_after(kill_after):
        run_here(tiny_config(), tmp_path)
    run_here(tiny_config(), tmp_path)
    assert_equal_bits(student_weights(straight), student_weights(tmp_path))
    for kind in ("train", "val", "switch"):
        assert steps_of(tmp_path, kind) == steps_of(straight, kind), kind

    def values(folder: Path) -> list[dict]:
        points = [point for _, point in read_points(folder / "metrics.jsonl")]
        return [{k: v for k, v in p.items() if "time" not in k and "throughput" not in k} for p in points]

    assert values(tmp_path) == values(straight)


def test_a_stop_request_leaves_a_checkpoint_to_go_on_from(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hard_ray.distillation.loop.STOP_POLL_S", 0.0)
    update = Updater.update

    def asking(self: Updater, *args: object, **kwargs: object) -> object:
        if kwargs["step"] == 9:
            (tmp_path / "stop").touch()
        return update(self, *args, **kwargs)

    monkeypatch.setattr(Updater, "update", asking)
    assert run_here(tiny_config(), tmp_path) is Status.STOPPED
    newest = CheckpointStore(tmp_path / "checkpoints").list()[-1]
    assert newest.name == "step-00000010"
    assert not (tmp_path / "outcome.json").exists()
    (tmp_path / "stop").unlink()
    monkeypatch.setattr(Updater, "update", update)
    assert run_here(tiny_config(), tmp_path) is Status.FINISHED
    assert_equal_bits(student_weights(straight), student_weights(tmp_path))


class SeesAnotherCheckpoint(Ranks):
    """One of two ranks; the other's newest checkpoint is of update 10."""

    def gather(self, item: object) -> list:
        return [item, 10] if isinstance(item, int) else [item]


def test_ranks_that_find_different_checkpoints_do_not_train_as_one(tmp_path: Path):
    config = tiny_config()
    plan = RunPlan("test", "main", config, tmp_path)
    parts = (plan, build_index(config.data), SeesAnotherCheckpoint(), torch.device("cpu"), DataShare(1, 1e8))
    with pytest.raises(AgreedError, match=r"different newest checkpoints in .* \(of updates 0, 10\)"):
        LocalBuilder(*parts, tmp_path / "stop", None).train()


@pytest.mark.chaos
def test_a_damaged_newest_checkpoint_is_passed_over(straight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = tiny_config("optim.steps=10")
    run_here(config, tmp_path)
    (tmp_path / "outcome.json").unlink()
    newest = CheckpointStore(tmp_path / "checkpoints").list()[-1]
    (newest / "student.safetensors").write_bytes(b"half")
    run_here(config, tmp_path)
    assert f"checkpoint {newest.name} is damaged (student.safetensors changed" in caplog.text
    run_here(config, tmp_path / "straight")
    assert_equal_bits(student_weights(tmp_path), student_weights(tmp_path / "straight"))
    (tmp_path / "outcome.json").unlink()
    newest = CheckpointStore(tmp_path / "checkpoints").list()[-1]
    (newest / "state.json").unlink()
    run_here(config, tmp_path)
    assert f"checkpoint {newest.name} is damaged (state.json is not there)" in caplog.text
    for path in CheckpointStore(tmp_path / "checkpoints").list():
        (path / "optimizers.pt").unlink()
    (tmp_path / "outcome.json").unlink()
    with pytest.raises(RunFolderError, match="every checkpoint is damaged"):
        run_here(config, tmp_path)


@pytest.mark.chaos
def test_a_full_disk_stops_the_run_and_keeps_the_checkpoints_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from hard_ray.distillation import checkpoints as state

    write, written = state.write_bytes, []

    def filling(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > 8:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(state, "write_bytes", filling)
    with pytest.raises(AgreedError, match=r"cannot be written to .*: No space left on device; .* then resume"):
        run_here(tiny_config(), tmp_path)
    monkeypatch.setattr(state, "write_bytes", write)
    left = CheckpointStore(tmp_path / "checkpoints").list()
    assert left
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert run_here(tiny_config(), tmp_path) is Status.FINISHED


@pytest.mark.chaos
def test_a_disk_that_is_full_for_the_log_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    append = MetricsLog.append

    def full(self: MetricsLog, point: dict) -> None:
        if point["step"] > 12:
            raise OSError(28, "No space left on device", str(self.path))
        append(self, point)

    monkeypatch.setattr(MetricsLog, "append", full)
    with pytest.raises(RunFolderError, match=r"metrics.jsonl cannot be written to: No space left .* then resume"):
        run_here(tiny_config(), tmp_path)
    monkeypatch.setattr(MetricsLog, "append", append)
    assert run_here(tiny_config(), tmp_path) is Status.FINISHED


def test_a_resume_with_another_teacher_is_refused(tmp_path: Path):
    config = tiny_config("optim.steps=6")
    run_here(config, tmp_path)
    (tmp_path / "outcome.json").unlink()
    index = build_index(config.data)
    teacher = untrained_teacher(config, index)
    with torch.no_grad():
        teacher.network.model.head.bias.add_(1.0)
    with pytest.raises(TeacherError, match="the run began with"):
        run_here(config, tmp_path, LocalPool(FrozenNetwork(teacher.network)))


def test_the_moving_average_is_what_is_evaluated_and_exported(tmp_path: Path):
    config = tiny_config("optim.model_ema=true", "optim.model_ema_decay=0.5", "optim.steps=8")
    run_here(config, tmp_path)
    from safetensors.torch import load_file

    newest = CheckpointStore(tmp_path / "checkpoints").list()[-1]
    assert_equal_bits(student_weights(tmp_path), load_file(newest / "ema.safetensors"))
    with pytest.raises(AssertionError, match="tensors differ"):
        assert_equal_bits(student_weights(tmp_path), load_file(newest / "student.safetensors"))


def test_the_schedule_is_counted_in_student_updates(tmp_path: Path):
    run_here(tiny_config("optim.steps=12", "optim.sched=cosine"), tmp_path)
    rates = {
        point["student_step"]: point["lr"]
        for _, point in read_points(tmp_path / "metrics.jsonl")
        if point["kind"] == "train"
    }
    for step, rate in rates.items():
        assert rate == pytest.approx(0.02 * 0.5 * (1 + np.cos(np.pi * step / 12)), abs=1e-9)


def test_the_best_student_is_kept_beside_the_last(straight: Path):
    tops = [point["val/top1"] for _, point in read_points(straight / "metrics.jsonl") if point["kind"] == "val"]
    outcome = read_json(straight / "outcome.json")
    assert outcome["best_top1"] == max(tops)
    assert (straight / "best" / "model.safetensors").is_file()


def test_evaluation_json_has_the_promised_keys(straight: Path):
    evaluation = json.loads((straight / "evaluation.json").read_text())
    assert evaluation["split"] == "test"
    clean = evaluation["suites"]["clean"]
    assert set(clean) == {"top1", "agreement", "ece", "n", "loss"}
    assert clean["n"] == 300
    assert RunFolder(straight).is_finished


def test_phases_of_the_log_follow_the_controllers_decisions(straight: Path):
    points = [point for _, point in read_points(straight / "metrics.jsonl")]
    turns = {p["from_update"]: p["to"] for p in points if p["kind"] == "switch"}
    current = Phase.STUDENT
    for point in points:
        if point["kind"] != "train":
            continue
        current = Phase(turns.get(point["step"], current))
        assert point["phase"] == float(current is Phase.AUGMENTOR), point["step"]


def test_the_run_reports_each_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    heard = []
    evaluate = Run._evaluate

    def listening(self: Run) -> None:
        self.report = heard.append
        evaluate(self)

    monkeypatch.setattr(Run, "_evaluate", listening)
    run_here(tiny_config("optim.steps=8", "validate.every=0.1"), tmp_path)
    assert [point["step"] for point in heard] == steps_of(tmp_path, "val")
    assert all({"val/top1", "epoch"} <= set(point) for point in heard)


@pytest.mark.parametrize("kind", ["random_affine", "trivial_augment"])
def test_a_fixed_augmentor_trains_the_student_alone_and_resumes_to_the_bit(straight: Path, tmp_path: Path, kind: str):
    blocks = {"objective": {"kind": "kd"}, "augmentor": {"kind": kind}}
    config = RunConfig.model_validate({**tiny_config("optim.steps=8").model_dump(mode="json"), **blocks})
    assert run_here(config, tmp_path / "straight") is Status.FINISHED
    outcome = read_json(tmp_path / "straight" / "outcome.json")
    assert (outcome["steps"], outcome["switches"]) == ({"student": 8, "augmentor": 0}, 0)
    points = [p for _, p in read_points(tmp_path / "straight" / "metrics.jsonl") if p["kind"] == "train"]
    assert any(point["train/drift"] > 0 for point in points)  # the teacher was asked about other images
    plain = config.model_copy(update={"augmentor": config.augmentor.model_copy(update={"strength": 0.0})})
    run_here(plain, tmp_path / "plain")
    with pytest.raises(AssertionError, match="tensors differ"):
        assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "plain"))
    with killed_after(6):
        run_here(config, tmp_path / "resumed")
    run_here(config, tmp_path / "resumed")
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "resumed"))


def test_the_random_control_is_kd_on_two_views(tmp_path: Path):
    config = tiny_config("optim.steps=6", "experiment.random.max_shift=0.1")
    run_here(as_control(config, "random"), tmp_path / "random")
    run_here(as_control(config, "kd"), tmp_path / "kd")
    assert read_json(tmp_path / "random" / "outcome.json")["steps"] == {"student": 6, "augmentor": 0}
    logged = {
        control: [p for _, p in read_points(tmp_path / control / "metrics.jsonl") if p["kind"] == "train"]
        for control in ("random", "kd")
    }
    for point in logged["random"]:
        parts = 0.1 * point["train/ce_loss"] + 0.9 * (point["train/kd_loss"] + point["train/disagreement"])
        assert point["train/loss"] == pytest.approx(parts, rel=1e-5)
    assert not any("train/disagreement" in point for point in logged["kd"])


def test_final_suites_are_measured_at_the_end_alone_on_the_final_split(tmp_path: Path):
    config = tiny_config(
        "optim.steps=6",
        "validate.suites=[clean]",
        "validate.final=[shifts, corruptions, adversarial]",
        "validate.corruption_images=5",
        "validate.attack_images=299",
    )
    run_here(config, tmp_path)
    points = [point for _, point in read_points(tmp_path / "metrics.jsonl")]
    validated = {key for point in points if point["kind"] == "val" for key in point if key.startswith("val")}
    assert validated == {"val/top1", "val/ece", "val/agreement", "val/loss"}
    evaluation = read_json(tmp_path / "evaluation.json")
    assert evaluation["split"] == "test"
    for who in ("suites", "teacher"):
        found = evaluation[who]
        assert list(found) == ["clean", "shifts", "corruptions", "adversarial"]
        assert {suite: result["n"] for suite, result in found.items()} == {
            "clean": 300,
            "shifts": 300 * 4,
            "corruptions": 5 * 15,
            "adversarial": 299,
        }
        assert list(found["shifts"]["by"]["shift"]) == ["0", "1", "2", "3"]
        assert found["shifts"]["by"]["shift"]["0"] == found["clean"]["top1"]
        assert found["corruptions"]["by"]["fog"].keys() == {"3"}
        assert found["adversarial"]["loss"] > found["clean"]["loss"]
    assert evaluation["suites"]["adversarial"].keys() == {"top1", "ece", "n", "agreement", "loss"}
    (final,) = [point for point in points if point["kind"] == "final"]
    assert final["test/top1"] == evaluation["suites"]["clean"]["top1"]
    assert final["ood/shifts/top1"] == evaluation["suites"]["shifts"]["top1"]
    assert final["step"] == max(point["step"] for point in points if point["kind"] != "final") + 1


def test_an_unreadable_image_of_the_final_split_counts(tmp_path: Path):
    root = make_image_folder(tmp_path / "data")
    shutil.copytree(root / "val", root / "test")
    (root / "test" / "bee" / "003.png").write_bytes(b"no picture")
    given = [f"data.path={root}", "data.kind=image_folder", "data.img_size=8", "optim.batch_size=8"]
    given += ["teacher.model=hardray_cnn", "student.model=hardray_mlp"]
    tiny = [override for override in TINY if not override.startswith(("data.", "optim.batch_size"))]
    config = load_config(overrides=[*tiny, *given, "optim.steps=3", "data.max_bad_fraction=0.5"])
    assert run_here(config, tmp_path / "run") is Status.FINISHED
    assert read_json(tmp_path / "run" / "outcome.json")["bad_images"] == 1
    assert (tmp_path / "run" / "bad_images.txt").read_text() == f"{root / 'test' / 'bee' / '003.png'}\n"
    with pytest.raises(AgreedError, match="1 images cannot be read, more than the 0"):
        strict = load_config(overrides=[*tiny, *given, "optim.steps=3", "data.max_bad_fraction=0"])
        run_here(strict, tmp_path / "strict")


def test_a_run_that_ended_before_its_last_measurement_was_kept_logs_it_once(tmp_path: Path):
    config = tiny_config("optim.steps=6", "validate.final=[translate]")
    run_here(config, tmp_path)
    (tmp_path / "outcome.json").unlink()
    run_here(config, tmp_path)
    assert len(steps_of(tmp_path, "final")) == 1


@pytest.mark.parametrize("augmentor", ["affine", "cutmix"])
def test_a_teacher_that_is_asked_further_ahead_costs_no_bit_and_no_update(tmp_path: Path, augmentor: str):
    class Counting(LocalPool):
        waiting, most, asked = 0, 0, 0

        def logits(self, images):
            Counting.waiting, Counting.asked = Counting.waiting + 1, Counting.asked + 1
            Counting.most = max(Counting.most, Counting.waiting)
            return Counted(super().logits(images))

    class Counted:
        def __init__(self, ticket):
            self.ticket = ticket

        def result(self):
            Counting.waiting -= 1
            return self.ticket.result()

    plain = () if augmentor == "affine" else ("objective.kind=kd",)
    asked = {}
    for ahead in (1, 4):
        overrides = (f"augmentor={{kind: {augmentor}}}", f"runtime.teacher.prefetch={ahead}", "validate.every=100")
        config = tiny_config(*plain, *overrides) if augmentor == "affine" else fixed(*plain, *overrides)
        index = build_index(config.data)
        Counting.waiting = Counting.most = Counting.asked = 0
        run_here(config, tmp_path / str(ahead), Counting(untrained_teacher(config, index)))
        asked[ahead] = Counting.most, Counting.asked
    assert_equal_bits(student_weights(tmp_path / "1"), student_weights(tmp_path / "4"))
    assert asked[4][0] > asked[1][0] + 2
    assert asked[4][1] == asked[1][1]


def fixed(*overrides: str) -> RunConfig:
    """A tiny run without the settings that only HARD has."""
    own = ("augmentor.", "controller.")
    return load_config(preset="digits", overrides=[*(item for item in TINY if not item.startswith(own)), *overrides])
