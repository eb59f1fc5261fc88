"""T. stddev of augmentations against what numpy makes of the same pixels, one batch after the other."""

from collections.abc import Mapping
from itertools import islice

import numpy as np
import pytest
import torch

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Augmentor
from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.augmentor import CutmixAugmentor, CutoutAugmentor, FlipAugmentor, PickAugmentor
from hard_ray.config.scoring import CLEAN
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.maths.noise import normal
from hard_ray.maths.t_stddev import ITERATIONS, t_stddev
from hard_ray.preparation.scoring import (
    AHEAD,
    Means,
    Scoring,
    left_out,
    mean_probabilities,
    pearson,
    ranking,
    standard_error,
)
from tests.support.helpers import digits_pipeline, tiny_config, untrained_teacher

BATCH = 16
KINDS = {"cutout": CutoutAugmentor(), "cutmix": CutmixAugmentor(), "cutmix_pick": PickAugmentor()}


@pytest.fixture(scope="module")
def pool() -> LocalPool:
    pipeline = digits_pipeline(BATCH)
    teacher = untrained_teacher(tiny_config(), pipeline.index)
    for parameter in teacher.network.model.head.parameters():
        parameter.mul_(100.0)  # a teacher that is sure of itself, so that entropies differ
    return LocalPool(teacher)


def built(kinds: Mapping[str, object] = KINDS) -> dict[str, Augmentor]:
    return {name: build_augmentor(kind, in_chans=1, img_size=16) for name, kind in kinds.items()}


def measured(pool: LocalPool, augmentors: Mapping[str, Augmentor], groups: int, means: Means | None = None) -> Means:
    """All groups in one go, from where `means` stands."""
    means = {} if means is None else means
    first = min((len(means.get(name, [])) for name in (CLEAN, *augmentors)), default=0) * ITERATIONS
    list(Scoring(augmentors, pool, seed=7).run(digits_pipeline(BATCH).train_batches(first), means, groups))
    return means


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def longhand(pool: LocalPool, name: str, groups: int) -> np.ndarray:
    """Group vectors of the clean and the augmented views together, by loops."""
    config, batches = KINDS.get(name), digits_pipeline(BATCH).train_batches(0)
    augmentor = None if config is None else build_augmentor(config, in_chans=1, img_size=16)
    vectors = []
    for _ in range(groups):
        everyone = []
        for _ in range(ITERATIONS):
            batch = next(batches)
            clean = softmax(pool.teacher.logits(batch.images))
            second = clean
            if augmentor is not None:
                noise = normal(
                    "augmentor", seed=7, epochs=batch.epochs, sample_ids=batch.sample_ids, count=augmentor.noise_dim
                )
                images = torch.from_numpy(batch.images).float() / 255
                made = augmentor.view(AugmentationInput(images, torch.from_numpy(noise))).images
                logits = pool.teacher.logits((made * 255).round().to(torch.uint8).numpy())
                second = softmax(logits)
                if name == "cutmix_pick":
                    assert len(second) == 2 * BATCH
                    entropies = [-(row * np.log(row)).sum() for row in second]
                    best = sorted(range(2 * BATCH), key=lambda place: -entropies[place])[:BATCH]
                    second = np.stack([second[place] for place in sorted(best)])
            everyone += [*clean, *second]
        assert len(everyone) == 2 * ITERATIONS * BATCH
        vectors.append(np.mean(everyone, axis=0))
    return np.stack(vectors)


@pytest.mark.parametrize("name", ["identity", *KINDS])
def test_a_score_equals_a_longhand_one(pool: LocalPool, name: str):
    groups = 4
    means = measured(pool, {} if name == "identity" else {name: built()[name]}, groups)
    vectors = longhand(pool, name, groups)
    (score,) = ranking(means, [name], groups)
    expected = np.mean([np.sqrt(((column - column.mean()) ** 2).sum() / (groups - 1)) for column in vectors.T])
    assert score.t_stddev == pytest.approx(expected, rel=1e-6)
    assert score.t_stddev > 0
    assert (score.behind, score.behind_error) == (0.0, 0.0)


def test_adding_an_augmentor_changes_no_number_of_the_others(pool: LocalPool):
    alone = measured(pool, {"cutmix": built()["cutmix"]}, 3)
    together = measured(pool, built(), 3)
    for name in (CLEAN, "cutmix"):
        assert np.array_equal(np.stack(alone[name]), np.stack(together[name])), name
    added = measured(pool, built(), 3, alone)
    assert {name: np.stack(rows).tolist() for name, rows in added.items()} == {
        name: np.stack(rows).tolist() for name, rows in together.items()
    }


