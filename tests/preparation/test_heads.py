"""Probes are scikit-learn's, prototypes are unit vectors with the wanted entropy, and mistakes are named."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hard_ray.config.heads import NeighbourConfig, ProbeHead, PrototypesHead, head_settings
from hard_ray.data.feature_shard import Features
from hard_ray.errors import ConfigError, DataError
from hard_ray.networks.tower import CosineHead
from hard_ray.preparation.heads import (
    ITERATIONS,
    TOLERANCE,
    check_labels,
    fit_probe,
    fit_prototypes,
    logits_of,
    mean_entropy,
    neighbour_top1,
    temperature_for,
)


def data(classes: int, *, per_class: int = 40, noise: float = 1.2) -> tuple[SimpleNamespace, dict[str, Features]]:
    """Features around a centre for each class, of very different scales; the last feature does not vary."""
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(classes), per_class)
    values = random.normal(size=(classes, 6))[labels] + noise * random.normal(size=(len(labels), 6))
    values = np.concatenate([values * np.array([1, 10, 0.1, 1, 5, 1]) + 3.0, np.full((len(labels), 1), 2.5)], axis=1)
    ids, whole = np.arange(len(labels)), values.astype(np.float32)
    cuts = {"train": slice(0, len(ids) // 2), "val": slice(len(ids) // 2, 3 * len(ids) // 4)}
    cuts["test"] = slice(cuts["val"].stop, None)
    index = SimpleNamespace(
        labels=labels,
        has_labels=True,
        classes=tuple(f"c{number}" for number in range(classes)),
        rows=lambda split: ids[cuts[split]],
    )
    return index, {split: Features(ids[cut], whole[cut]) for split, cut in cuts.items()}


def scikit(index: SimpleNamespace, features: dict[str, Features], c: float):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=ITERATIONS, tol=TOLERANCE))
    train = features["train"]
    return model.fit(train.values.astype(np.float64), index.labels[train.sample_ids])


@pytest.mark.parametrize("classes", [2, 5])
def test_a_probe_has_the_coefficients_and_probabilities_of_scikit_learn(classes: int):
    index, features = data(classes)
    made = fit_probe(features, index, ProbeHead(c=(0.3,)), lambda _: None)
    model = scikit(index, features, 0.3)
    scaler, regression = model[0], model[1]
    coefficients = regression.coef_ / scaler.scale_
    intercepts = regression.intercept_ - coefficients @ scaler.mean_
    if classes == 2:
        coefficients, intercepts = np.stack([-coefficients[0], coefficients[0]]) / 2, np.array([-1, 1]) * intercepts / 2
    assert np.allclose(made.head.weight.numpy(), coefficients, atol=1e-4)
    assert np.allclose(made.head.bias.numpy(), intercepts, atol=1e-4)
    test = features["test"]
    found = torch.softmax(logits_of(made.head, test), dim=1).numpy()
    assert np.allclose(found, model.predict_proba(test.values.astype(np.float64)), atol=1e-4)
    accuracy = 100 * model.score(test.values.astype(np.float64), index.labels[test.sample_ids])
    assert made.facts["top1"]["test"] == pytest.approx(accuracy, abs=1e-3)


def test_the_validation_split_chooses_the_penalty_and_the_test_split_does_not():
    index, features = data(4, noise=2.5)
    grid = (1e-4, 1e-2, 1.0, 100.0)
    said: list[str] = []
    made = fit_probe(features, index, ProbeHead(c=grid), said.append)
    val = features["val"]
    labels = index.labels[val.sample_ids]

    def score(c: float) -> tuple[float, float]:
        probability = scikit(index, features, c).predict_proba(val.values.astype(np.float64))
        return (probability.argmax(1) == labels).mean(), np.log(probability[np.arange(len(labels)), labels]).mean()

    assert made.facts["c"] == max(grid, key=score)
    assert len(said) == 4
    shuffled = {**features, "test": Features(features["test"].sample_ids, features["test"].values[::-1].copy())}
    assert fit_probe(shuffled, index, ProbeHead(c=grid), said.append).facts["c"] == made.facts["c"]


def test_the_end_of_the_values_that_were_tried_is_said():
    index, features = data(3)
    made = fit_probe(features, index, ProbeHead(c=(1e-6, 1e-5)), lambda _: None)
    assert any("is at the end of the values that were tried" in note for note in made.notes)


def test_a_class_without_training_images_is_refused_by_name():
    index, features = data(3)
    index.classes = (*index.classes, "absent")
    with pytest.raises(DataError, match="the class 'absent' has no training image.*1 of 4 classes"):
        fit_probe(features, index, ProbeHead(), lambda _: None)


def test_data_without_labels_or_with_one_class_cannot_be_probed():
    index, _ = data(3)
    check_labels(index, "a probe")
    index.labels = np.zeros_like(index.labels)
    with pytest.raises(DataError, match="has one labelled class, and a probe needs two or more"):
        check_labels(index, "a probe")
    index.has_labels = False
    with pytest.raises(DataError, match="the data have no labels, and a probe needs them"):
        check_labels(index, "a probe")


def clusters(count: int, *, per: int = 30, seed: int = 0) -> Features:
    """Features around directions; their lengths say nothing."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(count, 16))
    values = np.repeat(centres, per, axis=0) + 0.05 * random.normal(size=(count * per, 16))
    values *= random.uniform(0.1, 10.0, size=(len(values), 1))
    return Features(np.arange(len(values)), values.astype(np.float32))


