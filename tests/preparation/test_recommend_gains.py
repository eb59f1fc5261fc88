"""Paired differences of pilots, their errors, and what is concluded from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hard_ray.preparation.recommend_gains import (
    Answers,
    SuiteAnswers,
    gains,
    read_answers,
    retained,
    score,
    write_answers,
)
from hard_ray.preparation.recommend_verdict import Tried, judge

IMAGES = 400


def suite(right: np.ndarray, ids: np.ndarray | None = None) -> SuiteAnswers:
    rows = np.atleast_2d(right).astype(bool)
    known = np.arange(rows.shape[1]) if ids is None else ids
    return SuiteAnswers(known, rows, np.where(rows, 0.1, 2.0).astype(np.float32), rows)


def network(clean: float, shifted: float, *, seed: int = 0, luck: int = 0) -> Answers:
    """Answers of which these shares are right; networks of one `seed` fail on the same images first.

    `luck` moves so many answers at random, as another training would.
    """
    order = np.random.default_rng(seed).permutation(IMAGES)
    moved = np.random.default_rng([seed, luck]).choice(IMAGES, luck, replace=False)
    found = {}
    for name, share in (("clean", clean), ("shifts", shifted)):
        right = order < share * IMAGES
        right[moved] = ~right[moved]
        found[name] = suite(np.stack([right, right]) if name == "shifts" else right)
    return found


def test_a_network_gains_nothing_over_itself():
    found = gains([network(0.8, 0.5)], [network(0.8, 0.5)])
    assert (found.score.points, found.score.error, found.score.is_clear) == (0.0, 0.0, False)


def test_gains_are_the_means_over_images_conditions_and_suites():
    ours = {"clean": suite(np.array([1, 1, 0, 1])), "shifts": suite(np.array([[1, 0, 0, 0], [1, 1, 0, 0]]))}
    theirs = {"clean": suite(np.array([1, 0, 0, 1])), "shifts": suite(np.array([[0, 0, 0, 0], [1, 0, 0, 1]]))}
    found = gains([ours], [theirs])
    assert score(ours) == pytest.approx(100 * (3 / 4 + 3 / 8) / 2)
    assert found.suites["clean"].points == pytest.approx(25.0)
    assert found.suites["shifts"].points == pytest.approx(100 * (3 - 2) / 8)
    assert found.score.points == pytest.approx((25.0 + 12.5) / 2)


def test_the_error_of_one_suite_is_that_of_paired_flips():
    random = np.random.default_rng(1)
    ours, theirs = ({"clean": suite(random.random(2000) < share)} for share in (0.7, 0.6))
    difference = 100.0 * (ours["clean"].right[0].astype(float) - theirs["clean"].right[0])
    expected = difference.std() / len(difference) ** 0.5
    assert gains([ours], [theirs]).score.error == pytest.approx(expected, rel=0.08)


def test_conditions_of_one_image_do_not_count_as_more_images():
    random = np.random.default_rng(2)
    one, other = random.random(1000) < 0.7, random.random(1000) < 0.6
    single = gains([{"shifts": suite(one)}], [{"shifts": suite(other)}]).score.error
    repeated = gains([{"shifts": suite(np.stack([one] * 9))}], [{"shifts": suite(np.stack([other] * 9))}]).score.error
    assert repeated == pytest.approx(single)


def test_suites_on_fewer_images_are_resampled_with_the_others():
    ids = np.arange(0, IMAGES, 4)
    ours, theirs = network(0.9, 0.5), network(0.8, 0.5)
    for each, share in ((ours, 0.6), (theirs, 0.4)):
        each["corruptions"] = suite(np.random.default_rng(3).random(len(ids)) < share, ids)
    found = gains([ours], [theirs])
    assert found.suites["corruptions"].error > 2 * found.suites["clean"].error
    assert found.score.points == pytest.approx(np.mean([each.points for each in found.suites.values()]))


def test_the_spread_of_seeds_adds_to_the_error():
    pairs = [(network(0.8, 0.6), network(0.7, 0.5)), (network(0.7, 0.5), network(0.7, 0.5))]
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = gains(ours, theirs)
    assert found.over_seeds == pytest.approx([10.0, 0.0])
    assert found.score.points == pytest.approx(5.0)
    images = gains([ours[0]], [theirs[0]]).score.error / 2  # half of the difference, on the same images
    assert found.score.error == pytest.approx(np.hypot(images, np.std([10, 0], ddof=1) / 2**0.5), rel=1e-6)


def test_what_a_teacher_keeps_is_compared_with_what_a_student_keeps():
    found = retained(network(0.9, 0.81), network(0.8, 0.4))
    assert found["teacher"] == pytest.approx(90.0)
    assert found["student"] == pytest.approx(50.0)
    assert found["points"] == pytest.approx(40.0)
    assert 0 < found["error"] < 5
    assert retained({"clean": suite(np.ones(4))}, {"clean": suite(np.ones(4))}) is None


def without_labels(answers: Answers) -> Answers:
    return {name: replace(found, right=None) for name, found in answers.items()}


def test_without_labels_agreement_is_in_the_place_of_top_1():
    ours, theirs = (without_labels(network(*shares)) for shares in ((0.8, 0.6), (0.7, 0.5)))
    assert ours["clean"].metrics().keys() == {"agreement", "loss"}
    assert score(ours) == pytest.approx(100 * (0.8 + 0.6) / 2)
    assert gains([ours], [theirs]).suites["shifts"].points == pytest.approx(10.0)


def test_answers_without_labels_come_back_without_them(tmp_path: Path):
    write_answers(tmp_path / "answers.npz", without_labels(network(0.8, 0.5)))
    found = read_answers(tmp_path / "answers.npz")
    assert found["clean"].right is None
    assert score(found) == pytest.approx(65.0)


def test_answers_come_back_from_their_file(tmp_path: Path):
    ours = network(0.8, 0.5)
    write_answers(tmp_path / "answers.npz", ours)
    found = read_answers(tmp_path / "answers.npz")
    assert gains([found], [ours]).score.points == 0.0
    assert found["shifts"].metrics() == ours["shifts"].metrics()
    (tmp_path / "answers.npz").write_bytes(b"PK broken")
    with pytest.raises(ValueError, match="BadZipFile"):
        read_answers(tmp_path / "answers.npz")


# ------------------------------------------------------------------------- verdicts


def verdict(best: Answers, kd: Answers, *, teacher: Answers | None = None, labels: Answers | None = None, **tried):
    trainings = {"kd": [kd], "affine": [best], "labels_only": [labels or network(0.5, 0.3)]}
    values = {name: {name.replace("__", "."): value} for name, (value, _) in tried.items()}
    others = Tried("affine", values, {name: answers for name, (_, answers) in tried.items()}) if tried else None
    return judge(trainings, best="affine", teacher=teacher or network(0.95, 0.9), tried=others)


def test_a_clear_gain_is_recommended_with_its_uncertainty():
    found = verdict(network(0.85, 0.7), network(0.8, 0.5))
    assert (found.name, found.best, found.values, found.warnings) == ("affine", "affine", {}, [])
    assert found.sentences[0].startswith("Take affine: +12.50 ± ")
    assert "one seed" in found.sentences[1]
    assert "no others were tried" in found.sentences[2]


def test_a_gain_within_the_uncertainty_is_plain_kd():
    found = verdict(network(0.8, 0.5, luck=60), network(0.8, 0.5))
    assert (found.name, found.best) == ("kd", "affine")
    assert found.sentences[0].startswith("Take plain KD: the best candidate, affine, is not better")
    assert "No second view is worth its time here" in found.warnings[0]


def test_labels_that_do_as_well_are_said():
    found = verdict(network(0.85, 0.7), network(0.8, 0.5), labels=network(0.86, 0.7))
    assert [text for text in found.warnings if "Training on labels alone is as good: affine gains -0.50" in text]


def test_a_teacher_that_keeps_no_more_than_the_student_is_said():
    found = verdict(network(0.85, 0.7), network(0.8, 0.6), teacher=network(0.9, 0.6))
    assert [
        text for text in found.warnings if "The teacher is hardly more robust than the student: it keeps 66.7 %" in text
    ]


def test_the_suites_on_which_a_teacher_is_more_robust_are_named():
    teacher, kd, best = network(0.9, 0.85), network(0.8, 0.4), network(0.85, 0.5)
    for each, share in ((teacher, 0.1), (kd, 0.6), (best, 0.6)):
        each["corruptions"] = network(share, share)["clean"]
    found = judge({"kd": [kd], "affine": [best]}, best="affine", teacher=teacher, tried=None)
    assert [text for text in found.warnings if "hand on; on shifts alone there is: choose with --suite" in text]


def test_a_clearly_better_value_is_taken_and_others_are_not():
    tried = {
        "augmentor__strength": (0.5, network(0.9, 0.8)),
        "objective__temperature": (2.0, network(0.85, 0.7, luck=40)),
    }
    found = verdict(network(0.85, 0.7), network(0.8, 0.5), **tried)
    assert found.values == {"augmentor.strength": 0.5}
    assert "take augmentor.strength=0.5" in found.sentences[-1]


def test_without_a_finished_candidate_plain_kd_is_what_is_left():
    found = judge({"kd": [network(0.8, 0.5)]}, best=None, teacher=network(0.9, 0.8), tried=None)
    assert (found.name, found.gain) == ("kd", None)


def test_values_of_a_student_that_is_not_recommended_are_told_and_not_taken():
    kd, best = network(0.8, 0.5), network(0.8, 0.5, luck=60)
    others = Tried("affine", {"strength": {"augmentor.strength": 0.5}}, {"strength": network(0.9, 0.8)})
    found = judge({"kd": [kd], "affine": [best]}, best="affine", teacher=network(0.95, 0.9), tried=others)
    assert (found.name, found.values) == ("kd", {})
    assert "Other values of affine, against its own: strength +" in found.sentences[-1]


def test_the_spread_of_seeds_counts_for_values_that_were_tried_with_one():
    kd = [network(0.8, 0.5), network(0.8, 0.5)]
    steady, moving = [network(0.85, 0.7), network(0.85, 0.7)], [network(0.85, 0.7), network(0.95, 0.9)]
    others = Tried("affine", {"s": {"augmentor.strength": 0.5}}, {"s": network(0.88, 0.75)})
    taken = [
        judge({"kd": kd, "affine": best}, best="affine", teacher=network(0.95, 0.9), tried=others).values
        for best in (steady, moving)
    ]
    assert taken == [{"augmentor.strength": 0.5}, {}]


def test_pilots_that_have_learned_little_are_not_compared_with_the_teacher():
    found = verdict(network(0.35, 0.3), network(0.3, 0.28), teacher=network(0.9, 0.6), labels=network(0.1, 0.1))
    assert [text for text in found.warnings if "The pilots are too short to be compared with the teacher" in text]
    assert not [text for text in found.warnings if "hardly more robust" in text]


def test_without_labels_pilots_that_agree_on_few_clean_images_are_said():
    teacher = without_labels(network(1.0, 1.0))
    for clean, count in ((0.3, 1), (0.8, 0)):
        kd, best = (without_labels(network(share, 0.2)) for share in (clean, clean + 0.1))
        found = judge({"kd": [kd], "affine": [best]}, best="affine", teacher=teacher, tried=None)
        assert found.name == "affine"
        assert found.means["kd"]["clean"] == pytest.approx(100 * clean)
        text = [each for each in found.warnings if "plain KD agrees with the teacher on 30.0 % of clean images" in each]
        assert (len(text), len(found.warnings)) == (count, count)
