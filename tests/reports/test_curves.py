from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from hard_ray.config.controller import Phase
from hard_ray.reports.curves import AUGMENTOR_TURN, POINTS, draw_robustness, draw_training, draw_validation, is_curve
from hard_ray.reports.figures import COLOURS, to_svg
from hard_ray.reports.run.distribution import density, draw_distribution
from tests.runs.test_snapshots import snapshot

PHASES = [(Phase.STUDENT, 0, 10), (Phase.AUGMENTOR, 10, 15), (Phase.STUDENT, 15, 20)]


def lines_of(axis) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}


def test_training_curves_hold_the_logged_values():
    points = [{"step": 10, "train/loss": 2.0, "train/disagreement": 0.5}, {"step": 20, "train/loss": 1.0}]
    loss, disagreement, _ = draw_training(points, PHASES).axes
    assert lines_of(loss) == {"student loss": ([10, 20], [2.0, 1.0])}
    assert list(lines_of(disagreement).values()) == [([10], [0.5])]


def test_without_an_augmentor_the_loss_is_alone():
    figure = draw_training([{"step": 10, "train/loss": 2.0}], [(Phase.STUDENT, 0, 10)])
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss"]


def turns(phases: list[tuple[Phase, int, int]]) -> list[tuple[float, float, float]]:
    """Begin, end and depth of the augmentor's bars."""
    strip = draw_training([{"step": 1, "train/loss": 1.0}], phases).axes[-1]
    _, *bars = strip.patches
    assert {bar.get_facecolor()[:3] for bar in bars} == {to_rgba(AUGMENTOR_TURN)[:3]}
    return [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_facecolor()[3]) for bar in bars]


def test_the_strip_shows_whose_turn_it_was():
    assert turns(PHASES) == [(0, 10, 0), (10, 15, 1), (15, 20, 0)]


def test_a_strip_of_thousands_of_switches_shows_shares():
    phases = [
        (Phase.AUGMENTOR if number % 2 else Phase.STUDENT, 50 * number, 50 * number + 50) for number in range(4000)
    ]
    bars = turns(phases)
    assert len(bars) <= 480
    assert sum(depth * (end - begin) for begin, end, depth in bars) == pytest.approx(100_000)


def test_long_curves_are_thinned_to_means():
    points = [{"step": step, "train/loss": float(step)} for step in range(1, 10_001)]
    (updates, losses) = lines_of(draw_training(points, PHASES[:1]).axes[0])["student loss"]
    assert len(updates) == POINTS
    assert (updates[0], losses[0]) == (10.5, 10.5)
    assert np.mean(losses) == pytest.approx(5000.5)


def test_validation_curves_are_named_by_suite():
    points = [
        {"step": step, "val/top1": 90.0 + step, "val/shifted/top1": 20.0, "val/agreement": 80.0, "val/ece": 3.0}
        for step in (1, 2)
    ]
    tops, agreement = draw_validation(points).axes
    assert lines_of(tops) == {"clean": ([1, 2], [91.0, 92.0]), "shifted": ([1, 2], [20.0, 20.0])}
    assert lines_of(agreement) == {"clean": ([1, 2], [80.0, 80.0])}


def test_robustness_is_drawn_in_the_order_of_the_numbers():
    by = {"10": 30.0, "2": 80.0, "0": 90.0}
    (axis,) = draw_robustness("shift", {"teacher": by}, {"teacher": COLOURS["teacher"]}).axes
    assert lines_of(axis) == {"teacher": ([0, 2, 10], [90.0, 80.0, 30.0])}
    assert axis.get_xlabel() == "shift, pixels"


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ({"shift": {"0": 90.0, "1": 80.0}}, True),
        ({"rotation": {"-45": 10.0, "0.5": 20.0}}, True),
        ({"shift": {"0": 90.0}}, False),
        ({"shift": {"weak": 90.0, "strong": 80.0}}, False),
        ({"shift": {"1": 90.0, "nan": 80.0}}, False),
        ({"fog": {"1": 1.0, "2": 2.0}, "snow": {"1": 1.0, "2": 2.0}}, False),
        ({}, False),
    ],
)
def test_one_condition_at_several_numbers_is_a_curve(by: dict, expected: bool):
    assert is_curve(by) is expected


def test_a_density_keeps_what_lies_at_a_bound():
    found = density(np.array([0.0, 0.0, 1.0, 0.5]), 0.0, 1.0)
    assert found.sum() == pytest.approx(1.0)
    assert found.argmax() == 0


def test_a_distribution_has_a_panel_within_bounds_for_each_parameter():
    figure = draw_distribution([snapshot(step) for step in (0, 1200)])
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_xlabel() for axis in shown] == ["mix: share of the own image", "odd"]
    assert shown[0].get_xlim() == (0.0, 1.0)
    drawn = np.concatenate([snapshot(step).samples["odd"] for step in (0, 1200)])
    assert shown[1].get_xlim() == pytest.approx((drawn.min(), drawn.max()))
    assert [text.get_text() for text in shown[0].get_yticklabels()] == ["1,200", "0"]


def test_the_title_of_a_single_parameter_is_not_cut_off():
    first = snapshot(0)
    name = next(iter(first.samples))
    figure = draw_distribution([replace(first, samples={name: first.samples[name]})])
    figure.draw_without_rendering()
    title = figure._suptitle.get_window_extent()
    assert 0 <= title.x0 < title.x1 <= figure.bbox.x1


def test_equal_draws_without_bounds_can_be_drawn():
    still = replace(snapshot(), samples={"x": np.zeros(8, dtype=np.float32)}, bounds={})
    assert draw_distribution([still]).axes[0].get_xlim() == (-0.5, 0.5)


def test_an_svg_takes_its_colours_from_the_page_and_loads_nothing():
    svg = to_svg(draw_training([{"step": 10, "train/loss": 2.0}], PHASES))
    assert svg.startswith("<svg")
    assert "var(--ink)" in svg
    assert COLOURS["ink"] not in svg
    assert "://" not in svg
    assert "augmentor</text>" in svg
    assert svg == to_svg(draw_training([{"step": 10, "train/loss": 2.0}], PHASES))
