"""The front, the verdict on HARD's rows, and the picture of both."""

import itertools

import pytest
from matplotlib.text import Text

from experiments.front import Front, Method, front_of, verdict
from experiments.picture import WIDTH, draw_front
from experiments.results import Spread, spread, value
from hard_ray.reports.figures import DPI, to_svg


def method(name: str, clean: float, corruptions: float, loss: float = 1.0, *, width: float = 0.4, seeds: int = 3):
    steps = [0.0] if seeds == 1 else [width * (number / (seeds - 1) - 0.5) for number in range(seeds)]
    return Method(
        name,
        Spread(tuple(clean + step for step in steps)),
        Spread(tuple(corruptions + step for step in steps)),
        Spread(tuple(loss + step / 100 for step in steps)),
    )


def front(*methods: Method, teacher: Method | None = None) -> Front:
    return Front(methods, teacher, "kd", ("hard",), ("hard-mix",), ("labels",))


KD = method("kd", 75.0, 50.0, 0.80)


def test_the_front_has_whatever_nothing_betters_on_both_axes_and_no_method_without_a_teacher():
    made = front(
        KD, method("a", 76.0, 55.0), method("b", 74.0, 60.0), method("c", 73.9, 59.0), method("labels", 80, 80)
    )
    assert [each.name for each in made.best] == ["a", "b"]
    assert [each.name for each in made.bettering(KD)] == ["a"]


def test_equal_accuracy_on_one_axis_is_not_better_on_both():
    assert [each.name for each in front(method("kd", 75.0, 50.0), method("a", 75.0, 51.0)).best] == ["kd", "a"]


def test_hard_wins_where_all_three_differences_exceed_the_wider_range():
    text = verdict(front(KD, method("hard", 75.6, 55.0, 0.75)))
    assert "better both on clean images and under corruptions: `hard`." in text
    assert "**No method is better than `hard` on both axes**." in text
    assert (
        "Against plain KD it has +0.6 points in clean accuracy, +5.0 points in accuracy under corruptions and -0.050 "
        "in test loss: **better in all three by more than the wider of the two ranges over seeds**." in text
    )


def test_what_is_within_the_wider_range_is_named_as_not_won():
    hard = method("hard", 75.6, 55.0, 0.81, width=0.7)
    text = verdict(front(KD, hard))
    assert "better by more than the wider of the two ranges over seeds in accuracy under corruptions, " in text
    assert "**not in clean accuracy and test loss**." in text


def test_a_lower_test_loss_is_the_better_one():
    higher = verdict(front(KD, method("hard", 76.0, 55.0, 0.85)))
    assert "in clean accuracy and accuracy under corruptions, **not in test loss**." in higher


def test_hard_that_gains_nothing_is_said_to_gain_nothing():
    text = verdict(front(KD, method("hard", 74.0, 49.0, 0.9)))
    assert "**`hard` (74.0 and 49.0) is bettered on both axes** by `kd` (75.0 and 50.0)." in text
    assert "in none of them better by more than the wider of the two ranges over seeds." in text


def test_too_few_seeds_decide_nothing():
    text = verdict(front(KD, method("hard", 79.0, 59.0, 0.5, seeds=2)))
    assert "not decided with the seeds there are (2 of `hard`)." in text
    assert "all three" not in text
    both = verdict(front(method("kd", 75.0, 50.0, seeds=1), method("hard", 79.0, 59.0, 0.5, seeds=2)))
    assert "(2 of `hard` and 1 of `kd`)" in both


def test_another_form_of_hard_is_told_apart_from_rivals_and_few_seeds_are_named():
    forms = (KD, method("hard", 76.0, 55.0), method("hard-kl", 77.0, 56.0), method("cutmix", 76.5, 55.5, seeds=1))
    text = verdict(Front(forms, None, "kd", ("hard", "hard-kl"), (), ()))
    assert "**`hard` (76.0 and 55.0) is bettered on both axes** by `cutmix` (76.5 and 55.5; seeds: 1, " in text
    assert "**No method is better than `hard-kl` on both axes**." in text
    apart = verdict(Front(forms[:3], None, "kd", ("hard", "hard-kl"), (), ()))
    assert "**Only another form of HARD betters `hard` on both axes**: `hard-kl` (77.0 and 56.0)." in apart


def test_hard_without_a_result_is_open_and_the_front_is_named_all_the_same():
    text = verdict(front(KD, method("cutmix", 76.0, 55.0)))
    assert "under corruptions: `cutmix`." in text
    assert "HARD's rows have no result yet." in text


