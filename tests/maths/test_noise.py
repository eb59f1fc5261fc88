import numpy as np

from hard_ray.maths.noise import normal, permutation, seed_of, uniform

IDS = np.arange(4000)
EPOCH = np.zeros_like(IDS)


def test_a_draw_depends_on_its_row_alone():
    together = uniform("view", seed=1, epochs=EPOCH, sample_ids=IDS, count=6)
    for rows in (IDS[::-1], IDS[17:19], IDS[100:300:7]):
        alone = uniform("view", seed=1, epochs=EPOCH[rows], sample_ids=rows, count=6)
        assert np.array_equal(alone, together[rows])
    longer = uniform("view", seed=1, epochs=EPOCH, sample_ids=IDS, count=9)
    assert np.array_equal(longer[:, :6], together)


def test_purpose_seed_epoch_and_row_each_change_the_draw():
    base = uniform("view", seed=1, epochs=EPOCH, sample_ids=IDS, count=4)
    others = [
        uniform("other", seed=1, epochs=EPOCH, sample_ids=IDS, count=4),
        uniform("view", seed=2, epochs=EPOCH, sample_ids=IDS, count=4),
        uniform("view", seed=1, epochs=EPOCH + 1, sample_ids=IDS, count=4),
        uniform("view", seed=1, epochs=EPOCH, sample_ids=IDS + 1, count=4),
    ]
    for other in others:
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.05 or np.array_equal(base[1:], other[:-1])
    assert not np.array_equal(base, others[0])


def test_uniform_draws_are_uniform_and_columns_independent():
    draws = uniform("view", seed=3, epochs=EPOCH, sample_ids=IDS, count=8)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        share = np.histogram(column, bins=10, range=(0, 1))[0] / len(column)
        assert np.abs(share - 0.1).max() < 0.025
    correlation = np.corrcoef(draws.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.06


def test_normal_draws_have_the_moments_of_a_standard_normal():
    draws = normal("augmentor", seed=0, epochs=EPOCH, sample_ids=IDS, count=33)
    assert draws.shape == (4000, 33)
    assert abs(draws.mean()) < 0.01
    assert abs(draws.std() - 1) < 0.01
    assert abs((draws**4).mean() - 3) < 0.1
    assert np.isfinite(draws).all()


def test_a_permutation_is_one_and_changes_with_the_epoch():
    one, two = (permutation("order", 1000, seed=0, epoch=epoch) for epoch in (0, 1))
    assert np.array_equal(np.sort(one), np.arange(1000))
    assert not np.array_equal(one, two)
    assert np.array_equal(one, permutation("order", 1000, seed=0, epoch=0))


def test_seeds_are_known_numbers():
    # written down, so that a change that would silently change every run is noticed
    assert seed_of("student weights", 0) == seed_of("student weights", 0)
    assert seed_of("a", 1, 23) != seed_of("a", 12, 3)
    assert 0 <= seed_of("x", 0) < 2**63
    assert permutation("order", 5, seed=0, epoch=0).tolist() == GOLDEN_ORDER
    draw = uniform("view", seed=0, epochs=np.array([2]), sample_ids=np.array([7]), count=1)
    assert draw[0, 0] == GOLDEN_UNIFORM


GOLDEN_ORDER = [2, 4, 3, 1, 0]
GOLDEN_UNIFORM = 0.2986086246801679
