from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hard_ray.config.validation import EvaluationAttack, Suite
from hard_ray.data.batch import Batch
from hard_ray.distillation.teacher import Answered, FrozenNetwork, LocalPool
from hard_ray.errors import AgreedError
from hard_ray.evaluation.cache import EvaluationCache
from hard_ray.evaluation.corruptions import Corruption
from hard_ray.evaluation.measure import MeasuredNetworks
from hard_ray.evaluation.suites import Condition
from hard_ray.evaluation.validator import Evaluator
from hard_ray.maths.metrics import Counts
from hard_ray.networks.network import InputContract, Network
from hard_ray.networks.precision import Precision
from hard_ray.ranks import Ranks


def test_counts_equal_a_longhand_example():
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], dtype=torch.float64)
    labels, teacher = torch.tensor([0, 1, 1, 0]), torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    counts = Counts()
    counts.add(probabilities[:3].log(), labels[:3], teacher[:3])
    counts.add(probabilities[3:].log(), labels[3:], teacher[3:])
    score = counts.metrics(with_teacher=True)
    assert score.n == 4
    assert score.top1 == 50.0
    assert score.agreement == 75.0
    # four bins of one image each: |1 - 0.9| + |0 - 0.6| + |1 - 0.7| + |0 - 0.8|
    assert score.loss == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.2]).mean(), abs=1e-9)
    assert score.ece == pytest.approx(100 * (0.1 + 0.6 + 0.3 + 0.8) / 4, abs=1e-4)


def test_a_calibrated_network_has_no_calibration_error():
    random = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(200_000, generator=random, dtype=torch.float64)
    labels = (torch.rand(200_000, generator=random, dtype=torch.float64) > confidence).long()
    counts = Counts()
    counts.add(torch.stack([confidence, 1 - confidence], dim=1).log(), labels)
    assert counts.metrics().ece < 0.5


class Brightness(nn.Module):
    """Class 1 where the upper left quarter is bright."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[-1] // 2
        bright = images[..., :half, :half].mean(dim=(1, 2, 3))
        return torch.stack([0.02 - bright, bright - 0.02], dim=1)


class Dot(nn.Module):
    """Class 1 where one pixel near the upper left corner is bright."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([0.1 - images[:, 0, 4, 4], images[:, 0, 4, 4] - 0.1], dim=1)


class Pool:
    def __init__(self) -> None:
        self.asked = 0

    def identity(self) -> str:
        return "x"

    def logits(self, images: np.ndarray) -> Answered:
        self.asked += 1
        return Answered(Brightness()(torch.tensor(images).float() / 255).numpy())


def batches(count: int = 3):
    for number in range(count):
        images = np.zeros((4, 1, 28, 28), dtype=np.uint8)
        labels = np.array([0, 1, 0, 1])
        images[labels == 1, :, 2:12, 2:12] = 200
        yield Batch(images, labels, np.arange(4) + 4 * number, np.zeros(4, dtype=np.int64), bad=(f"b{number}",))


def evaluator(pool: Pool | None, suites: tuple[Suite, ...] = ("clean", "shifted"), **more: object) -> Evaluator:
    precision = Precision(torch.device("cpu"))
    return Evaluator(batches, suites, img_size=28, pool=pool, precision=precision, ranks=Ranks(), **more)


def test_students_and_teachers_are_measured_per_suite_and_severity():
    heard = []
    student, teacher = evaluator(Pool(), on_bad=heard.extend).evaluate(Brightness())
    assert student["clean"].to_json() == {
        "top1": 100.0,
        "ece": pytest.approx(student["clean"].metrics.ece),
        "n": 12,
        "agreement": 100.0,
        "loss": student["clean"].metrics.loss,
    }
    assert student["shifted"].metrics.n == 96
    assert set(student["shifted"].to_json()["by"]["shift"]) == {"2", "4"}
    mean = np.mean(list(student["shifted"].by["shift"].values()))
    assert student["shifted"].metrics.top1 == pytest.approx(mean)
    assert teacher["shifted"].metrics.top1 == student["shifted"].metrics.top1
    assert heard == ["b0", "b1", "b2"]


def test_the_teacher_is_asked_once_about_images_that_fit_in_memory():
    pool = Pool()
    made = evaluator(pool)
    made.evaluate(Brightness())
    assert pool.asked == 3 * 9
    made.evaluate(Brightness())
    assert pool.asked == 3 * 9


