import numpy as np
import pytest

from hard_ray.preparation.scoring import Score
from hard_ray.reports.score_plots import draw_correlation, draw_scores

SCORES = [Score("cutmix_pick", 0.004, 0.0001, 0.0, 0.0), Score("identity", 0.006, 0.0002, 0.002, 0.0001)]


def test_bars_are_the_scores_the_lowest_on_top():
    (axis,) = draw_scores(SCORES).axes
    assert [bar.get_width() for bar in axis.patches] == [0.004, 0.006]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["cutmix_pick", "identity"]
    assert axis.yaxis_inverted()
    (whiskers,) = [lines for lines in axis.collections if len(lines.get_segments()) == 2]
    assert whiskers.get_segments()[1][:, 0] == pytest.approx([0.006 - 0.0002, 0.006 + 0.0002])


def test_losses_are_drawn_against_scores_with_their_names():
    scores = {"a": 1.0, "b": 2.0, "c": 4.0, "no loss": 9.0}
    (axis,) = draw_correlation(scores, {"c": 3.0, "a": 1.0, "b": 1.5, "no score": 7.0}).axes
    (points,) = axis.collections
    assert np.array(points.get_offsets()).tolist() == [[1.0, 1.0], [2.0, 1.5], [4.0, 3.0]]
    assert [text.get_text() for text in axis.texts] == ["a", "b", "c"]
    expected = np.corrcoef([1, 2, 4], [1, 1.5, 3])[0, 1]
    assert axis.get_title() == f"Pearson correlation {expected:.3f}, 3 augmentations"
