import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hard_ray.config.validation import EvaluationAttack
from hard_ray.distillation.teacher import FrozenNetwork
from hard_ray.evaluation.changes import Shift
from hard_ray.evaluation.measure import MeasuredNetworks
from hard_ray.evaluation.results import evaluation_numbers
from hard_ray.evaluation.suites import Condition
from hard_ray.maths.metrics import Counts
from hard_ray.networks.network import InputContract, Network


class Linear(nn.Module):
    """Three classes, each a weighted sum of the pixels."""

    pretrained_cfg = {"architecture": "linear"}
    num_classes = 3

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 16, generator=torch.Generator().manual_seed(seed)))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T


def teacher(seed: int) -> FrozenNetwork:
    return FrozenNetwork(Network(Linear(seed), InputContract((0.0,), (1.0,), None, "bicubic")))


def images(count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return pixels, random.integers(0, 3, count), np.arange(count)


def longhand(seed: int, pixels: np.ndarray) -> np.ndarray:
    weight = Linear(seed).weight.detach().numpy().astype(np.float64)
    return (pixels.reshape(len(pixels), -1) / 255.0) @ weight.T


def test_counts_equal_longhand_ones_whatever_the_batch():
    pixels, labels, ids = images()
    student, beside = longhand(1, pixels), longhand(2, pixels)
    for batch_size in (7, 64):
        own, other = MeasuredNetworks(teacher(1), teacher(2), batch_size).counts(
            Condition("clean", "0"), pixels, labels, ids
        )
        score = own.metrics(with_teacher=True)
        assert score.n == 40
        assert score.top1 == pytest.approx(100 * (student.argmax(1) == labels).mean())
        assert score.agreement == pytest.approx(100 * (student.argmax(1) == beside.argmax(1)).mean())
        assert other.metrics().top1 == pytest.approx(100 * (beside.argmax(1) == labels).mean())


def test_a_mask_compares_its_classes_alone():
    pixels, labels, ids = images()
    part = Condition("subset", "0", outputs=(2, 0))
    rows = labels != 1
    places = np.where(labels[rows] == 2, 0, 1)
    own, _ = MeasuredNetworks(teacher(1), None, 16).counts(part, pixels[rows], places, ids[rows])
    guesses = longhand(1, pixels[rows])[:, [2, 0]].argmax(1)
    assert own.metrics().top1 == pytest.approx(100 * (guesses == places).mean())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_attack_equals_a_longhand_ascent_of_the_networks_own_loss(norm: str):
    pixels, labels, ids = images()
    config = EvaluationAttack(norm=norm, eps=0.2, step_size=0.07, steps=4, random_start=0.0)
    own, other = MeasuredNetworks(teacher(1), teacher(2), 16).counts(
        Condition("pgd", "0.2", attack=config), pixels, labels, ids
    )
    attacked = {seed: ascend(seed, pixels / 255.0, labels, norm) for seed in (1, 2)}
    guess = {seed: longhand(seed, 255.0 * found).argmax(1) for seed, found in attacked.items()}
    assert own.metrics(with_teacher=True).top1 == pytest.approx(100 * (guess[1] == labels).mean())
    assert other.metrics().top1 == pytest.approx(100 * (guess[2] == labels).mean())
    seen = longhand(2, 255.0 * attacked[1]).argmax(1)
    assert own.metrics(with_teacher=True).agreement == pytest.approx(100 * (guess[1] == seen).mean())
    clean = 100 * (longhand(1, pixels).argmax(1) == labels).mean()
    assert own.metrics().top1 < clean


def ascend(seed: int, centre: np.ndarray, labels: np.ndarray, norm: str) -> np.ndarray:
    """Four steps of 0.07 within 0.2, in float64 and by hand."""
    weight = Linear(seed).weight.detach().numpy().astype(np.float64)
    found = centre.copy()
    for _ in range(4):
        logits = found.reshape(len(found), -1) @ weight.T
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        chances[np.arange(len(labels)), labels] -= 1.0
        gradient = (chances @ weight).reshape(found.shape)
        if norm == "linf":
            found = np.clip(found + 0.07 * np.sign(gradient), centre - 0.2, centre + 0.2)
        else:
            length = np.sqrt((gradient**2).sum((1, 2, 3), keepdims=True))
            offset = found + 0.07 * gradient / length - centre
            away = np.sqrt((offset**2).sum((1, 2, 3), keepdims=True))
            found = centre + offset * np.minimum(1.0, 0.2 / away)
        found = np.clip(found, 0.0, 1.0)
    return found


def counts(*outcomes: tuple[bool, float]) -> Counts:
    """Images whose guess is right or wrong, with a confidence in it."""
    counted = Counts()
    for right, confidence in outcomes:
        logits = torch.tensor([[confidence, 1 - confidence]], dtype=torch.float64).log()
        counted.add(logits, torch.tensor([0 if right else 1]), torch.zeros(1, 2))
    return counted


def test_a_suites_numbers_are_sums_over_its_parts_and_what_stands_aside_is_not_in_them():
    parts = (Condition("fog", "1"), Condition("fog", "2"), Condition("clean", "0", is_aside=True))
    students = [counts((True, 0.9), (False, 0.8)), counts((True, 0.7), (True, 0.7)), counts((False, 0.6))]
    student, teacher_of = evaluation_numbers(parts, students, None, has_mce=False)
    assert teacher_of == {}
    assert student["top1"] == 75.0
    assert student["n"] == 4
    assert student["by"] == {"fog": {"1": 50.0, "2": 100.0}}
    assert student["clean_top1"] == 0.0
    assert "agreement" not in student
    np.testing.assert_allclose(student["reliability"], [[2, 70, 100], [1, 80, 0], [1, 90, 100]], atol=1e-4)


def test_corruptions_are_compared_with_the_teachers():
    parts = (Condition("fog", "1"), Condition("snow", "1"))
    students = [counts((True, 0.9), (False, 0.8)), counts((False, 0.7), (False, 0.7))]
    teachers = [counts((True, 0.9), (False, 0.8)), counts((True, 0.7), (False, 0.7))]
    student, _ = evaluation_numbers(parts, students, teachers, has_mce=False)
    assert student["mce_vs_teacher"] == pytest.approx(100 * (1 + 2) / 2)
    shifts, _ = evaluation_numbers(
        (Condition("shift", "1", change=Shift(1, 1)),), students[:1], teachers[:1], has_mce=False
    )
    assert "mce_vs_teacher" not in shifts


def test_one_corruption_at_one_severity_is_a_suite():
    pixels, labels, ids = images()
    part = Condition("fog", "3")
    own, other = MeasuredNetworks(teacher(1), teacher(2), 16).counts(part, pixels, labels, ids)
    student, beside = evaluation_numbers([part], [own], [other], has_mce=True)
    assert student["by"] == {"fog": {"3": student["top1"]}}
    assert student["mce_vs_teacher"] == pytest.approx(100 * (100 - student["top1"]) / (100 - beside["top1"]))
    assert "mce" not in student