def test_images_that_do_not_fit_are_read_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hard_ray.evaluation.validator.CACHE_BYTES", 100)
    pool = Pool()
    made = evaluator(pool)
    one, two = made.evaluate(Brightness()), made.evaluate(Brightness())
    assert one == two
    assert pool.asked > 3 * 9


def test_without_a_teacher_there_is_no_agreement():
    student, teacher = evaluator(None).evaluate(Brightness())
    assert teacher == {}
    assert "agreement" not in student["clean"].to_json()


def test_the_network_is_left_in_the_mode_it_was_in():
    network = Brightness().train()
    evaluator(None).evaluate(network)
    assert network.training


def test_what_two_suites_have_in_common_is_made_and_asked_once():
    pool = Pool()
    suites = ("clean", "translate", "shifts", "rotations")
    student, _ = evaluator(pool, suites).evaluate(Brightness())
    assert pool.asked == 3 * (1 + 6 + 6)
    assert student["shifts"].by["shift"]["0"] == student["clean"].metrics.top1
    assert student["rotations"].by["rotation"]["0"] == student["clean"].metrics.top1
    assert student["shifts"].by["shift"]["3"] == student["translate"].metrics.top1
    assert {suite: student[suite].metrics.n for suite in suites} == {
        "clean": 12,
        "translate": 12,
        "shifts": 12 * 7,
        "rotations": 12 * 7,
    }


def test_a_curve_stands_under_by_and_its_mean_is_the_suites_accuracy():
    student, teacher = evaluator(Pool(), ("shifts", "rotations", "translate")).evaluate(Dot())
    for suite, name, severities in (
        ("shifts", "shift", ["0", "1", "2", "3", "4", "5", "6"]),
        ("rotations", "rotation", ["-45", "-30", "-15", "0", "15", "30", "45"]),
    ):
        for results in (student, teacher):
            numbers = results[suite].to_json()
            assert list(numbers["by"][name]) == severities
            assert numbers["top1"] == pytest.approx(np.mean(list(numbers["by"][name].values())))
    curve = list(student["shifts"].by["shift"].values())
    assert curve[:3] == [100.0, 100.0, 100.0]  # the bright square begins two pixels before the dot
    assert min(curve[3:]) < 100
    assert "by" not in student["translate"].to_json()


@pytest.mark.parametrize("cache", [100, 2**20])
def test_a_slow_suite_is_measured_on_the_sample_and_made_once_where_it_fits(
    monkeypatch: pytest.MonkeyPatch, cache: int
):
    monkeypatch.setattr("hard_ray.evaluation.validator.CACHE_BYTES", cache)
    made, call = [], Corruption.__call__

    def counting(self: Corruption, images: np.ndarray, sample_ids: np.ndarray) -> np.ndarray:
        made.extend(sample_ids.tolist())
        return call(self, images, sample_ids)

    monkeypatch.setattr(Corruption, "__call__", counting)
    sample = np.array([1, 2, 11])  # none of the second batch
    measured = evaluator(Pool(), ("clean", "corruptions"), slow_sample=sample)
    one, _ = measured.evaluate(Brightness())
    assert (one["clean"].metrics.n, one["corruptions"].metrics.n) == (12, 15 * 3)
    assert sorted(made) == sorted(15 * [1, 2, 11])
    assert measured.evaluate(Brightness())[0] == one
    assert len(made) == 15 * 3 * (1 if cache > 100 else 2)
    assert set(one["corruptions"].to_json()["by"]["fog"]) == {"3"}
    assert len(one["corruptions"].by) == 15


def test_changed_images_are_a_sample_and_clean_ones_are_all():
    student, _ = evaluator(Pool(), ("clean", "shifts"), sample=np.array([0, 5, 11])).evaluate(Brightness())
    assert (student["clean"].metrics.n, student["shifts"].metrics.n) == (12, 7 * 3)
    whole, _ = evaluator(Pool(), ("shifts",)).evaluate(Brightness())
    assert whole["shifts"].metrics.n == 7 * 12


def test_a_teacher_is_asked_once_for_all_runs_whose_evaluation_is_kept(tmp_path: Path):
    cache, first, second = EvaluationCache(tmp_path), Pool(), Pool()
    one = evaluator(first, cache=cache).evaluate(Brightness())
    assert first.asked > 0
    assert evaluator(second, cache=cache).evaluate(Brightness()) == one
    assert second.asked == 0