class Counting(LocalPool):
    """Counts what it is asked, and what is asked before the first answer is awaited."""

    def __init__(self, teacher: FrozenNetwork) -> None:
        super().__init__(teacher)
        self.asked, self.unanswered, self.most = [], 0, 0

    def logits(self, images: np.ndarray) -> "Counting.Awaited":
        self.asked.append(len(images))
        self.unanswered += 1
        self.most = max(self.most, self.unanswered)
        return Counting.Awaited(self, super().logits(images).result())

    class Awaited:
        def __init__(self, pool: "Counting", answer: np.ndarray) -> None:
            self.pool, self.answer = pool, answer

        def result(self) -> np.ndarray:
            self.pool.unanswered -= 1
            return self.answer


def test_clean_views_are_asked_about_once_for_all_and_requests_in_flight_are_bounded(pool: LocalPool):
    counting = Counting(pool.teacher)
    measured(counting, built(), 2)
    assert counting.asked == [BATCH, BATCH, BATCH, 2 * BATCH] * (2 * ITERATIONS)
    assert counting.most == AHEAD + 1
    assert counting.unanswered == 0


def test_what_is_known_is_not_asked_again(pool: LocalPool):
    means = measured(pool, {"cutmix": built()["cutmix"]}, 2)
    counting = Counting(pool.teacher)
    measured(counting, {"cutmix": built()["cutmix"]}, 3, means)
    assert len(counting.asked) == 2 * ITERATIONS
    straight = measured(pool, {"cutmix": built()["cutmix"]}, 3)
    assert np.array_equal(np.stack(means["cutmix"]), np.stack(straight["cutmix"]))


def test_groups_are_told_of_once_every_view_has_them(pool: LocalPool):
    means: Means = {}
    scoring = Scoring(built(), pool, seed=7)
    for count in islice(scoring.run(digits_pipeline(BATCH).train_batches(0), means, 5), 2):
        assert all(len(rows) >= count for rows in means.values())
    assert count == 2


class Steady(Augmentor):
    """Images of one grey: the teacher's answer is always the same."""

    def view(self, batch: AugmentationInput) -> AugmentedView:
        return AugmentedView(torch.full_like(batch.images, 0.5))


class Wild(Augmentor):
    """All images are the batch's first, so that the mean answer of a group stands on five images."""

    def view(self, batch: AugmentationInput) -> AugmentedView:
        return AugmentedView(batch.images[:1].expand_as(batch.images))


def test_the_steadier_the_teachers_answers_the_lower_the_score(pool: LocalPool):
    augmentors = {"wild": Wild(), "steady": Steady()}
    means = measured(pool, augmentors, 20)
    scores = ranking(means, ["identity", *augmentors], 20)
    assert [score.name for score in scores] == ["steady", "identity", "wild"]
    # a second view that is always the same halves the spread of the first
    assert scores[0].t_stddev == pytest.approx(scores[1].t_stddev / 2, rel=1e-6)
    assert not scores[2].is_tied


def test_the_standard_error_is_that_of_repeated_draws():
    random = np.random.default_rng(0)
    draws = torch.tensor(random.normal(size=(400, 80, 3)))
    values = torch.stack([t_stddev(groups) for groups in draws])
    errors = [standard_error(left_out(groups)) for groups in draws[:60]]
    assert np.mean(errors) == pytest.approx(float(values.std()), rel=0.12)


def test_the_error_of_a_difference_is_that_of_pairs():
    random = np.random.default_rng(0)
    clean = random.normal(size=(60, 4)) * 0.01 + 0.25
    means = {CLEAN: [*clean], "near": [*(clean + random.normal(size=clean.shape) * 1e-4)]}
    best, other = ranking(means, ["identity", "near"], 60)
    assert other.behind_error < 0.1 * best.error
    assert other.behind == pytest.approx(other.t_stddev - best.t_stddev)


def test_fewer_groups_than_are_known_are_the_first_ones():
    rows = list(np.random.default_rng(0).random((9, 3)))
    (few,) = ranking({CLEAN: rows}, ["identity"], 5)
    (same,) = ranking({CLEAN: rows[:5]}, ["identity"], 5)
    assert few == same


def test_probabilities_are_those_at_temperature_1():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    expected = (np.exp(2) / (np.exp(2) + 1) + 0.5) / 2
    assert mean_probabilities(logits)[0] == pytest.approx(expected)


def test_correlation():
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert pearson([1, 2, 3], [6, 4, 2]) == pytest.approx(-1.0)
    assert np.isnan(pearson([1, 1, 1], [1, 2, 3]))


def test_the_identity_at_strength_0_scores_as_the_identity(pool: LocalPool):
    still = build_augmentor(FlipAugmentor(strength=0.0), in_chans=1, img_size=16)
    means = measured(pool, {"still": still}, 3)
    assert np.array_equal(np.stack(means["still"]), np.stack(means[CLEAN]))
