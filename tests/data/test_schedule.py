import numpy as np
import pytest

from hard_ray.data.schedule import Schedule
from hard_ray.errors import DataError

ROWS = np.arange(1000, 1103)


def schedule(rank: int = 0, size: int = 1, **more: object) -> Schedule:
    return Schedule(**{"rows": ROWS, "batch_size": 12, "seed": 5, "rank": rank, "world_size": size, **more})


def global_batch(number: int, size: int, **more: object) -> np.ndarray:
    parts = []
    for rank in range(size):
        made = schedule(rank, size, **more)
        local = made.local_batch
        parts.append(made.take(np.arange(number * local, (number + 1) * local))[0])
    return np.concatenate(parts)


def test_a_global_batch_does_not_depend_on_the_number_of_ranks():
    for number in (0, 3, 7, 8, 21):
        alone = global_batch(number, 1)
        for size in (2, 3, 4, 12):
            assert np.array_equal(global_batch(number, size), alone)


def test_global_batch_k_is_rows_kb_of_the_permutation():
    order = schedule().epoch_order(2)
    per_epoch = schedule().batches_per_epoch
    assert per_epoch == 103 // 12
    assert np.array_equal(global_batch(2 * per_epoch + 3, 1), order[36:48])


def test_an_epoch_shows_no_row_twice_and_the_next_another_order():
    made = schedule()
    length = made.batches_per_epoch * 12
    rows, epochs = made.take(np.arange(2 * length))
    assert len(np.unique(rows[:length])) == length
    assert set(epochs[:length]) == {0}
    assert set(epochs[length:]) == {1}
    assert not np.array_equal(rows[:length], rows[length:])


def test_any_slice_can_be_taken_alone():
    made = schedule(1, 2)
    whole, epochs = made.take(np.arange(200))
    for start, stop in ((0, 1), (17, 93), (95, 97), (180, 200)):
        rows, epoch = made.take(np.arange(start, stop))
        assert np.array_equal(rows, whole[start:stop])
        assert np.array_equal(epoch, epochs[start:stop])


def test_the_seed_changes_the_order():
    assert not np.array_equal(schedule().epoch_order(0), schedule(seed=6).epoch_order(0))


def test_sharded_rows_are_permuted_by_shard_and_within_a_window():
    shard = np.repeat(np.arange(20), 10).astype(np.int32)
    rows = np.arange(200)
    made = schedule(rows=rows, shard=shard, window=30, batch_size=10)
    order = made.epoch_order(0)
    assert np.array_equal(np.sort(order), rows)
    for start in range(0, 200, 30):
        assert len(np.unique(shard[order[start : start + 30]])) <= 4
    assert not np.array_equal(order, made.epoch_order(1))
    assert not np.array_equal(order[:30], np.sort(order[:30]))


def test_ranks_of_a_sharded_source_share_no_row_and_few_shards():
    shard = np.repeat(np.arange(20), 10).astype(np.int32)
    rows = np.arange(200)
    parts = []
    for rank in range(4):
        made = schedule(rank, 4, rows=rows, shard=shard, window=20, batch_size=40)
        assert made.batches_per_epoch == 5
        part, _ = made.take(np.arange(50))
        parts.append(part)
        assert len(np.unique(shard[part])) <= 8
    assert len(np.unique(np.concatenate(parts))) == 200


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(DataError, match="batch_size 104 is larger than the training split of 103 images"):
        schedule(batch_size=104)


def test_ranks_that_do_not_divide_a_batch_take_parts_that_differ_by_one_image():
    alone = global_batch(7, 1)
    for size in (5, 7):
        sizes = [schedule(rank, size).local_batch for rank in range(size)]
        assert sum(sizes) == 12
        assert max(sizes) - min(sizes) == 1
        assert np.array_equal(global_batch(7, size), alone)


def test_ranks_of_a_sharded_source_that_do_not_divide_a_batch_share_no_row():
    shard = np.repeat(np.arange(20), 10).astype(np.int32)
    made = [schedule(rank, 3, rows=np.arange(200), shard=shard, batch_size=10) for rank in range(3)]
    assert {each.batches_per_epoch for each in made} == {20}
    parts = [each.take(np.arange(20 * each.local_batch))[0] for each in made]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(200))