def result(clean: float, corruptions: float, *, teacher: bool = True) -> dict:
    by = {"corruptions": {"fog": {"1": corruptions + 5, "3": corruptions}, "snow": {"1": corruptions + 7}}}
    models = {"student": {"clean": clean, "corruptions": corruptions, "adversarial": 12.5}}
    return {
        "models": models | ({"teacher": {"clean": 90.0, "corruptions": 80.0}} if teacher else {}),
        "test_loss": {"student": 0.7} | ({"teacher": 0.3} if teacher else {}),
        "agreement": {"student": {"clean": 81.0, "corruptions": 60.0}},
        "costs": {"student": {"seconds": 300.0, "seconds_per_update": 0.2, "augmentor_share": 0.0}},
        "by": {"student": by},
        "teacher_by": by if teacher else {},
    }


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("clean", 75.0),
        ("adversarial", 12.5),
        ("test loss", 0.7),
        ("severity 1", 56.0),
        ("severity 3", 50.0),
        ("severity 5", None),
        ("agreement", 81.0),
        ("agreement under corruptions", 60.0),
        ("seconds", 300.0),
        ("rotations", None),
    ],
)
def test_a_column_is_read_from_a_result(column: str, expected: float | None):
    assert value(result(75.0, 50.0), "student", column) == expected


def test_results_of_earlier_versions_have_no_agreement_and_no_seconds():
    old = result(75.0, 50.0)
    del old["agreement"], old["costs"]["student"]["seconds"]
    for column in ("agreement", "agreement under corruptions", "seconds"):
        assert value(old, "student", column) is None
    assert spread([old, result(76.0, 51.0)], "student", "seconds") == Spread((300.0,))


def test_methods_and_teacher_are_read_from_results():
    table = {"front": {"kd": "kd", "hard": ["hard"], "aside": ["labels"]}}
    results = {"labels": [result(70.0, 40.0, teacher=False)], "kd": [result(75.0, 50.0), result(76.0, 51.0)]}
    made = front_of(table, results)
    assert [each.name for each in made.methods] == ["labels", "kd"]
    assert made.methods[1].clean == Spread((75.0, 76.0))
    assert made.teacher is not None
    assert (made.teacher.clean.mean, made.teacher.corruptions.mean, made.teacher.test_loss.mean) == (90.0, 80.0, 0.3)


MANY = [
    ("labels", 70.2, 40.1),
    ("kd", 75.4, 48.3),
    ("mixup", 75.0, 50.5),
    ("cutmix", 76.5, 52.7),
    ("cutmix-pick", 76.4, 52.9),
    ("trivial-augment", 75.9, 55.6),
    ("random-policy", 75.2, 59.8),
    ("hard-affine", 75.45, 48.6),
    ("hard", 75.8, 59.4),
    ("hard-p0.02", 75.85, 59.2),
    ("hard-policy-cutmix", 75.9, 59.3),
    ("hard-mix", 75.35, 48.4),
    ("hard-vae", 75.2, 49.5),
    ("dad", 75.1, 49.9),
    ("dad-mixup", 74.8, 51.2),
]


def test_the_picture_has_a_point_and_a_label_for_each_method_the_front_and_the_teacher():
    made = front(*(method(*each) for each in MANY), teacher=method("teacher", 85.5, 66.0, width=0.0))
    figure = draw_front(made)
    (axis,) = figure.axes
    points = {
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axis.lines
        if line.get_marker() in ("o", "D", "s", "^") and len(line.get_xdata()) == 1
    }
    assert points == {(each.clean.mean, each.corruptions.mean) for each in made.methods}
    assert [text.get_text() for text in axis.texts] == [name for name, *_ in MANY]
    (drawn,) = [line for line in axis.lines if line.get_label() == "front"]
    assert list(drawn.get_xdata()) == [each.clean.mean for each in made.best]
    assert list(drawn.get_ydata()) == [each.corruptions.mean for each in made.best]
    bars = [bar for container in axis.containers for bar in container.lines[2]]
    ends = {tuple(end[0] for end in segment) for bar in bars for segment in bar.get_segments()}
    kd = next(each for each in made.methods if each.name == "kd")
    assert any(end == pytest.approx((kd.clean.low, kd.clean.high)) for end in ends)
    assert "85.5 % clean, 66.0 % under corruptions" in to_svg(figure)
    assert WIDTH * DPI <= 800


def test_labels_cover_neither_each_other_nor_points_nor_the_border():
    figure = draw_front(front(*(method(*each) for each in MANY)))
    (axis,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in axis.texts]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    inner = axis.get_window_extent()
    for box, (_, clean, corruptions) in itertools.product(boxes, MANY):
        assert not box.contains(*axis.transData.transform((clean, corruptions)))
        assert inner.x0 <= box.x0
        assert box.x1 <= inner.x1
        assert inner.y0 <= box.y0
        assert box.y1 <= inner.y1


def test_a_teacher_that_its_students_outdo_has_no_arrow_beyond_them():
    better = front(KD, method("hard", 76.0, 55.0), teacher=method("teacher", 75.5, 66.0))
    beyond = front(KD, method("hard", 76.0, 55.0), teacher=method("teacher", 85.5, 66.0))
    arrow = "\N{NORTH EAST ARROW}"
    assert arrow not in to_svg(draw_front(better))
    assert arrow in to_svg(draw_front(beyond))
