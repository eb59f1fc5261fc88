import pytest
import torch

from hard_ray.config.objective import (
    CrossEntropyObjective,
    DadObjective,
    DisagreementMeasure,
    DkdObjective,
    FunctionMatchingObjective,
    HardObjective,
    KdObjective,
)
from hard_ray.distillation.objectives import (
    AugmentorObjective,
    Disagreement,
    Drift,
    LabelCrossEntropy,
    StudentObjective,
    Views,
)
from hard_ray.maths import losses


def logits(seed: int) -> torch.Tensor:
    return 2.0 * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
S, T, S2, T2 = (logits(seed) for seed in range(4))
VIEWS = Views(LABELS, S, T, S2, T2)
CLEAN = Views(LABELS, S, T)


def d(a: torch.Tensor, b: torch.Tensor, temperature: float = 4.0) -> torch.Tensor:
    return losses.divergence(a, b, temperature=temperature)


def total(config: object, views: Views, *, epoch: float = 0.0, smoothing: float = 0.0) -> torch.Tensor:
    return StudentObjective(config, smoothing=smoothing)(views, epoch=epoch).total


def test_hard_is_the_weighted_sum_of_both_views_and_the_labels():
    config = HardObjective(w_clean=2.0, w_aug=3.0, w_ce=0.5, temperature=4.0)
    expected = 2 * d(T, S) + 3 * d(T2, S2) + 0.5 * losses.cross_entropy(S, LABELS)
    torch.testing.assert_close(total(config, VIEWS), expected)
    torch.testing.assert_close(total(config, CLEAN), 2 * d(T, S) + 0.5 * losses.cross_entropy(S, LABELS))


def test_kd_adds_the_second_view_with_the_same_weight():
    # arXiv 2012.02909: (1-a) CE + a [D(x) + D(x')]
    expected = 0.1 * losses.cross_entropy(S, LABELS) + 0.9 * (d(T, S) + d(T2, S2))
    torch.testing.assert_close(total(KdObjective(), VIEWS), expected)
    torch.testing.assert_close(total(KdObjective(), CLEAN), 0.1 * losses.cross_entropy(S, LABELS) + 0.9 * d(T, S))


def mixed_labels(sources: torch.Tensor) -> torch.Tensor:
    eye = torch.eye(5, dtype=torch.float64)
    return torch.stack([sum(share * eye[label] for share, label in zip(row, LABELS, strict=True)) for row in sources])


