"""Heads that are fitted to features in this process: probes and prototypes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from hard_ray.config.heads import NeighbourConfig, ProbeHead, PrototypesHead
from hard_ray.data.feature_shard import Features
from hard_ray.data.index import NO_LABEL, ImageIndex, spread_places
from hard_ray.errors import DataError
from hard_ray.maths.neighbours import neighbour_votes
from hard_ray.networks.towers import Head

ITERATIONS = 1000
"""Most iterations of L-BFGS for one strength of the penalty."""
TOLERANCE = 1e-6
"""Largest component of the gradient at which L-BFGS ends."""
KMEANS_ITERATIONS = 100
RESEEDINGS = 10
"""Most rounds in which prototypes without images get a new place."""
LOOKED_AT = 16384
"""Most images, spread over the training split, whose answers decide the temperature."""
CHUNK = 4096
"""Images that are compared with all prototypes at once."""
COLDEST, HOTTEST = 1e-4, 1e3
"""Temperatures between which a bisection looks."""


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head and what is known about it."""

    head: Head
    facts: dict[str, Any]
    """Numbers for `head.json`."""
    notes: tuple[str, ...] = ()
    """Sentences about what was found."""


def check_labels(index: ImageIndex, why: str) -> None:
    """Raise a DataError unless the images have labels of two classes or more, each with a training image."""
    if not index.has_labels or not index.classes:
        raise DataError(
            f"the data have no labels, and {why} needs them; give labelled images, or fit prototypes with "
            "--kind prototypes"
        )
    labels = index.labels[index.rows("train")]
    found = np.unique(labels[labels != NO_LABEL])
    if len(found) < 2:
        raise DataError(
            f"the training split has one labelled class, and {why} needs two or more; add images of others, or fit "
            "prototypes with --kind prototypes"
        )


def fit_probe(
    features: Mapping[str, Features], index: ImageIndex, config: ProbeHead, say: Callable[[str], None]
) -> FittedHead:
    """Multinomial logistic regression on standardised features, whose `C` the validation split chooses.

    Standardisation is folded into the weights, so that the head takes features as they are. Of equal accuracies the
    lower cross-entropy wins. Raises DataError if a class has no readable training image.
    """
    train, val = features["train"], features["val"]
    labels, held = index.labels[train.sample_ids], index.labels[val.sample_ids]
    lacking = sorted(set(range(len(index.classes))) - set(labels.tolist()))
    if lacking:
        raise DataError(
            f"the class {index.classes[lacking[0]]!r} has no training image that can be read, and a probe needs one of "
            f"each; add some, or remove the class ({len(lacking)} of {len(index.classes)} classes lack them)"
        )
    if not len(held):
        raise DataError("no image of the val split can be read, and it chooses the penalty; repair the images")
    mean, std = _statistics(train.values)
    scaled = (train.values.astype(np.float64) - mean) / std
    best: tuple[float, float] | None = None
    notes: list[str] = []
    for number, c in enumerate(sorted(config.c), start=1):
        head, converged = _regression(scaled, labels, mean, std, c)
        logits = logits_of(head, val)
        score = (_top1(logits, held), -_cross_entropy(logits, held))
        say(f"probe {number} of {len(config.c)}: C {c:g}, val {score[0]:.2f} %, cross-entropy {-score[1]:.4f}")
        if not converged:
            notes.append(f"C {c:g}: L-BFGS ended after {ITERATIONS} iterations before it converged")
        if best is None or score > best:
            best, chosen, strength = score, head, c
    if len(config.c) > 1 and strength in (min(config.c), max(config.c)):
        notes.append(f"C {strength:g} is at the end of the values that were tried; others may be better")
    accuracy = {split: round(top1(chosen, part, index), 3) for split, part in features.items() if split != "train"}
    facts = {
        "kind": "probe",
        "c": strength,
        "top1": accuracy,
        "images": {k: len(v.values) for k, v in features.items()},
    }
    return FittedHead(chosen, facts, tuple(notes))


