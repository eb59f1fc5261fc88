"""The distance of tokens against plain torch in float64, and answers that hold them beside an embedding."""

import pytest
import torch

from hard_ray.config.objective import EmbeddingObjective
from hard_ray.distillation.embedding import EmbeddingAugmentorObjective, embedding_to_keep
from hard_ray.distillation.objectives import StudentObjective, Views
from hard_ray.maths import losses
from hard_ray.maths.metrics import EmbeddingCounts
from hard_ray.maths.tokens import AnswerLayout, EmbeddingDistance, normalised, token_distance

DOUBLE = torch.float64
LAYOUT = AnswerLayout(dimension=7, rows=2, columns=3, width=4)
DISTANCE = EmbeddingDistance(0.5, LAYOUT)
LABELS = torch.zeros(5, dtype=torch.long)


def values(seed: int, *shape: int, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


S, T, S2, T2 = (values(seed, 5, LAYOUT.size) for seed in range(4))


def smooth_l1(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The mean of d^2 / 4 below a difference of 2, and of |d| - 1 above, longhand."""
    found = []
    for a, b in zip(one.flatten(1).tolist(), other.flatten(1).tolist(), strict=True):
        parts = [abs(x - y) for x, y in zip(a, b, strict=True)]
        found.append(sum(d * d / 4 if d < 2 else d - 1 for d in parts) / len(parts))
    return torch.tensor(found, dtype=DOUBLE)


def d(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """1 - cos of the first 7 values, and half the distance of the others."""
    cosine = torch.nn.functional.cosine_similarity(one[:, :7], other[:, :7])
    return 1 - cosine + 0.5 * smooth_l1(one[:, 7:], other[:, 7:])


def test_the_distance_of_tokens_is_the_mean_smooth_l1_with_beta_two():
    one, other = values(0, 5, 6, 4), values(1, 5, 6, 4)
    assert bool(((one - other).abs() < 2).any())
    assert bool(((one - other).abs() > 2).any())
    torch.testing.assert_close(token_distance(one, other), smooth_l1(one, other))
    assert torch.equal(token_distance(one, one), torch.zeros(5, dtype=DOUBLE))


def test_tokens_are_normalised_one_by_one_without_learned_parameters():
    tokens = values(2, 5, 6, 4)
    mean = tokens.mean(dim=2, keepdim=True)
    variance = (tokens - mean).square().mean(dim=2, keepdim=True)
    torch.testing.assert_close(normalised(tokens), (tokens - mean) / (variance + 1e-6).sqrt())
    assert normalised(torch.ones(1, 2, 4)).abs().max() == 0  # without variance there is no division by zero


def test_the_gradient_of_the_distance_passes_gradcheck_on_both_sides():
    pair = [S.clone().requires_grad_(), T.clone().requires_grad_()]
    assert torch.autograd.gradcheck(DISTANCE, pair)
    tokens = values(3, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(normalised, [tokens])


def test_the_distance_of_answers_adds_that_of_their_tokens_by_its_weight():
    torch.testing.assert_close(DISTANCE(S, T), d(S, T))
    torch.testing.assert_close(DISTANCE.of_tokens(S, T), smooth_l1(S[:, 7:], T[:, 7:]))
    assert torch.equal(EmbeddingDistance()(S, T), losses.cosine_distance(S, T))


def test_answers_and_tokens_of_other_shapes_are_refused_with_their_shape():
    with pytest.raises(ValueError, match=r"shape \(batch, 31\), got \(5, 30\)"):
        DISTANCE(S[:, :30], T[:, :30])
    with pytest.raises(ValueError, match=r"got \(5, 6, 4\) and \(5, 6, 3\)"):
        token_distance(values(0, 5, 6, 4), values(0, 5, 6, 3))


def test_a_layout_is_read_back_from_the_identity_that_ends_with_it():
    assert AnswerLayout.from_identity(f"0a1b-float32-{LAYOUT}") == LAYOUT
    assert AnswerLayout.from_identity("0a1b-float32-compiled-default") is None


def test_student_and_augmentor_learn_by_the_distance_with_tokens():
    student = StudentObjective(EmbeddingObjective(w_clean=2.0, w_aug=3.0, w_tokens=0.5), distance=DISTANCE)
    found = student(Views(LABELS, S, T, S2, T2), epoch=0.0)
    torch.testing.assert_close(found.total, 2 * d(T, S) + 3 * d(T2, S2))
    torch.testing.assert_close(found.parts["drift"], d(T, T2))
    torch.testing.assert_close(found.parts["token_loss"], smooth_l1(T[:, 7:], S[:, 7:]))
    assert not found.parts["token_loss"].requires_grad
    augmentor = EmbeddingAugmentorObjective(2.0, 0.5, distance=DISTANCE)
    torch.testing.assert_close(augmentor(T2, {"student": S2, "clean": T}), 0.5 * d(T, T2) - 2.0 * d(T2, S2))


def test_a_mixed_image_keeps_the_mixture_of_directions_and_of_tokens():
    sources = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0.4, 0, 0.6, 0]], dtype=DOUBLE)
    unit = T[:, :7] / T[:, :7].square().sum(dim=1, keepdim=True).sqrt()
    parts = torch.cat([unit, T[:, 7:]], dim=1)
    wanted = torch.stack([0.7 * parts[0] + 0.3 * parts[1], 0.4 * parts[1] + 0.6 * parts[3]])
    kept = embedding_to_keep(T, sources, DISTANCE)
    torch.testing.assert_close(kept["clean"], wanted)
    found = EmbeddingAugmentorObjective(1.0, 1.0, distance=DISTANCE).drift(T2[:2], kept)
    torch.testing.assert_close(found, d(wanted, T2[:2]))


def test_counts_keep_the_cosine_apart_from_the_loss():
    counts, other = EmbeddingCounts(DISTANCE), EmbeddingCounts(DISTANCE)
    counts.add(S, LABELS, T)
    other.add(S2[:2], LABELS[:2], T2[:2])
    found = counts.plus(other).metrics(with_teacher=True)
    loss = torch.cat([d(S, T), d(S2[:2], T2[:2])]).mean()
    cosine = torch.cat(
        [torch.nn.functional.cosine_similarity(a[:, :7], b[:, :7]) for a, b in ((S, T), (S2[:2], T2[:2]))]
    )
    assert found.loss == pytest.approx(float(loss))
    assert found.cosine == pytest.approx(100 * float(cosine.mean()))
    assert found.n == 7
