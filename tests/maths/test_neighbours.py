"""k-NN votes against a longhand count in float64."""

from __future__ import annotations

import math

import numpy as np
import torch

from hard_ray.maths import neighbours
from hard_ray.maths.neighbours import neighbour_votes


def longhand(asked: np.ndarray, known: np.ndarray, labels: list[int], classes: int, k: int, temperature: float):
    votes = np.zeros((len(asked), classes))
    for row, image in enumerate(asked):
        cosines = [float(image @ other / math.sqrt((image @ image) * (other @ other))) for other in known]
        for place in sorted(range(len(known)), key=lambda i: -cosines[i])[:k]:
            votes[row, labels[place]] += math.exp((cosines[place] - max(cosines)) / temperature)
    return votes


def test_votes_are_those_of_the_paper(monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 3)
    random = np.random.default_rng(0)
    asked, known, labels = random.normal(size=(7, 5)), random.normal(size=(30, 5)), random.integers(0, 4, 30)
    for k in (1, 6, 100):
        found = neighbour_votes(
            torch.tensor(asked), torch.tensor(known), torch.tensor(labels), classes=4, k=k, temperature=0.07
        )
        assert np.allclose(found.numpy(), longhand(asked, known, labels.tolist(), 4, k, 0.07), atol=1e-12)


def test_the_nearest_counts_more_than_two_that_are_far():
    known, labels = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]]), torch.tensor([0, 1, 1])
    asked = torch.tensor([[5.0, 0.0]])
    sharp = neighbour_votes(asked, known, labels, classes=2, k=3, temperature=0.07)
    assert sharp.argmax() == 0
    flat = neighbour_votes(asked, known, labels, classes=2, k=3, temperature=10.0)
    assert flat.argmax() == 1