def test_prototypes_find_the_clusters_whatever_the_lengths_of_the_features():
    features = clusters(8)
    made = fit_prototypes(features, PrototypesHead(count=8))
    assert torch.allclose(made.head.weight.norm(dim=1), torch.ones(8))
    nearest = logits_of(made.head, features).argmax(dim=1).view(8, 30)
    assert all(len(set(row.tolist())) == 1 for row in nearest)
    assert len(set(nearest[:, 0].tolist())) == 8
    assert made.facts["smallest"] == made.facts["largest"] == 30


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_temperature_gives_the_wanted_share_of_the_largest_entropy(share: float):
    features = clusters(12, per=10)
    made = fit_prototypes(features, PrototypesHead(count=6, entropy=share))
    head = CosineHead(16, 6)
    head.load_state_dict({"weight": made.head.weight, "bias": made.head.bias, "scale": torch.tensor(made.head.scale)})
    probability = torch.softmax(head(torch.from_numpy(features.values)).double(), dim=1).detach().numpy()
    entropy = float(np.mean([-sum(p * math.log(p) for p in row if p > 0) for row in probability]))
    assert entropy / math.log(6) == pytest.approx(share, abs=1e-4)
    assert made.head.scale == pytest.approx(1 / made.facts["temperature"])


def test_the_entropy_rises_with_the_temperature_and_equal_cosines_have_none_to_find():
    cosines = torch.rand(50, 9, generator=torch.Generator().manual_seed(0))
    found = [mean_entropy(cosines, temperature) for temperature in (0.01, 0.1, 1.0, 10.0)]
    assert found == sorted(found)
    with pytest.raises(DataError, match="their features are too alike"):
        temperature_for(torch.ones(50, 9), 0.5 * math.log(9))


def test_a_seed_gives_the_same_prototypes_and_another_seed_others():
    features = clusters(20, per=5)
    one, same = (fit_prototypes(features, PrototypesHead(count=7, seed=3)) for _ in range(2))
    other = fit_prototypes(features, PrototypesHead(count=7, seed=4))
    assert torch.equal(one.head.weight, same.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_fewer_images_or_fewer_different_features_than_prototypes_are_refused():
    features = clusters(3, per=2)
    with pytest.raises(DataError, match="--count 7 is more than the 6 images of the training split"):
        fit_prototypes(features, PrototypesHead(count=7))
    alike = Features(np.arange(6), np.repeat(features.values[:2], 3, axis=0))
    with pytest.raises(DataError, match="--count 3 is more than the 2 different features of 6 images"):
        fit_prototypes(alike, PrototypesHead(count=3))


def test_neighbours_are_training_images_and_their_accuracy_is_counted_on_the_others():
    index, features = data(3, noise=0.2)
    assert neighbour_top1(features["train"], features["test"], index, NeighbourConfig()) == 100.0
    index.labels = np.random.default_rng(1).integers(0, 3, len(index.labels))
    assert neighbour_top1(features["train"], features["test"], index, NeighbourConfig()) < 70.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "svm"}, "kind: got 'svm'; want one of probe, prototypes, zero-shot"),
        ({"kind": "prototypes", "count": 1}, "count: "),
        ({"kind": "prototypes", "entropy": 1.5}, "entropy: "),
        ({"kind": "probe", "count": 5}, "count"),
        ({"kind": "zero-shot"}, "classes: is required"),
    ],
)
def test_options_that_a_kind_does_not_take_are_refused(options: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        head_settings(options)
