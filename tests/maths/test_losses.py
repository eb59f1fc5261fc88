import math

import pytest
import torch
from timm.loss import JsdCrossEntropy

from hard_ray.maths.losses import cross_entropy, divergence, divergence_from, dkd, entropy, jensen_shannon


def logits(seed: int, rows: int = 5, classes: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3.0 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)


def longhand_softmax(row: list[float], temperature: float) -> list[float]:
    top = max(row)
    weights = [math.exp((value - top) / temperature) for value in row]
    return [weight / sum(weights) for weight in weights]


def longhand_kl(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_divergence_equals_longhand(temperature: float):
    a, b = logits(0), logits(1)
    expected = [
        temperature**2 * longhand_kl(longhand_softmax(x, temperature), longhand_softmax(y, temperature))
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    torch.testing.assert_close(divergence(a, b, temperature=temperature), torch.tensor(expected, dtype=torch.float64))


def test_divergence_is_zero_exactly_when_softened_outputs_agree():
    a = logits(0)
    assert torch.equal(divergence(a, a, temperature=4.0), torch.zeros(5, dtype=torch.float64))
    assert divergence(a, a + 3.0, temperature=4.0).abs().max() < 1e-12  # a constant changes no softmax
    assert (divergence(a, logits(1), temperature=4.0) > 0).all()


def test_divergence_to_the_student_has_the_gradient_of_the_cross_entropy():
    teacher, student = logits(0), logits(1).requires_grad_()
    (kd,) = torch.autograd.grad(divergence(teacher, student, temperature=4.0).sum(), student)
    expected = 4.0 * ((student / 4.0).softmax(1) - (teacher / 4.0).softmax(1))
    torch.testing.assert_close(kd, expected.detach())


def test_divergence_at_high_temperature_is_half_the_squared_distance_of_centred_logits():
    # Hinton et al. 2015, section 2.1: T^2 KL -> |centred difference|^2 / (2 N) as T grows
    a, b = logits(0), logits(1)
    difference = (a - a.mean(1, keepdim=True)) - (b - b.mean(1, keepdim=True))
    limit = difference.square().sum(1) / (2 * a.shape[1])
    torch.testing.assert_close(divergence(a, b, temperature=1e4), limit, rtol=2e-3, atol=1e-6)


def test_divergence_passes_gradcheck_in_both_arguments():
    a, b = logits(0).requires_grad_(), logits(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: divergence(x, y, temperature=4.0), (a, b))


@pytest.mark.parametrize("shape", [(5,), (4, 7), (5, 6)])
def test_a_bad_shape_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"want two tensors of logits of one shape \(batch, classes\), got \(5, 7\)"):
        divergence(logits(0), torch.zeros(shape, dtype=torch.float64), temperature=1.0)


def longhand_dkd(s: list[float], t: list[float], label: int, alpha: float, beta: float, tau: float) -> float:
    p_s, p_t = longhand_softmax(s, tau), longhand_softmax(t, tau)
    pair_s, pair_t = [p_s[label], 1 - p_s[label]], [p_t[label], 1 - p_t[label]]
    rest_s = longhand_softmax([v for i, v in enumerate(s) if i != label], tau)
    rest_t = longhand_softmax([v for i, v in enumerate(t) if i != label], tau)
    return tau**2 * (alpha * longhand_kl(pair_t, pair_s) + beta * longhand_kl(rest_t, rest_s))


def test_dkd_equals_longhand():
    s, t, labels = logits(0), logits(1), torch.tensor([0, 3, 6, 2, 3])
    expected = [
        longhand_dkd(a, b, label, 1.0, 8.0, 4.0)
        for a, b, label in zip(s.tolist(), t.tolist(), labels.tolist(), strict=True)
    ]
    found = dkd(s, t, labels, alpha=1.0, beta=8.0, temperature=4.0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_dkd_with_the_teachers_rest_as_beta_is_the_kd_loss():
    s, t, labels = logits(0), logits(1), torch.tensor([0, 3, 6, 2, 3])
    beta = 1.0 - (t / 4.0).softmax(1).gather(1, labels[:, None]).squeeze(1)
    found = dkd(s, t, labels, alpha=1.0, beta=beta, temperature=4.0)
    torch.testing.assert_close(found, divergence(t, s, temperature=4.0))


def test_dkd_is_zero_when_student_and_teacher_agree_and_passes_gradcheck():
    s, t, labels = logits(0).requires_grad_(), logits(1), torch.tensor([0, 3, 6, 2, 3])
    assert dkd(s, s, labels, alpha=1.0, beta=8.0, temperature=4.0).abs().max() < 1e-12
    assert torch.autograd.gradcheck(lambda x: dkd(x, t, labels, alpha=1.0, beta=8.0, temperature=4.0), (s,))


def test_dkd_keeps_its_precision_where_the_target_is_certain():
    s = torch.tensor([[40.0, 0.0, 1.0]], dtype=torch.float32)
    t = torch.tensor([[40.0, 1.0, 0.0]], dtype=torch.float32)
    label = torch.tensor([0])
    found = dkd(s, t, label, alpha=0.0, beta=1.0, temperature=1.0)
    exact = longhand_kl(longhand_softmax([1.0, 0.0], 1.0), longhand_softmax([0.0, 1.0], 1.0))
    assert found.item() == pytest.approx(exact, rel=1e-5)


def test_entropy_runs_from_zero_to_the_log_of_the_classes():
    certain = torch.tensor([[1e3, 0.0, 0.0]], dtype=torch.float64)
    assert entropy(certain).item() == pytest.approx(0.0, abs=1e-12)
    assert entropy(torch.zeros(1, 3)).item() == pytest.approx(math.log(3))


def test_cross_entropy_with_smoothing_equals_longhand():
    x, labels = logits(0), torch.tensor([0, 3, 6, 2, 3])
    expected = []
    for row, label in zip(x.tolist(), labels.tolist(), strict=True):
        p = longhand_softmax(row, 1.0)
        target = [0.1 / 7 + (0.9 if i == label else 0.0) for i in range(7)]
        expected.append(-sum(a * math.log(b) for a, b in zip(target, p, strict=True)))
    found = cross_entropy(x, labels, smoothing=0.1)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_divergence_from_a_softened_output_is_divergence():
    one, other = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).unbind()
    found = divergence_from((one / 3).softmax(dim=1), other, temperature=3.0)
    torch.testing.assert_close(found, divergence(one, other, temperature=3.0))


def test_the_gradient_of_an_anchor_is_finite_where_a_class_has_no_share():
    anchor = torch.tensor([[0.25, 0.75, 0.0]]).requires_grad_()
    logits = torch.tensor([[0.5, -1.0, 2.0]])
    (grad,) = torch.autograd.grad(divergence_from(anchor, logits, temperature=1.0).sum(), anchor)
    expected = anchor.detach().log() + 1 - logits.log_softmax(dim=1)
    torch.testing.assert_close(grad[:, :2], expected[:, :2])
    assert grad.isfinite().all()


def test_divergence_from_a_certain_anchor_is_its_cross_entropy():
    logits = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    anchor = torch.eye(5, dtype=torch.float64)[[0, 3, 3, 1]]
    found = divergence_from(anchor, logits, temperature=1.0)
    torch.testing.assert_close(found, -logits.log_softmax(dim=1)[torch.arange(4), torch.tensor([0, 3, 3, 1])])
    assert torch.autograd.gradcheck(
        lambda a, b: divergence_from(a.softmax(dim=1), b, temperature=2.0),
        (logits.clone().requires_grad_(), logits.flip(0).clone().requires_grad_()),
    )


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_jensen_shannon_equals_timms(views: int, scale: float):
    given = scale * torch.stack([logits(seed) for seed in range(views)])
    labels = torch.tensor([0, 3, 6, 2, 2])
    theirs = JsdCrossEntropy(num_splits=views, alpha=12, smoothing=0.1)(given.flatten(0, 1), labels.repeat(views))
    ours = cross_entropy(given[0], labels, smoothing=0.1) + 12 * jensen_shannon(given)
    torch.testing.assert_close(ours.mean(), theirs)


def test_jensen_shannon_is_zero_for_equal_views_and_at_most_the_logarithm_of_their_number():
    same = logits(0).expand(3, -1, -1)
    torch.testing.assert_close(jensen_shannon(same), torch.zeros(5, dtype=torch.float64))
    apart = 1000.0 * torch.eye(3, dtype=torch.float64)[:, None]
    torch.testing.assert_close(jensen_shannon(apart), torch.tensor([math.log(3)], dtype=torch.float64))


def test_jensen_shannon_passes_gradcheck():
    given = torch.stack([logits(seed, rows=2, classes=3) for seed in range(3)]).requires_grad_()
    assert torch.autograd.gradcheck(jensen_shannon, given)
