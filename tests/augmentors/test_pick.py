"""CutMixPick: which candidates there are, and which are kept."""

import numpy as np
import pytest
import torch

from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.build import build_augmentor
from hard_ray.augmentors.pick import Criterion, Pick, picked
from hard_ray.config.augmentor import CutmixAugmentor, MixupAugmentor, PickAugmentor, SequenceAugmentor

GENERATOR = torch.Generator().manual_seed(0)
T, S = (3 * torch.randn(20, 7, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


def made(**settings: object) -> Pick:
    augmentor = build_augmentor(PickAugmentor(**settings), in_chans=1, img_size=12)
    assert isinstance(augmentor, Pick)
    return augmentor


def batch(augmentor: Pick, rows: int = 6) -> AugmentationInput:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(rows, 1, 12, 12, generator=generator)
    return AugmentationInput(images, torch.randn(rows, augmentor.noise_dim, generator=generator))


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_the_scores_equal_their_definitions_longhand():
    p, q = softmax(T.numpy()), softmax(S.numpy())
    assert np.allclose(Criterion("teacher_entropy")(T, None), -(p * np.log(p)).sum(axis=1), atol=1e-12)
    assert np.allclose(Criterion("student_entropy")(None, S), -(q * np.log(q)).sum(axis=1), atol=1e-12)
    p4, q4 = softmax(T.numpy() / 4), softmax(S.numpy() / 4)
    assert np.allclose(Criterion("kl", 4.0)(T, S), (p4 * np.log(p4 / q4)).sum(axis=1), atol=1e-12)


def test_each_score_says_whose_logits_it_wants():
    wants = {kind: (Criterion(kind).needs_teacher, Criterion(kind).needs_student) for kind in ("kl", "teacher_entropy")}
    assert wants == {"kl": (True, True), "teacher_entropy": (True, False)}
    assert (Criterion("student_entropy").needs_teacher, Criterion("student_entropy").needs_student) == (False, True)
    with pytest.raises(ValueError, match="wants logits"):
        Criterion("kl")(T, None)


def test_the_largest_scores_are_kept_and_of_equal_ones_the_earlier():
    assert picked(torch.tensor([0.1, 0.9, 0.5, 0.9, 0.9]), 2).tolist() == [1, 3]
    scores = torch.rand(40, generator=torch.Generator().manual_seed(2))
    assert set(picked(scores, 20).tolist()) == set(np.argsort(-scores.numpy())[:20].tolist())


def test_candidates_are_independent_draws_one_after_the_other():
    augmentor = made(pool=3)
    given = batch(augmentor)
    view = augmentor.view(given)
    inner = build_augmentor(CutmixAugmentor(), in_chans=1, img_size=12)
    for number in range(3):
        alone = inner.view(given.with_noise(given.noise[:, 4 * number : 4 * number + 4]))
        rows = slice(6 * number, 6 * number + 6)
        assert torch.equal(view.images[rows], alone.images)
        assert torch.equal(view.sources[rows], alone.sources)
    assert not torch.equal(view.images[:6], view.images[6:12])
    assert torch.equal(augmentor(given), view.images[:6])


def test_strength_is_that_of_what_is_drawn_from_and_zero_is_the_identity():
    given = batch(made())
    assert made(strength=0.0).view(given).images is given.images
    half = made(strength=0.5, augmentor=MixupAugmentor(strength=0.5))
    assert half.inner.config.strength == 0.25


def test_a_pool_of_a_sequence_is_drawn_from_the_whole_sequence():
    parts = SequenceAugmentor(augmentors=(MixupAugmentor(), CutmixAugmentor()))
    augmentor = made(augmentor=parts)
    view = augmentor.view(batch(augmentor))
    assert view.images.shape == (12, 1, 12, 12)
    assert torch.allclose(view.sources.sum(dim=1), torch.ones(12))
    assert (view.sources > 0).sum(dim=1).max() > 2
