"""Answers that hold spatial features beside the embedding, and the distance of two of them.

A token is the feature vector of one position of an image. An answer with tokens is one row of numbers: first the
embedding, then the tokens, position by position.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hard_ray.maths import losses

BETA = 2.0
"""Difference of two values from which the token distance grows linearly instead of quadratically."""
EPSILON = 1e-6
"""Added to the variance of a token before it divides."""

Answers = Float[Tensor, "batch values"]


@dataclass(frozen=True, slots=True)
class AnswerLayout:
    """Which values of an answer are the embedding, and which the tokens."""

    dimension: int
    """Values of the embedding."""
    rows: int
    columns: int
    width: int
    """Values of a token."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of positions."""
        return self.rows, self.columns

    @property
    def size(self) -> int:
        """Values of the whole answer."""
        return self.dimension + self.rows * self.columns * self.width

    def embedding(self, answers: Answers) -> Float[Tensor, "batch dimension"]:
        """The embeddings alone."""
        return answers[:, : self.dimension]

    def tokens(self, answers: Answers) -> Float[Tensor, "batch positions width"]:
        """The tokens alone."""
        if answers.ndim != 2 or answers.shape[1] != self.size:
            raise ValueError(f"want answers of shape (batch, {self.size}), got {tuple(answers.shape)}")
        return answers[:, self.dimension :].reshape(len(answers), self.rows * self.columns, self.width)

    def __str__(self) -> str:
        """As in a teacher's identity, which ends with it."""
        return f"tokens{self.dimension}+{self.rows}x{self.columns}x{self.width}"

    @classmethod
    def from_identity(cls, identity: str) -> AnswerLayout | None:
        """The layout that a teacher's identity ends with; None: it answers without tokens."""
        found = re.search(r"-tokens(\d+)\+(\d+)x(\d+)x(\d+)$", identity)
        return None if found is None else cls(*map(int, found.groups()))


@dataclass(frozen=True, slots=True)
class EmbeddingDistance:
    r"""The distance of two answers, one value per image.

    .. math:: D(a, b) = 1 - \cos(a, b) + w \, D_{\mathrm{tokens}}(a, b)

    Without a layout, an answer is an embedding alone, and the distance 1 - cos.
    """

    w_tokens: float = 0.0
    layout: AnswerLayout | None = None

    def __call__(self, one: Answers, other: Answers) -> Float[Tensor, " batch"]:
        """D, which is zero for equal answers."""
        found = losses.cosine_distance(self.embedding(one), self.embedding(other))
        return found if self.layout is None else found + self.w_tokens * self.of_tokens(one, other)

    def embedding(self, answers: Answers) -> Float[Tensor, "batch dimension"]:
        """The embeddings of answers."""
        return answers if self.layout is None else self.layout.embedding(answers)

    def of_tokens(self, one: Answers, other: Answers) -> Float[Tensor, " batch"]:
        """The distance of the tokens, without its weight."""
        if self.layout is None:
            raise ValueError("want answers with tokens, got a distance of embeddings alone")
        return token_distance(self.layout.tokens(one), self.layout.tokens(other))

    def mixture(self, answers: Answers, sources: Float[Tensor, "views batch"]) -> Float[Tensor, "views values"]:
        """Mixtures of answers by the shares of `sources`: of the embeddings' directions, and of the tokens."""
        mixed = sources @ losses.directions(self.embedding(answers)).to(sources.dtype)
        if self.layout is None:
            return mixed
        return torch.cat([mixed, sources @ answers[:, self.layout.dimension :].to(sources.dtype)], dim=1)


def normalised(tokens: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """Tokens of mean 0 and variance 1, each over its own values."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=EPSILON)


def token_distance(
    one: Float[Tensor, "batch positions width"], other: Float[Tensor, "batch positions width"]
) -> Float[Tensor, " batch"]:
    r"""Smooth-L1 distance of tokens, as a mean over positions and channels.

    .. math:: \mathrm{mean} \begin{cases} d^2 / 2\beta & |d| < \beta \\ |d| - \beta / 2 & \text{otherwise} \end{cases}

    with the difference d of two values and :math:`\beta = 2`.

    Source: Wei et al. 2022, arXiv:2205.14141, section 3, where the teacher's tokens are normalised as here. The student
    there has the teacher's grid; here its map is resized to it.
    """
    if one.ndim != 3 or one.shape != other.shape:
        raise ValueError(
            f"want two tensors of tokens of one shape (batch, positions, width), got {tuple(one.shape)} and "
            f"{tuple(other.shape)}"
        )
    return F.smooth_l1_loss(one, other, beta=BETA, reduction="none").mean(dim=(1, 2))
