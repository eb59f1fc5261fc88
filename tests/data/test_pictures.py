"""How broken images are met, without Ray: in training they give way, in evaluation they are dropped."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.data.pictures import EvalPictures, TrainPictures, to_batch
from hard_ray.data.schedule import Schedule
from hard_ray.data.sources.build import build_index
from hard_ray.errors import DataError
from tests.support.helpers import make_image_folder


def broken_folder(root: Path, broken: list[int]) -> tuple:
    make_image_folder(root, per_class=20)
    paths = sorted((root / "train").rglob("*.png"))
    for number in broken:
        paths[number].write_bytes(paths[number].read_bytes()[:40])
    overrides = ["data.kind=image_folder", f"data.path={root}", "data.img_size=16"]
    config = load_config(overrides=overrides)
    index = build_index(config.data)
    return config, index, [str(paths[number]) for number in broken]


def test_a_broken_training_image_gives_way_to_the_next_and_is_named(tmp_path: Path):
    config, index, names = broken_folder(tmp_path, [3, 4, 39])
    schedule = Schedule(index.rows("train"), 8, seed=0)
    pictures = TrainPictures(index.reader, index.labels, config.data, schedule)
    batch = to_batch(pictures(np.arange(40)), keep_bad=True)
    assert len(batch) == 40
    assert set(batch.bad) == set(names)
    taken = dict(zip(schedule.take(np.arange(40))[0].tolist(), batch.sample_ids.tolist(), strict=True))
    assert taken[3] == taken[4] == 5
    assert taken[39] == 0  # round the end of the split
    assert np.array_equal(batch.labels, index.labels[batch.sample_ids])


def test_a_broken_image_is_replaced_alike_in_any_block(tmp_path: Path):
    config, index, _ = broken_folder(tmp_path, [3, 4, 39])
    schedule = Schedule(index.rows("train"), 8, seed=0)
    pictures = TrainPictures(index.reader, index.labels, config.data, schedule)
    whole = pictures(np.arange(80))
    for start, stop in ((0, 7), (7, 40), (40, 80)):
        part = pictures(np.arange(start, stop))
        for key in ("image", "label", "sample_id", "epoch"):
            assert np.array_equal(part[key], whole[key][start:stop]), key


def test_a_broken_evaluation_image_is_dropped_and_named(tmp_path: Path):
    config, index, names = broken_folder(tmp_path, [3, 39])
    pictures = EvalPictures(index.reader, index.labels, config.data, index.rows("train"))
    batch = to_batch(pictures(np.arange(40)), keep_bad=False)
    assert len(batch) == 38
    assert batch.bad == tuple(names)
    assert not {3, 39} & set(batch.sample_ids.tolist())


def test_a_long_run_of_broken_images_is_an_error(tmp_path: Path):
    config, index, _ = broken_folder(tmp_path, list(range(40)))
    pictures = TrainPictures(index.reader, index.labels, config.data, Schedule(index.rows("train"), 8, seed=0))
    words = "100 unreadable images in a row, from .* on, which is .*; repair the images, or remove them"
    with pytest.raises(DataError, match=words):
        pictures(np.arange(8))


def test_a_name_with_a_line_break_is_one_name(tmp_path: Path):
    make_image_folder(tmp_path, per_class=20)
    (tmp_path / "train" / "ant" / "000.png").unlink()
    (tmp_path / "train" / "ant" / "000\n.png").write_bytes(b"no picture")
    config = load_config(overrides=["data.kind=image_folder", f"data.path={tmp_path}", "data.img_size=16"])
    index = build_index(config.data)
    pictures = EvalPictures(index.reader, index.labels, config.data, index.rows("train"))
    batch = to_batch(pictures(np.arange(40)), keep_bad=False)
    assert batch.bad == (str(tmp_path / "train" / "ant" / "000\\n.png"),)


def test_a_damaged_generated_image_is_said_with_the_remedy(tmp_path: Path):
    config, index, _ = broken_folder(tmp_path, [])

    class Damaged:
        def read(self, sample_ids: np.ndarray) -> list[bytes]:
            return [b"no picture"] * len(sample_ids)

    rows = index.rows("train")
    for pictures in (
        EvalPictures(index.reader, index.labels, config.data, rows, Damaged()),
        TrainPictures(index.reader, index.labels, config.data, Schedule(rows, 8, seed=0), Damaged()),
    ):
        with pytest.raises(DataError, match=r"generated image of sample id \d+ cannot be read .*; delete its shard"):
            pictures(np.arange(4))


def test_a_batch_says_why_its_images_are_unreadable(tmp_path: Path):
    config, index, names = broken_folder(tmp_path, [3, 4])
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(names[0], format="TIFF")
    Path(names[1]).write_bytes(b"no picture")
    rows = index.rows("train")
    for pictures, keep_bad in (
        (EvalPictures(index.reader, index.labels, config.data, rows), False),
        (TrainPictures(index.reader, index.labels, config.data, Schedule(rows, 8, seed=0)), True),
    ):
        reasons = to_batch(pictures(np.arange(40)), keep_bad=keep_bad).reasons
        assert reasons.keys() == set(names)
        assert "mode is F" in reasons[names[0]]
        assert reasons[names[1]].startswith("no image can be read from it: want JPEG")
