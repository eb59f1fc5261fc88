"""Runs on images without labels, and on some with and some without."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hard_ray.config.loader import load_config
from hard_ray.config.objective import DadObjective, HardObjective, KdObjective
from hard_ray.config.run import as_control
from hard_ray.data.index import NO_LABEL
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.loop import Status
from hard_ray.distillation.objectives import StudentObjective, Views
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.files import read_json
from hard_ray.maths import losses
from hard_ray.networks.network import build_teacher, image_spec
from hard_ray.preparation.answers import answered_index
from hard_ray.runs.log import read_points
from tests.support.helpers import TINY, assert_equal_bits, killed_after, run_here, student_weights
from tests.support.without_labels import ANSWERS, VIEW, config_of, heap, saved_teacher


def logits(seed: int) -> torch.Tensor:
    return 2.0 * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


S, T, S2, T2 = (logits(seed) for seed in range(4))
SOME = torch.tensor([0, NO_LABEL, 2, NO_LABEL, 4, NO_LABEL])
NONE = torch.full((6,), NO_LABEL)


def d(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return losses.divergence(a, b, temperature=4.0)


def test_the_cross_entropy_is_the_mean_over_the_labelled_images():
    objective = StudentObjective(KdObjective(alpha=0.25), labelled=0.5)
    found = objective(Views(SOME, S, T), epoch=0.0)
    labelled = SOME != NO_LABEL
    by_hand = torch.nn.functional.cross_entropy(S[labelled], SOME[labelled])
    torch.testing.assert_close(found.parts["ce_loss"].mean(), by_hand)
    torch.testing.assert_close(found.total.mean(), 0.75 * by_hand + 0.25 * d(T, S).mean())


def test_smoothed_and_mixed_labels_count_by_their_labelled_share():
    from hard_ray.augmentors.labels import MixedLabels

    share = torch.full((6,), 0.7, dtype=torch.float64)
    mixed = MixedLabels(SOME, SOME.roll(1), share)
    objective = StudentObjective(KdObjective(alpha=0.0), smoothing=0.1, labelled=0.5)
    found = objective(Views(mixed, S, T), epoch=0.0).parts["ce_loss"]
    log_p, expected = S.log_softmax(dim=1), []
    for row in range(6):
        total = torch.zeros((), dtype=torch.float64)
        for label, weight in ((int(mixed.first[row]), 0.7), (int(mixed.second[row]), 0.3)):
            if label >= 0:
                target = torch.full((5,), 0.1 / 5, dtype=torch.float64)
                target[label] += 0.9
                total -= weight * (target * log_p[row]).sum()
        expected.append(total / 0.5)
    torch.testing.assert_close(found, torch.stack(expected))


def test_without_any_label_nothing_is_learned_from_labels():
    for config in (HardObjective(), DadObjective(), KdObjective(alpha=1.0)):
        found = StudentObjective(config, labelled=0.0)(Views(NONE, S, T, S2, T2), epoch=0.0)
        assert "ce_loss" not in found.parts
    dad = StudentObjective(DadObjective(), labelled=0.0)(Views(NONE, S, T, S2, T2), epoch=0.0)
    torch.testing.assert_close(dad.total, 0.5 * d(T, S) + 0.5 * d(T2, S2))


def test_accuracy_is_of_the_labelled_images_and_else_agreement():
    views = Views(SOME, S, T)
    right = (S.argmax(dim=1) == SOME)[SOME != NO_LABEL].float().mean()
    found = StudentObjective(HardObjective(), labelled=0.5).accuracy(views)
    torch.testing.assert_close(found["top1"], 100.0 * right)
    agreed = (S.argmax(dim=1) == T.argmax(dim=1)).float().mean()
    torch.testing.assert_close(
        StudentObjective(HardObjective(), labelled=0.0).accuracy(replace(views, labels=NONE)),
        {"agreement": 100.0 * agreed},
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("heap")
    return heap(root / "images", count=80), saved_teacher(root / "teacher")


def run_without_labels(config, folder: Path) -> Status:
    index = answered_index(config.data, config.teacher)
    teacher = build_teacher(config.teacher, image_spec(config.data, index.classes))
    return run_here(config, folder, LocalPool(FrozenNetwork(teacher)), index=index)


def test_the_answers_are_those_of_the_teacher(places: tuple[Path, Path], tmp_path: Path):
    config = config_of(*places)
    assert answered_index(config.data, config.teacher).classes == ANSWERS
    unnamed = config_of(places[0], saved_teacher(tmp_path / "unnamed", named=False))
    assert answered_index(unnamed.data, unnamed.teacher).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "overrides",
    [
        ("optim.steps=12",),
        ("optim.steps=4", "augmentor={kind: pick, augmentor: {kind: cutmix, per: image}}"),
        ("optim.steps=4", "data.mix={mixup: 0.8, cutmix: 1.0}"),
        ("optim.steps=4", "objective.kind=dad", "augmentor={kind: adversarial, steps: 2}"),
        ("optim.steps=4", "objective.kind=function_matching", "augmentor={kind: mixup}"),
    ],
    ids=["hard-affine", "pick", "mix", "dad", "function-matching"],
)
def test_a_run_without_labels_measures_agreement_and_nothing_of_labels(
    places: tuple[Path, Path], tmp_path: Path, overrides: tuple[str, ...]
):
    config = config_of(*places, "validate.suites=[clean, shifted, adversarial]", "validate.attack.steps=2", *overrides)
    assert run_without_labels(config, tmp_path) is Status.FINISHED
    names = {name for _, point in read_points(tmp_path / "metrics.jsonl") for name in point}
    assert {
        "val/agreement",
        "val/loss",
        "val/shifted/agreement",
        "val/adversarial/agreement",
        "train/agreement",
    } <= names
    assert not [name for name in names if "top1" in name or "ece" in name or "ce_loss" in name]
    evaluation = read_json(tmp_path / "evaluation.json")
    assert not evaluation["teacher"]
    assert set(evaluation["suites"]["clean"]) == {"n", "agreement", "loss"}
    assert all(0 <= found["agreement"] <= 100 for found in evaluation["suites"].values())
    assert read_json(tmp_path / "outcome.json")["best_agreement"] >= 0


def test_the_best_weights_are_those_that_agree_most(places: tuple[Path, Path], tmp_path: Path):
    run_without_labels(config_of(*places, "optim.steps=16"), tmp_path)
    points = [point for _, point in read_points(tmp_path / "metrics.jsonl") if point["kind"] == "val"]
    assert read_json(tmp_path / "outcome.json")["best_agreement"] == max(point["val/agreement"] for point in points)


def test_a_resumed_run_without_labels_has_the_same_bits(places: tuple[Path, Path], tmp_path: Path):
    config = config_of(*places, "optim.steps=12")
    run_without_labels(config, tmp_path / "straight")
    with killed_after(7):
        run_without_labels(config, tmp_path / "killed")
    run_without_labels(config, tmp_path / "killed")
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "killed"))


def half_labelled(tmp_path: Path, places: tuple[Path, Path], *overrides: str):
    labelled = heap(tmp_path / "labelled", count=24, folders=("train/left", "train/right", "val/left", "val/right"))
    tiny = [text for text in TINY if not text.startswith(("data.", "teacher."))]
    given = ["data.kind=image_folder", f"data.path={labelled}", *VIEW, "data.unlabelled.kind=images"]
    given += [f"data.unlabelled.path={places[0]}", "teacher.model_kwargs={widths: [4, 8]}", "optim.batch_size=8"]
    return load_config(preset="digits", overrides=[*tiny, *given, *overrides])


def test_a_run_on_some_labelled_images_measures_accuracy_and_resumes_bit_for_bit(
    places: tuple[Path, Path], tmp_path: Path
):
    config = half_labelled(tmp_path, places, "objective.w_ce=1", "optim.steps=10")
    assert run_here(config, tmp_path / "straight") is Status.FINISHED
    with killed_after(6):
        run_here(config, tmp_path / "killed")
    run_here(config, tmp_path / "killed")
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "killed"))
    assert "top1" in read_json(tmp_path / "straight" / "evaluation.json")["suites"]["clean"]


def test_the_images_without_labels_change_what_is_learned(places: tuple[Path, Path], tmp_path: Path):
    config = half_labelled(tmp_path, places, "objective.w_ce=1", "optim.steps=4")
    run_here(config, tmp_path / "both")
    alone = config.model_copy(update={"data": config.data.model_copy(update={"unlabelled": None})})
    run_here(alone, tmp_path / "alone")
    with pytest.raises(AssertionError, match="tensors differ"):
        assert_equal_bits(student_weights(tmp_path / "both"), student_weights(tmp_path / "alone"))


def test_the_control_on_labels_makes_as_many_updates_without_the_heap(places: tuple[Path, Path], tmp_path: Path):
    config = half_labelled(tmp_path, places, "optim.steps=null", "optim.epochs=1")
    run_here(config, tmp_path / "main")
    control = as_control(config, "labels_only")
    assert control.data.unlabelled is None
    run_here(control, tmp_path / "control", role="control", index=build_index(config.data))
    steps = [read_json(tmp_path / name / "outcome.json")["steps"]["student"] for name in ("main", "control")]
    assert steps[0] == steps[1] == (12 + 80) // 8


def test_the_card_of_a_student_without_labels_names_the_teachers_outputs(places: tuple[Path, Path], tmp_path: Path):
    run_without_labels(config_of(*places, "optim.steps=4"), tmp_path)
    card = (tmp_path / "student" / "README.md").read_text()
    assert "A network with 3 outputs, those of its teacher" in card
    assert "classifier" not in card


def test_wrong_names_of_folders_change_no_bit(places: tuple[Path, Path], tmp_path: Path):
    for name, folders in (("right", ("left", "right")), ("wrong", ("k", "l/m"))):
        config = config_of(heap(tmp_path / name, folders=folders), places[1], "optim.steps=4")
        run_without_labels(config, tmp_path / f"run-{name}")
    assert_equal_bits(student_weights(tmp_path / "run-right"), student_weights(tmp_path / "run-wrong"))