def without_images(count: int = 3):
    for number, batch in enumerate(batches(count)):
        none = slice(0, 0)
        yield Batch(batch.images[none], batch.labels[none], batch.sample_ids[none], batch.epochs[none], (f"b{number}",))


def test_a_split_of_which_nothing_can_be_read_is_an_error_and_not_zero_percent():
    made = evaluator(Pool())
    made.batches = without_images
    with pytest.raises(
        AgreedError, match=r"'clean': none of its images can be read, first b0 .unreadable.; repair .*data\.val_split"
    ):
        made.evaluate(Brightness())


def test_a_sample_of_which_nothing_can_be_read_is_an_error():
    made = evaluator(Pool(), sample=np.array([4_000]))
    with pytest.raises(AgreedError, match="'shifted': none of its images can be read"):
        made.evaluate(Brightness())


def test_a_batch_without_images_is_passed_over():
    def some():
        yield from without_images(1)
        yield from batches(2)

    made = evaluator(Pool())
    made.batches = some
    student, teacher = made.evaluate(Brightness())
    assert student["clean"].metrics.n == teacher["clean"].metrics.n == 8


class Weighed(nn.Module):
    """Two classes, each a weighted sum of the pixels; never certain, so that its loss can rise."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.randn(2, 784, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(draw / 28)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(images.flatten(1) @ self.weight.T)


def weighed(seed: int) -> FrozenNetwork:
    module = Weighed(seed)
    module.pretrained_cfg, module.num_classes = {"architecture": "weighed"}, 2
    return FrozenNetwork(Network(module, InputContract((0.0,), (1.0,), None, "bicubic")))


ATTACK = EvaluationAttack(eps=0.05, step_size=0.02, steps=3)


def test_a_runs_attack_counts_what_the_evaluation_of_a_folder_counts():
    student = Weighed(1).train()
    made = evaluator(LocalPool(weighed(2)), ("clean", "adversarial"), attack=ATTACK)
    results, teacher = made.evaluate(student)
    again, teacher_again = made.evaluate(student)
    assert (again, teacher_again) == (results, teacher)
    beside = MeasuredNetworks(weighed(1), weighed(2), 4)
    expected = Counts(), Counts()
    for batch in batches():
        counted = beside.counts(
            Condition("pgd", "0.05", attack=ATTACK), batch.images, np.asarray(batch.labels), batch.sample_ids
        )
        expected = expected[0].plus(counted[0]), expected[1].plus(counted[1])
    assert results["adversarial"].metrics == expected[0].metrics(with_teacher=True)
    assert teacher["adversarial"].metrics == expected[1].metrics()
    assert results["adversarial"].metrics.loss > results["clean"].metrics.loss
    assert teacher["adversarial"].metrics.loss > teacher["clean"].metrics.loss
    assert student.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in student.parameters())
    assert int(student.norm.num_batches_tracked) == 0


def test_an_attack_needs_no_teacher_and_sees_its_sample_alone():
    made = evaluator(None, ("clean", "adversarial"), attack=ATTACK, attack_sample=np.array([1, 2, 11]))
    student, teacher = made.evaluate(Weighed(1))
    assert teacher == {}
    assert (student["clean"].metrics.n, student["adversarial"].metrics.n) == (12, 3)


def test_attacks_on_the_teacher_are_kept_between_runs_for_the_same_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = weighed(2)
    asked, gradient = [], network.loss_and_grad
    monkeypatch.setattr(network, "loss_and_grad", lambda *given: asked.append(1) or gradient(*given))
    cache, pool = EvaluationCache(tmp_path), LocalPool(network)
    first = evaluator(pool, ("adversarial",), attack=ATTACK, cache=cache).evaluate(Weighed(1))
    assert len(asked) == 3 * ATTACK.steps
    assert evaluator(pool, ("adversarial",), attack=ATTACK, cache=cache).evaluate(Weighed(1)) == first
    assert len(asked) == 3 * ATTACK.steps
    longer = ATTACK.model_copy(update={"steps": 5})
    evaluator(pool, ("adversarial",), attack=longer, cache=cache).evaluate(Weighed(1))
    assert len(asked) == 3 * (ATTACK.steps + 5)
