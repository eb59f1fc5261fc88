"""The stronger training view, against timm's own transforms."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform

from hard_ray.config.data import DataConfig
from hard_ray.config.loader import load_config
from hard_ray.data.augment import _operations, augmented, build_augment, check_augment
from hard_ray.data.pictures import EvalPictures, TrainPictures, to_batch
from hard_ray.data.schedule import Schedule
from hard_ray.data.sources.build import build_index
from hard_ray.errors import DataError
from hard_ray.maths.noise import seed_of
from tests.support.helpers import make_image_folder

MEAN, STD = (np.float32(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
SPLIT = ("objective={kind: cross_entropy, jsd: 12}", "augmentor={kind: identity}")
"""What a run with `data.augment.splits` needs."""
STRONG = "{auto_augment: rand-m9-mstd0.5-inc1, reprob: 0.5, degrade: {prob: 0.5}}"


def data(augment: str, *more: str, side: int = 32) -> DataConfig:
    overrides = ["data.kind=image_folder", "data.path=/", f"data.img_size={side}", f"data.augment={augment}", *more]
    return load_config(overrides=[*overrides, *(SPLIT if "splits" in augment else ())]).data


def crops(count: int = 12, side: int = 32) -> list[Image.Image]:
    """Smooth images with some noise, as photographs are."""
    noise = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    made = []
    for number in range(count):
        waves = np.stack([np.sin(number + 5 * x), np.cos(3 * y - number), np.sin(4 * x * y)], axis=2)
        made.append(Image.fromarray(np.uint8(np.clip(127 + 90 * waves + noise.normal(0, 12, waves.shape), 0, 255))))
    return made


def as_arrays(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])


def views(config: DataConfig, images: list[Image.Image], *, seed: int = 3, epoch: int = 2, **more: object) -> tuple:
    rows, epochs = np.arange(len(images)) + 100, np.full(len(images), epoch)
    return augmented(images, config, seed=seed, epochs=epochs, sample_ids=rows, **more)


def seeded(number: int) -> None:
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)


def by_timm(image: Image.Image, number: int, **settings: object) -> np.ndarray:
    """timm's training transform without its crop, as it is built for a training, brought back to 0..255."""
    set_here = {"hflip": 0.0, "interpolation": "bicubic", "color_jitter": None, **settings}
    chain = create_transform(32, is_training=True, **set_here)
    seeded(number)
    for transform in chain.transforms[1:]:
        image = transform(image)
    return np.clip(np.rint(255 * (image.numpy() * STD + MEAN)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("augment", "settings"),
    [
        ("{auto_augment: rand-m9-mstd0.5-inc1}", {"auto_augment": "rand-m9-mstd0.5-inc1"}),
        ("{auto_augment: rand-m12-n3-p0.7-mmax20-t3aw}", {"auto_augment": "rand-m12-n3-p0.7-mmax20-t3aw"}),
        ("{auto_augment: augmix-m5-w4-d2}", {"auto_augment": "augmix-m5-w4-d2"}),
        ("{auto_augment: original-mstd0.5}", {"auto_augment": "original-mstd0.5"}),
        ("{auto_augment: originalr}", {"auto_augment": "originalr"}),
        ("{auto_augment: v0}", {"auto_augment": "v0"}),
        ("{auto_augment: v0r, reprob: 0.6, remode: const}", {"auto_augment": "v0r", "re_prob": 0.6}),
        (
            "{auto_augment: 3a, color_jitter: 0.3, vflip: 0.5}",
            {"auto_augment": "3a", "color_jitter": 0.3, "vflip": 0.5},
        ),
        ("{reprob: 0.6, recount: 3}", {"re_prob": 0.6, "re_mode": "pixel", "re_count": 3}),
        (
            "{color_jitter: [0.4, 0.4, 0.2, 0.1], color_jitter_prob: 0.8, grayscale: 0.3, gaussian_blur: 0.5, "
            "vflip: 0.5, reprob: 0.5, remode: rand}",
            {
                "color_jitter": (0.4, 0.4, 0.2, 0.1),
                "color_jitter_prob": 0.8,
                "grayscale_prob": 0.3,
                "gaussian_blur_prob": 0.5,
                "vflip": 0.5,
                "re_prob": 0.5,
                "re_mode": "rand",
            },
        ),
    ],
)
def test_a_batch_equals_timms_own_transform_with_the_same_draws(augment: str, settings: dict):
    images = crops()
    found, splits = views(data(augment), images)
    expected = [by_timm(image, seed_of("augment", 3, 2, 100 + n, 0), **settings) for n, image in enumerate(images)]
    assert splits is None
    assert np.array_equal(found, np.stack(expected))
    assert (found != as_arrays(images)).any(axis=(1, 2, 3)).sum() >= 4


@pytest.mark.parametrize(
    "policy", ["v0", "rand-m1-p1-n3", "rand-m10-inc1", "rand-m15-mmax20-inc1-p1", "augmix-m10-mstd1"]
)
def test_an_image_that_keeps_no_bits_is_black(policy: str):
    """timm asks for 0 bits or fewer at these magnitudes, which Pillow before 13 made black."""
    config, images = data(f"{{auto_augment: {policy}}}"), crops(4) * 40
    build_augment.cache_clear()
    views(config, images)
    secondary = build_augment(config.augment, img_size=32, in_chans=3, interpolation="bicubic").secondary
    asked = [op for op in _operations(secondary.transforms) if op.name.startswith("Posterize")]
    for op in asked:
        op.prob, op.magnitude_std = 1.0, 0
    made = [np.asarray(op(images[0])).max() for op in asked]
    build_augment.cache_clear()
    assert 0 in made


def test_operations_resample_by_the_interpolation_of_the_data():
    images = crops()
    nearest, bicubic = (
        views(data("{auto_augment: rand-m9}", f"data.interpolation={name}"), images)[0]
        for name in ("nearest", "bicubic")
    )
    assert not np.array_equal(nearest, bicubic)
    for number, image in enumerate(images):
        seed = seed_of("augment", 3, 2, 100 + number, 0)
        expected = by_timm(image, seed, auto_augment="rand-m9", interpolation="nearest")
        assert np.array_equal(nearest[number], expected)


def test_a_view_depends_on_seed_epoch_and_image_alone():
    config, images = data(STRONG), crops()
    whole, _ = views(config, images)
    seeded(99)
    backwards = augmented(images[::-1], config, seed=3, epochs=np.full(12, 2), sample_ids=np.arange(12)[::-1] + 100)[0]
    assert np.array_equal(backwards[::-1], whole)
    for other in ({"seed": 4}, {"epoch": 3}):
        differ = (views(config, images, **other)[0] != whole).any(axis=(1, 2, 3))
        assert differ.sum() >= 8


def test_the_global_generators_keep_their_states():
    seeded(5)
    expected = random.random(), np.random.random(), float(torch.rand(1))
    seeded(5)
    views(data(STRONG), crops())
    assert (random.random(), np.random.random(), float(torch.rand(1))) == expected
    seeded(5)
    with pytest.raises(AttributeError):
        views(data(STRONG), [None])
    assert (random.random(), np.random.random(), float(torch.rand(1))) == expected


def test_without_augment_the_crops_are_the_views():
    images = crops()
    found, splits = views(
        load_config(overrides=["data.kind=image_folder", "data.path=/", "data.img_size=32"]).data, images
    )
    assert splits is None
    assert np.array_equal(found, as_arrays(images))


def test_splits_are_views_with_draws_of_their_own_and_the_first_is_the_crop():
    images = crops()
    clean, splits = views(data("{auto_augment: augmix-m5-w4-d2, splits: 4, reprob: 0.5, vflip: 0.5}"), images)
    assert splits.shape == (12, 3, 3, 32, 32) and splits.dtype == np.uint8
    flipped = 0
    for number, image in enumerate(images):
        upright = np.asarray(image).transpose(2, 0, 1)
        base = Image.fromarray(clean[number].transpose(1, 2, 0))
        turned = not np.array_equal(clean[number], upright)
        assert not turned or np.array_equal(clean[number], upright[:, ::-1])
        flipped += turned
        for split in range(3):
            seed = seed_of("augment", 3, 2, 100 + number, split + 1)
            expected = by_timm(base, seed, auto_augment="augmix-m5-w4-d2", re_prob=0.5, re_mode="pixel")
            assert np.array_equal(splits[number, split], expected)
    assert 1 <= flipped <= 11
    assert len({split.tobytes() for split in splits.reshape(36, -1)}) == 36


@pytest.mark.parametrize(
    "augment",
    [
        "{auto_augment: rand-m9-mstd0.5-inc1}",
        "{auto_augment: augmix-m5-w4-d2}",
        "{auto_augment: original}",
        "{auto_augment: v0r}",
        "{auto_augment: 3a}",
        "{color_jitter: 0.4, gaussian_blur: 0.5}",
    ],
)
def test_grey_images_stay_grey_within_timms_transforms(augment: str):
    config = data(augment, "data.in_chans=1")
    greys = [image.convert("L") for image in crops()]
    found, _ = views(config, greys)
    assert found.shape == (12, 1, 32, 32)
    secondary = build_augment(config.augment, img_size=32, in_chans=1, interpolation="bicubic").secondary
    for number, grey in enumerate(greys):
        seeded(seed_of("augment", 3, 2, 100 + number, 0))
        expected = np.asarray(secondary(grey.convert("RGB")))
        assert (expected == expected[..., :1]).all()
        assert np.array_equal(found[number, 0], expected[..., 0])


def test_an_erased_box_of_a_grey_image_has_the_mean_of_the_colours():
    found, _ = views(data("{reprob: 1, remode: const}", "data.in_chans=1"), [Image.new("L", (32, 32), 7)])
    assert set(np.unique(found)) == {7, round(255 * sum(IMAGENET_DEFAULT_MEAN) / 3)}


def test_what_timm_cannot_do_is_refused_before_a_run():
    check_augment(data(STRONG))
    check_augment(data("{auto_augment: augmix-m3-w3, splits: 3}", "data.in_chans=1", side=12))
    with pytest.raises(
        DataError, match=r"data.augment \(auto_augment rand-n20-tweights\) cannot be applied to images of 8"
    ):
        check_augment(data("{auto_augment: rand-n20-tweights}", side=8))


def trained_pictures(root: Path, augment: str) -> TrainPictures:
    make_image_folder(root, per_class=20)
    config = data(augment, f"data.path={root}", side=16)
    index = build_index(config)
    return TrainPictures(index.reader, index.labels, config, Schedule(index.rows("train"), 8, seed=0))


@pytest.mark.parametrize("augment", [STRONG, "{auto_augment: augmix-m5-w4-d2, splits: 3}"])
def test_pixels_are_alike_in_any_block_after_pickling_and_on_a_resume(tmp_path: Path, augment: str):
    pictures = trained_pictures(tmp_path, augment)
    whole = pictures(np.arange(80))
    sent = pickle.loads(pickle.dumps(pictures))
    build_augment.cache_clear()
    for start, stop in ((0, 7), (40, 80), (7, 40)):
        part = sent(np.arange(start, stop))
        assert part.keys() == whole.keys()
        for key in part.keys() - {"bad", "why"}:
            assert np.array_equal(part[key], whole[key][start:stop]), key
    assert ("splits" in whole) == ("splits" in augment)
    batch = to_batch(whole, keep_bad=True)
    if batch.splits is not None:
        assert batch.splits.shape == (80, 2, 3, 16, 16)


def test_the_ranks_of_a_run_make_the_images_of_one(tmp_path: Path):
    alone = trained_pictures(tmp_path, STRONG)
    schedule = alone.schedule
    parts = [
        TrainPictures(alone.reader, alone.labels, alone.config, Schedule(schedule.rows, 8, 0, rank, 2))(np.arange(4))
        for rank in range(2)
    ]
    together = np.concatenate([part["image"] for part in parts])
    assert np.array_equal(together, alone(np.arange(8))["image"])


def test_crop_and_flip_are_the_ones_without_augment(tmp_path: Path):
    pictures = trained_pictures(tmp_path, "{auto_augment: augmix, splits: 2}")
    plain = TrainPictures(
        pictures.reader, pictures.labels, pictures.config.model_copy(update={"augment": None}), pictures.schedule
    )
    assert np.array_equal(pictures(np.arange(40))["image"], plain(np.arange(40))["image"])


@pytest.mark.parametrize("augment", [STRONG, "{auto_augment: rand-m9, splits: 2}"])
def test_a_generated_image_gets_the_draws_of_its_original(tmp_path: Path, augment: str):
    pictures = trained_pictures(tmp_path, augment)

    class Same:
        def read(self, sample_ids: np.ndarray) -> list:
            return pictures.reader.read(sample_ids.tolist())

    both = TrainPictures(pictures.reader, pictures.labels, pictures.config, pictures.schedule, Same())
    columns = both(np.arange(40))
    assert np.array_equal(columns["generated"], columns["image"])
    assert np.array_equal(columns["image"], pictures(np.arange(40))["image"])


def test_evaluation_views_know_no_augment(tmp_path: Path):
    pictures = trained_pictures(tmp_path, STRONG)
    plain = pictures.config.model_copy(update={"augment": None})
    rows = pictures.schedule.rows
    one, other = (
        EvalPictures(pictures.reader, pictures.labels, config, rows)(np.arange(40))["image"]
        for config in (pictures.config, plain)
    )
    assert np.array_equal(one, other)
