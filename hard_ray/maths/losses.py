"""Divergences and scores of logits, in nats, and the distance of embeddings: one value per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def divergence(
    reference: Float[Tensor, "batch classes"], other: Float[Tensor, "batch classes"], *, temperature: float
) -> Float[Tensor, " batch"]:
    r"""Softened Kullback-Leibler divergence of `other` from `reference`.

    .. math:: D_\tau(a \| b)_i = \tau^2 \, \mathrm{KL}\big(\sigma(a_i/\tau) \,\|\, \sigma(b_i/\tau)\big)

    Zero exactly when the two softened distributions agree. With the teacher as `reference` and the student as
    `other` this is the KD loss.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2. The paper writes the cross-entropy; the
    reference's entropy is subtracted here so that the minimum is zero. The gradient with respect to `other` is the
    same; the one with respect to `reference`, which the augmentor needs, is not.
    """
    _check_logits(reference, other)
    log_p = F.log_softmax(reference / temperature, dim=1)
    log_q = F.log_softmax(other / temperature, dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)


def divergence_from(
    anchor: Float[Tensor, "batch classes"], other: Float[Tensor, "batch classes"], *, temperature: float
) -> Float[Tensor, " batch"]:
    r"""Divergence of `other`'s softened logits from an anchor that is already a distribution.

    .. math:: \tau^2 \, \mathrm{KL}\big(a_i \,\|\, \sigma(b_i/\tau)\big)

    If the anchor is one network's softened output, this is `divergence`. A mixture of several outputs has no logits
    of its own, so the anchor is given in probabilities.
    """
    _check_logits(anchor, other)
    log_q = F.log_softmax(other / temperature, dim=1)
    log_anchor = anchor.clamp_min(torch.finfo(anchor.dtype).tiny).log()  # keeps the gradient finite if a class has 0
    return temperature**2 * (anchor * (log_anchor - log_q)).sum(dim=1)


def symmetric_divergence(
    one: Float[Tensor, "batch classes"], other: Float[Tensor, "batch classes"], *, temperature: float
) -> Float[Tensor, " batch"]:
    r"""Jensen-Shannon divergence of two softened answers, times 2 T^2: :math:`T^2 (KL(p\|m) + KL(q\|m))`, in nats."""
    found: Tensor = 2.0 * temperature**2 * jensen_shannon(torch.stack([one, other]) / temperature)
    return found


def cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"],
    *,
    smoothing: float = 0.0,
) -> Float[Tensor, " batch"]:
    """Cross-entropy to labels or to distributions over them; `smoothing` is spread evenly over all classes.

    It is 0 where the label is -1, that is, where there is none.
    """
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing, ignore_index=-1)


def cosine_distance(
    one: Float[Tensor, "batch dimension"], other: Float[Tensor, "batch dimension"]
) -> Float[Tensor, " batch"]:
    r"""Distance of two embeddings by their direction alone, from 0 to 2.

    .. math:: D(a, b)_i = 1 - \cos(a_i, b_i) = \tfrac12 \big\| a_i / |a_i| - b_i / |b_i| \big\|^2

    The second form is computed: it is never negative, zero exactly for equal embeddings, and loses no digits near zero.
    A zero vector has no direction; its distance from any other one is 1/2.
    """
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(
            f"want two tensors of embeddings of one shape (batch, dimension), got {tuple(one.shape)} and "
            f"{tuple(other.shape)}"
        )
    return 0.5 * (directions(one) - directions(other)).square().sum(dim=1)


def directions(embeddings: Float[Tensor, "batch dimension"]) -> Float[Tensor, "batch dimension"]:
    """Embeddings of length 1; one shorter than 1e-12 is divided by that."""
    return F.normalize(embeddings, dim=1, eps=1e-12)


def jensen_shannon(logits: Float[Tensor, "views batch classes"]) -> Float[Tensor, " batch"]:
    r"""Jensen-Shannon divergence of the answers on several views of each image, in nats.

    .. math:: \frac1n \sum_{k=1}^n \mathrm{KL}(p_k \| m), \quad m = \frac1n \sum_{k=1}^n p_k

    Zero exactly when all views have the same answer, and at most log(n).

    Source: Hendrycks et al. 2020, arXiv:1912.02781, section 3. As in its code and in timm's JsdCrossEntropy, m is at
    least 1e-7.
    """
    log_p = logits.log_softmax(dim=2)
    mean = log_p.exp().mean(dim=0)
    return (log_p.exp() * (log_p - mean.clamp(1e-7, 1.0).log())).sum(dim=2).mean(dim=0)


def dkd(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    *,
    alpha: float,
    beta: float | Float[Tensor, " batch"],
    temperature: float,
) -> Float[Tensor, " batch"]:
    r"""Decoupled KD: weighs the target class against the rest, and the rest among themselves, separately.

    .. math:: \tau^2 \big(\alpha \, \mathrm{KL}(b^T \| b^S) + \beta \, \mathrm{KL}(\hat p^T \| \hat p^S)\big)

    where b is the pair (probability of the target class, probability of the others together) and p-hat the
    distribution over the other classes. With alpha = 1 and beta = 1 - softmax(t/T)_y per image it equals
    `divergence`.

    Source: Zhao et al. 2022, arXiv:2203.08679, equations 5-7. The paper masks the target with a large negative
    number; here its column is removed, so that no precision is lost.
    """
    _check_logits(student, teacher)
    log_b_s, log_rest_s = _target_and_rest(student / temperature, labels)
    log_b_t, log_rest_t = _target_and_rest(teacher / temperature, labels)
    target = (log_b_t.exp() * (log_b_t - log_b_s)).sum(dim=1)
    rest = (log_rest_t.exp() * (log_rest_t - log_rest_s)).sum(dim=1)
    return temperature**2 * (alpha * target + beta * rest)


def entropy(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, " batch"]:
    """Entropy of softmax(logits): 0 for a certain prediction, log(classes) for a uniform one."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def _target_and_rest(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log of (target, others together), and log of the distribution over the others."""
    target = logits.gather(1, labels[:, None])
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    rest = logits.gather(1, columns + (columns >= labels[:, None]))  # a mask would wait for a GPU to count its rows
    pair = torch.cat([target, rest.logsumexp(dim=1, keepdim=True)], dim=1)
    return F.log_softmax(pair, dim=1), F.log_softmax(rest, dim=1)


def _check_logits(one: Tensor, other: Tensor) -> None:
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(
            f"want two tensors of logits of one shape (batch, classes), got {tuple(one.shape)} and {tuple(other.shape)}"
        )


def normal_divergence(mean: Float[Tensor, "*shape"], variance: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL(N(mean, variance) || N(0, 1)), in nats."""
    found: Tensor = 0.5 * (variance + mean**2 - 1.0 - variance.log())
    return found


def bernoulli_divergence(
    probability: Float[Tensor, "*shape"], expected: Float[Tensor, "#shape"]
) -> Float[Tensor, "*shape"]:
    """KL(Ber(probability) || Ber(expected)), in nats, for probabilities between 0 and 1."""
    on = torch.special.xlogy(probability, probability / expected)
    off = torch.special.xlogy(1.0 - probability, (1.0 - probability) / (1.0 - expected))
    found: Tensor = on + off
    return found
