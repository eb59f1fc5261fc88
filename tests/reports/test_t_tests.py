"""t-tests over seeds, against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from hard_ray.reports.comparison.t_tests import Difference, cautions, compare_means

FIRST = [(0, 95.0), (1, 94.2), (2, 95.6)]
SECOND = [(0, 96.1), (1, 95.5), (2, 96.0)]


def test_a_paired_test_by_hand():
    # differences 1.1, 1.3, 0.4: mean 14/15; squares about it sum to 67/150, so the variance is 67/300
    found = compare_means(FIRST, SECOND)
    mean, error = 14 / 15, np.sqrt(67 / 300 / 3)
    quantile = 4.302652729911275  # of t with 2 degrees of freedom at 0.975
    assert found == Difference("paired", (3, 3), *(pytest.approx(value) for value in (
        mean, mean - quantile * error, mean + quantile * error,
        1 - (mean / error) / np.sqrt(2 + (mean / error) ** 2),  # the two-sided tail has a closed form at 2 degrees
    )))  # fmt: skip


def test_a_paired_test_is_scipys_and_knows_no_order():
    found = compare_means(FIRST, SECOND[::-1])
    expected = stats.ttest_rel([value for _, value in SECOND], [value for _, value in FIRST])
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_only_common_seeds_are_paired():
    found = compare_means([*FIRST, (7, 0.0)], [(9, 0.0), *SECOND])
    assert found == compare_means(FIRST, SECOND)


def test_without_common_seeds_it_is_welchs_test():
    other = [(seed + 10, value) for seed, value in SECOND[:2]]
    found = compare_means(FIRST, other)
    a, b = np.array([value for _, value in FIRST]), np.array([value for _, value in other])
    error = np.sqrt(a.var(ddof=1) / 3 + b.var(ddof=1) / 2)
    degrees = error**4 / ((a.var(ddof=1) / 3) ** 2 / 2 + (b.var(ddof=1) / 2) ** 2 / 1)  # Welch-Satterthwaite
    half = stats.t.ppf(0.975, degrees) * error
    assert (found.test, found.n) == ("welch", (3, 2))
    assert found.difference == pytest.approx(b.mean() - a.mean())
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.difference) / error, degrees))


@pytest.mark.parametrize("second", [[(0, 96.0), (0, 95.0)], [(0, 96.0), (5, 95.0)]])
def test_a_seed_without_one_partner_is_not_paired(second: list):
    assert compare_means(FIRST, second).test == "welch"


def test_one_run_is_no_sample():
    assert compare_means(FIRST, SECOND[:1]) is None
    assert compare_means([], SECOND) is None


@pytest.mark.parametrize("offset", [0, 10])
def test_what_does_not_scatter_cannot_be_tested(offset: int):
    second = [(seed + offset, 50.0) for seed in range(3)]
    found = compare_means([(seed, 49.3) for seed in range(3)], second)
    assert found.difference == pytest.approx(0.7)
    assert (found.low, found.high, found.p) == (None, None, None)


def test_cautions_name_the_fewest_seeds_and_the_number_of_tests():
    few, many = compare_means(FIRST, SECOND), Difference("welch", (20, 20), 1.0, 0.5, 1.5, 0.01)
    assert cautions([]) == []
    assert cautions([many]) == []
    text = " ".join(cautions([few, many]))
    assert "as few as 3 seeds" in text
    assert "Of 2 tests between ways that do not differ, about 0.1" in text
    same = Difference("paired", (12, 12), 0.0, None, None, None)
    assert "the difference is the same for every seed" in " ".join(cautions([same]))