def _statistics(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each feature; 1 for a feature that does not vary."""
    mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    return mean, np.where(std > 1e-8 * np.maximum(1.0, np.abs(mean)), std, 1.0)


def _regression(
    scaled: NDArray[np.float64],
    labels: NDArray[np.int64],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    c: float,
) -> tuple[Head, bool]:
    """The head of one strength of the penalty, and whether L-BFGS converged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression(C=c, max_iter=ITERATIONS, tol=TOLERANCE).fit(scaled, labels)
    weight, bias = model.coef_ / std, model.intercept_ - (model.coef_ / std) @ mean
    if len(weight) == 1:  # of two classes scikit-learn gives the difference of the logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    converged = not any(issubclass(each.category, ConvergenceWarning) for each in caught)
    return Head(torch.from_numpy(weight).float(), torch.from_numpy(bias).float()), converged


def logits_of(head: Head, features: Features) -> Tensor:
    """A head's logits of features, shape (images, classes)."""
    values = torch.from_numpy(features.values)
    if head.scale is None:
        return values @ head.weight.T + head.bias
    unit = torch.nn.functional.normalize
    return head.scale * unit(values, dim=1) @ unit(head.weight, dim=1).T + head.bias


def top1(head: Head, features: Features, index: ImageIndex) -> float:
    """A head's accuracy on labelled images, in percent."""
    return _top1(logits_of(head, features), index.labels[features.sample_ids])


def _top1(scores: Tensor, labels: NDArray[np.int64]) -> float:
    return 100.0 * float((scores.argmax(dim=1).numpy() == labels).mean())


def _cross_entropy(logits: Tensor, labels: NDArray[np.int64]) -> float:
    return float(torch.nn.functional.cross_entropy(logits.double(), torch.from_numpy(np.array(labels))))


def neighbour_top1(known: Features, asked: Features, index: ImageIndex, config: NeighbourConfig) -> float:
    """Accuracy of the k nearest neighbours among the training images, in percent."""
    votes = neighbour_votes(
        torch.from_numpy(asked.values),
        torch.from_numpy(known.values),
        torch.from_numpy(index.labels[known.sample_ids]),
        classes=len(index.classes),
        k=config.k,
        temperature=config.temperature,
    )
    return _top1(votes, index.labels[asked.sample_ids])


def check_count(images: int, count: int) -> None:
    """Raise a DataError if there are fewer images than prototypes."""
    if images < count:
        raise DataError(
            f"--count {count} is more than the {images} images of the training split; want an image or more for each "
            f"prototype; use --count {max(2, images // 10)}, or add images"
        )


def fit_prototypes(features: Features, config: PrototypesHead) -> FittedHead:
    """Spherical k-means: unit vectors, and a temperature at which the answers have the wanted mean entropy.

    scikit-learn's k-means runs on features of length one; its centres are scaled to length one, and an image belongs to
    the prototype with the largest cosine. A prototype without an image moves to the image that is farthest from its
    own. Raises DataError if there are fewer different features than prototypes.

    Source: Dhillon and Modha 2001, Concept decompositions, section 3 (spherical k-means). They scale the centres in
    every round; scikit-learn's rounds use means, which are scaled at the end.
    """
    check_count(len(features.values), config.count)
    points = features.values / np.maximum(np.linalg.norm(features.values, axis=1, keepdims=True), 1e-12)
    different = len({point.tobytes() for point in points})
    if different < config.count:
        raise DataError(
            f"--count {config.count} is more than the {different} different features of {len(points)} images; want no "
            f"more prototypes than that; use --count {different} at most"
        )
    model = KMeans(config.count, init="k-means++", n_init=1, max_iter=KMEANS_ITERATIONS, random_state=config.seed)
    centres = _unit(model.fit(points).cluster_centers_)
    centres, moved = _without_empty(points, centres)
    looked_at = points[spread_places(len(points), LOOKED_AT)]
    cosines = torch.from_numpy(looked_at @ centres.T)
    temperature = temperature_for(cosines, config.entropy * math.log(config.count))
    weight = torch.from_numpy(centres)
    head = Head(weight, torch.zeros(config.count), 1.0 / temperature)
    nearest, cosine = _nearest(points, centres)
    sizes = np.bincount(nearest, minlength=config.count)
    facts = {
        "kind": "prototypes",
        "count": config.count,
        "seed": config.seed,
        "temperature": temperature,
        "entropy": config.entropy,
        "mean_cosine": float(cosine.mean()),
        "images": {"train": len(points)},
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
    }
    note = f"{moved} prototypes had no image, and were moved to images that are far from their own"
    return FittedHead(head, facts, (note,) if moved else ())


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    unit: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
    return unit


def _nearest(
    points: NDArray[np.float32], centres: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The number of each point's nearest centre, and the cosine to it."""
    nearest, cosine = [], []
    for start in range(0, len(points), CHUNK):
        cosines = points[start : start + CHUNK] @ centres.T
        nearest.append(cosines.argmax(axis=1))
        cosine.append(cosines.max(axis=1))
    return np.concatenate(nearest), np.concatenate(cosine)


def _without_empty(points: NDArray[np.float32], centres: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Centres each of which is nearest to an image, and how many were moved; DataError: some still are not."""
    moved, empty = 0, np.zeros(0, np.int64)
    for _ in range(RESEEDINGS):
        nearest, cosine = _nearest(points, centres)
        empty = np.flatnonzero(np.bincount(nearest, minlength=len(centres)) == 0)
        if not len(empty):
            return centres, moved
        far = np.argsort(cosine, kind="stable")[: len(empty)]
        centres = centres.copy()
        centres[empty] = points[far]
        moved += len(empty)
    raise DataError(
        f"{len(empty)} prototypes of {len(centres)} stay without an image; want one or more for each; use a "
        "smaller --count"
    )


def temperature_for(cosines: Tensor, entropy: float) -> float:
    """The temperature at which softmax(cosines / temperature) has this mean entropy, in nats, by bisection.

    The entropy rises with the temperature, from 0 to the logarithm of the number of columns. Raises DataError if the
    cosines are so alike that no temperature between `COLDEST` and `HOTTEST` gives it.
    """
    low, high = math.log(COLDEST), math.log(HOTTEST)
    if not mean_entropy(cosines, COLDEST) < entropy < mean_entropy(cosines, HOTTEST):
        raise DataError(
            f"no temperature between {COLDEST:g} and {HOTTEST:g} gives the prototypes a mean entropy of {entropy:.3f} "
            "nats: their features are too alike; name another tower, or a smaller --count"
        )
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_entropy(cosines, math.exp(middle)) < entropy else (low, middle)
    return math.exp((low + high) / 2)


def mean_entropy(cosines: Tensor, temperature: float) -> float:
    """Mean entropy of softmax(cosines / temperature), in nats."""
    total = 0.0
    for part in cosines.split(CHUNK):
        logs = torch.log_softmax(part.double() / temperature, dim=1)
        total -= float((logs.exp() * logs).sum())
    return total / len(cosines)


def describe_head(config: ProbeHead | PrototypesHead, index: ImageIndex) -> str:
    """A head that will be fitted, in a sentence."""
    if isinstance(config, ProbeHead):
        tried = ", ".join(f"{c:g}" for c in sorted(config.c))
        return f"probe: logistic regression for {len(index.classes)} classes; the val split chooses C of {tried}"
    return (
        f"prototypes: {config.count} centres of spherical k-means, seed {config.seed}; mean entropy {config.entropy:g} "
        f"of log({config.count}); labels are not used"
    )
