"""Batches as Ray Data streams them."""

import itertools

import numpy as np
import pytest

from hard_ray.data.pipeline import DataShare, Pipeline
from hard_ray.data.schedule import train_schedule
from hard_ray.data.sources import build_index
from tests.helpers import tiny_config


@pytest.mark.usefixtures("cluster")
def test_updates_keep_their_order_after_training_images_were_looked_at_for_a_picture():
    config = tiny_config()
    index = build_index(config.data)
    schedule = train_schedule(index, config.data, batch_size=64, seed=3)
    pipeline = Pipeline(index, config.data, schedule, DataShare(1.0, 2**28), 2**20)
    looked_at = next(pipeline.eval_batches("train", 8))
    assert np.array_equal(looked_at.sample_ids, index.rows("train")[:8])
    first = schedule.batches_per_epoch - 1  # into the next epoch, beyond the rows of the split
    taken = list(itertools.islice(pipeline.train_batches(first), 3))
    rows, epochs = schedule.take(np.arange(first * 64, (first + 3) * 64))
    assert np.array_equal(np.concatenate([batch.sample_ids for batch in taken]), rows)
    assert np.array_equal(np.concatenate([batch.epochs for batch in taken]), epochs)
    assert np.array_equal(next(pipeline.eval_batches("train", 8)).images, looked_at.images)
