"""Losses of embeddings, which stand for those of logits where the teacher has no classes.

D(a, b) = 1 - cos(a, b), to which the distance of tokens may be added, is `EmbeddingDistance`. The roles are those of
HARD (arXiv:2305.14890): images x, their augmentation x~, embeddings t and s of teacher and student.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hard_ray.maths.tokens import EmbeddingDistance

COSINE = EmbeddingDistance()
"""1 - cos of embeddings without tokens."""


def embedding_drift(
    teacher: Float[Tensor, "batch values"], context: Mapping[str, Tensor], distance: EmbeddingDistance = COSINE
) -> Float[Tensor, " batch"]:
    """Change of the teacher's answer: D(t(x), t(x~)), from the context of `embedding_to_keep`."""
    return distance(context["clean"], teacher)


def embedding_to_keep(
    clean: Float[Tensor, "batch values"],
    sources: Float[Tensor, "views batch"] | None,
    distance: EmbeddingDistance = COSINE,
) -> dict[str, Tensor]:
    """Build the context of the drift: `clean`, the answer on the clean image, or of a mixed image a mixture.

    The mixture is that of directions, by the shares of `sources` (as in `Views`): the distance normalises it, and an
    image with a long embedding counts no more than another. Tokens, which are normalised, are mixed as they are.
    """
    if sources is None:
        return {"clean": clean}
    return {"clean": distance.mixture(clean, sources)}


@dataclass(frozen=True, slots=True)
class EmbeddingAugmentorObjective:
    r"""The loss of the augmentor of HARD on embeddings.

    .. math:: -\lambda_s \min(D(t(\tilde x), s(\tilde x)), cap) + \lambda_t D(t(x), t(\tilde x))

    Context: `student`, the projected embedding s(x~), and the context of `embedding_drift`. The disagreement of an
    image beyond the cap has no gradient along either path.

    Source: HARD, arXiv:2305.14890, section 3, with D = 1 - cos in the place of the divergence, which is ours.
    """

    lambda_s: float
    lambda_t: float
    cap: float | None = None
    distance: EmbeddingDistance = COSINE

    def __call__(self, teacher: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """One value per image."""
        disagreement = self.disagreement(teacher, context)
        if self.cap is not None:
            disagreement = disagreement.clamp(max=self.cap)
        return self.lambda_t * self.drift(teacher, context) - self.lambda_s * disagreement

    def disagreement(self, teacher: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """D(t(x~), s(x~)), without the cap; one value per image."""
        return self.distance(teacher, context["student"])

    def drift(self, teacher: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """D(t(x), t(x~)), one value per image."""
        return embedding_drift(teacher, context, self.distance)

    def to_keep(self, clean: Tensor, sources: Tensor | None) -> dict[str, Tensor]:
        """The context of the drift, see `embedding_to_keep`."""
        return embedding_to_keep(clean, sources, self.distance)