def test_the_control_adds_the_cross_entropy_of_the_second_view_to_its_mixed_labels():
    sources = torch.rand(6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    sources = sources / sources.sum(dim=1, keepdim=True)
    config = KdObjective(label_augmented=True)
    views = Views(LABELS, S, T, S2, T2, sources=sources)
    longhand = -(mixed_labels(sources) * S2.log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(total(config, views), total(KdObjective(), VIEWS) + 0.1 * longhand)
    own = total(KdObjective(), VIEWS) + 0.1 * losses.cross_entropy(S2, LABELS)
    torch.testing.assert_close(total(config, VIEWS), own)


def test_dad_is_half_of_kd_on_either_view_beside_the_labels():
    # arXiv 2311.01441: CE(s(x), y) + 1/2 D(x) + 1/2 D(x_dad)
    expected = losses.cross_entropy(S, LABELS) + 0.5 * d(T, S) + 0.5 * d(T2, S2)
    torch.testing.assert_close(total(DadObjective(), VIEWS), expected)
    assert StudentObjective(DadObjective()).learns_clean


def test_dads_released_weighting_is_4_kl_and_three_quarters_of_the_mixed_labels_on_one_batch():
    objective = StudentObjective(DadObjective(weighting="released"))
    assert not objective.learns_clean
    sources = torch.eye(6, dtype=torch.float64).repeat(2, 1) * 0.7 + 0.05
    student, teacher = torch.cat([S, S2]), torch.cat([T, T2])
    views = Views(LABELS, None, None, student, teacher, rows=torch.arange(12) % 6, sources=sources)
    kl = losses.divergence(teacher, student, temperature=4.0) / 16
    labels = -(mixed_labels(sources) * student.log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(objective(views, epoch=0).total, 0.75 * labels + 4 * kl)


def test_images_of_other_rows_keep_their_own_label_and_their_own_clean_answer():
    rows = torch.tensor([5, 5, 0, 1, 1, 2])
    views = Views(LABELS, S, T, S2, T2, rows=rows)
    term = losses.dkd(S2, T2, LABELS[rows], alpha=1.0, beta=8.0, temperature=4.0)
    found = StudentObjective(DkdObjective(warmup_epochs=0))(views, epoch=0)
    torch.testing.assert_close(found.parts["disagreement"], term)
    torch.testing.assert_close(found.parts["drift"], d(T[rows], T2))


def test_drift_of_a_mixed_image_is_from_the_mixture_of_clean_answers():
    sources = torch.rand(6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    sources = sources / sources.sum(dim=1, keepdim=True)
    found = StudentObjective(HardObjective())(Views(LABELS, S, T, S2, T2, sources=sources), epoch=0)
    mixture = sources @ (T / 4).softmax(dim=1)
    longhand = 16 * (mixture * (mixture.log() - (T2 / 4).log_softmax(dim=1))).sum(dim=1)
    torch.testing.assert_close(found.parts["drift"], longhand)


def test_function_matching_uses_no_label():
    moved = Views(LABELS.roll(1), S, T)
    alone = StudentObjective(FunctionMatchingObjective(), has_second_view=False)
    assert torch.equal(alone(CLEAN, epoch=0).total, alone(moved, epoch=0).total)


def test_function_matching_is_on_one_view_for_both_networks():
    torch.testing.assert_close(total(FunctionMatchingObjective(), VIEWS), d(T2, S2, 1.0))
    assert not StudentObjective(FunctionMatchingObjective()).learns_clean
    alone = StudentObjective(FunctionMatchingObjective(), has_second_view=False)
    assert alone.learns_clean
    torch.testing.assert_close(alone(CLEAN, epoch=0).total, d(T, S, 1.0))


def test_cross_entropy_asks_no_teacher():
    objective = StudentObjective(CrossEntropyObjective(), smoothing=0.1)
    assert not objective.asks_teacher
    found = objective(Views(LABELS, S), epoch=0).total
    torch.testing.assert_close(found, losses.cross_entropy(S, LABELS, smoothing=0.1))


def test_dkd_warms_up_over_its_epochs():
    config = DkdObjective(warmup_epochs=20)
    ce = losses.cross_entropy(S, LABELS)
    term = losses.dkd(S, T, LABELS, alpha=1.0, beta=8.0, temperature=4.0)
    for epoch, warmth in ((0.0, 0.0), (5.0, 0.25), (20.0, 1.0), (50.0, 1.0)):
        torch.testing.assert_close(total(config, CLEAN, epoch=epoch), ce + warmth * term)
    both = total(config, VIEWS, epoch=20)
    torch.testing.assert_close(both, ce + term + losses.dkd(S2, T2, LABELS, alpha=1.0, beta=8.0, temperature=4.0))


def test_parts_are_logged_by_name():
    parts = StudentObjective(HardObjective())(VIEWS, epoch=0).parts
    assert set(parts) == {"ce_loss", "kd_loss", "disagreement", "drift"}
    torch.testing.assert_close(parts["drift"], d(T, T2))


def test_teacher_objectives_are_what_they_say():
    torch.testing.assert_close(Drift(4.0)(T2, {"clean": T}), d(T, T2))
    torch.testing.assert_close(Disagreement(4.0)(T2, {"student": S2}), d(T2, S2))
    torch.testing.assert_close(LabelCrossEntropy()(T, {"labels": LABELS}), losses.cross_entropy(T, LABELS))
    context = {"clean": T, "student": S2}
    expected = 0.3 * d(T, T2) - 1.0 * d(T2, S2)
    torch.testing.assert_close(AugmentorObjective(4.0, 1.0, 0.3)(T2, context), expected)


MEASURES: tuple[DisagreementMeasure, ...] = ("kl", "jensen_shannon", "relative")


def test_measures_of_disagreement_equal_their_formulas():
    """With T = 4: T^2 (KL(p||m) + KL(q||m)), and shares of T^2 KL(p||u) + 0.05 T^2."""
    context = {"clean": T, "student": S2}
    p, q = (T2 / 4.0).softmax(dim=1), (S2 / 4.0).softmax(dim=1)
    m = 0.5 * (p + q)
    symmetric = 16.0 * (p * (p / m).log() + q * (q / m).log()).sum(dim=1)
    measured = AugmentorObjective(4.0, 1.0, 0.3, measure="jensen_shannon")(T2, context)
    torch.testing.assert_close(measured, 0.3 * d(T, T2) - symmetric)
    said, kept = (d(logits, torch.zeros_like(logits)) + 0.8 for logits in (T2, T))
    measured = AugmentorObjective(4.0, 1.0, 0.3, measure="relative")(T2, context)
    torch.testing.assert_close(measured, 0.3 * d(T, T2) / kept - d(T2, S2) / said)


def test_the_answer_to_keep_of_a_mixed_image_says_what_its_mixture_says():
    anchor = 0.5 * (T / 4.0).softmax(dim=1) + 0.5 * (T.flip(0) / 4.0).softmax(dim=1)
    objective = AugmentorObjective(4.0, 0.0, 1.0, measure="relative")
    said = 16.0 * (anchor * (anchor * anchor.shape[1]).log()).sum(dim=1) + 0.8
    expected = losses.divergence_from(anchor, T2, temperature=4.0) / said
    torch.testing.assert_close(objective(T2, {"anchor": anchor, "student": S2}), expected)


@pytest.mark.parametrize("measure", ["kl", "relative"])
def test_an_uncertain_teacher_is_avoided_unless_the_loss_is_a_share_of_what_it_says(measure):
    """A flatter answer of the teacher lowers the disagreement of a student that knows nothing; its share stays."""
    student = torch.zeros_like(T2)
    sure, unsure = (
        AugmentorObjective(4.0, 1.0, 0.0, measure=measure)(scale * T2, {"clean": T, "student": student}).mean()
        for scale in (8.0, 4.0)
    )
    change = float((unsure - sure) / sure.abs())
    assert (change < 0.1) if measure == "relative" else (change > 0.3)


def test_beyond_the_cap_disagreement_gives_no_gradient_along_either_path():
    values = d(T2, S2)
    cap = float(values.median()) + 1e-9
    teacher, student = T2.clone().requires_grad_(), S2.clone().requires_grad_()
    loss = AugmentorObjective(4.0, 1.0, 0.0, cap=cap)(teacher, {"clean": T, "student": student})
    loss.sum().backward()
    beyond = values > cap
    assert beyond.any()
    assert not beyond.all()
    for grad in (teacher.grad, student.grad):
        assert grad is not None
        assert torch.equal(grad[beyond], torch.zeros_like(grad[beyond]))
        assert (grad[~beyond].abs().sum(1) > 0).all()


def test_the_two_paths_add_up_to_the_whole_gradient():
    """The sum of the gradients along both paths, each with the other network constant, is the total derivative."""
    objective = AugmentorObjective(4.0, 1.0, 0.3)
    images = torch.randn(6, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64).requires_grad_()
    to_t, to_s = (torch.randn(8, 5, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2))
    whole = objective(images.tanh() @ to_t, {"clean": T, "student": images.sin() @ to_s}).sum()
    (expected,) = torch.autograd.grad(whole, images)
    at_teacher = objective(images.tanh() @ to_t, {"clean": T, "student": (images.sin() @ to_s).detach()}).sum()
    at_worker = objective((images.tanh() @ to_t).detach(), {"clean": T, "student": images.sin() @ to_s}).sum()
    parts = [torch.autograd.grad(part, images)[0] for part in (at_teacher, at_worker)]
    torch.testing.assert_close(parts[0] + parts[1], expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_teacher_objectives_pass_gradcheck(measure):
    teacher, student = T2.clone().requires_grad_(), S2.clone().requires_grad_()
    objective = AugmentorObjective(4.0, 1.0, 0.3, measure=measure)
    assert torch.autograd.gradcheck(lambda t, s: objective(t, {"clean": T, "student": s}), (teacher, student))


def test_dkd_without_a_teacher_is_refused():
    with pytest.raises(ValueError, match="needs the teacher"):
        total(DkdObjective(), Views(LABELS, S))
