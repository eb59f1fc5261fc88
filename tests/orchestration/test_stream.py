"""Batches as Ray Data streams them."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from ray.data import DataContext
from ray.data._internal.block_batching.util import WaitBlockPrefetcher

from hard_ray.config.loader import load_config
from hard_ray.config.run import RunConfig
from hard_ray.data.pictures import TrainPictures
from hard_ray.data.schedule import train_schedule
from hard_ray.data.sources.build import build_index
from hard_ray.errors import DataError
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.stream import Breath, Pipeline, await_streams, configure_ray_data
from tests.support.helpers import make_image_folder, tiny_config


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


@pytest.mark.usefixtures("cluster")
def test_an_error_for_the_user_comes_through_ray_data_as_it_was_raised(tmp_path: Path):
    root = make_image_folder(tmp_path)
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"no picture")
    config = load_config(overrides=["data.kind=image_folder", f"data.path={root}", "data.img_size=8"]).data
    index = build_index(config)
    schedule = train_schedule(index, config, batch_size=8, seed=3)
    pipeline = Pipeline(index, config, schedule, DataShare(1.0, 2**28), 2**20)
    with pytest.raises(DataError, match="^100 unreadable images in a row, from ") as caught:
        next(pipeline.train_batches(0))
    assert "Traceback" not in str(caught.value)


@pytest.mark.usefixtures("cluster")
def test_augmented_images_and_their_splits_come_through_ray_data_as_they_are_made():
    jsd = {"objective": {"kind": "cross_entropy", "jsd": 12}, "augmentor": {"kind": "identity"}}
    augment = {"auto_augment": "augmix", "reprob": 0.5, "splits": 3}
    values = tiny_config().model_dump(mode="json") | jsd
    config = RunConfig.model_validate(values | {"data": values["data"] | {"augment": augment}}).data
    index = build_index(config)
    schedule = train_schedule(index, config, batch_size=64, seed=3)
    pipeline = Pipeline(index, config, schedule, DataShare(1.0, 2**28), 2**16)
    assert pipeline._rows_per_block() == 2**16 // (3 * 16 * 16)
    batches = pipeline.train_batches(5)
    taken = list(itertools.islice(batches, 2))
    batches.close()
    made = TrainPictures(index.reader, index.labels, config, schedule)(np.arange(5 * 64, 7 * 64))
    assert taken[0].splits.shape == (64, 2, 1, 16, 16)
    assert np.array_equal(np.concatenate([batch.splits for batch in taken]), made["splits"])
    assert np.array_equal(np.concatenate([batch.images for batch in taken]), made["image"])


def test_a_turn_that_waited_for_nothing_is_followed_by_a_pause(monkeypatch: pytest.MonkeyPatch):
    clock, pauses = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", pauses.append)
    breath = Breath()
    for turn in (0.0, 0.0001, 0.0001, 0.1, *[0.0001] * 5):
        clock[0] += turn
        breath.on_execution_step(executor=None)
    assert pauses == [0.01, 0.02, 0.01, 0.02, 0.04, 0.08, 0.08]


def test_every_execution_has_one_breath_however_often_ray_data_is_set_up():
    for _ in range(2):
        configure_ray_data(DataShare(1.0, 2**28))
    assert DataContext.get_current().execution_callback_classes.count(Breath) == 1


@pytest.mark.usefixtures("cluster")
def test_a_stream_may_fill_a_few_blocks_of_the_object_store_and_no_more():
    config = tiny_config()
    index = build_index(config.data)
    schedule = train_schedule(index, config.data, batch_size=64, seed=3)
    pipeline = Pipeline(index, config.data, schedule, DataShare(1.0, 2**28), 2**14)
    batches = pipeline.train_batches(0)
    next(batches)
    limits = DataContext.get_current().execution_options.resource_limits
    block = pipeline._rows_per_block() * config.data.in_chans * config.data.img_size**2
    assert block <= 2**14
    assert limits.object_store_memory == 10 * block
    batches.close()


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_prefetcher_that_still_waits_costs_no_patience(is_stopped: bool):
    """As Ray Data leaves them: not stopped where nothing is prefetched, or stopped and not woken."""
    prefetcher = WaitBlockPrefetcher()
    time.sleep(0.1)  # its thread waits
    prefetcher._stopped = is_stopped
    assert prefetcher._thread.is_alive()
    began = time.monotonic()
    await_streams()
    assert time.monotonic() - began < 10
    assert not prefetcher._thread.is_alive()
