"""scikit-learn's handwritten digits, the default data."""

from __future__ import annotations

import numpy as np

from hard_ray.config.data import DigitsData
from hard_ray.data.index import ImageIndex, Rows
from hard_ray.data.readers import ArrayReader
from hard_ray.data.splits import split_off


def _digits(config: DigitsData) -> ImageIndex:
    """Stratified 1,297 / 200 / 300; the digit is resized and stands in the middle of the field."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    side, inset = config.digit_size, (config.img_size - config.digit_size) // 2
    field = np.zeros((len(digits.images), config.img_size, config.img_size), dtype=np.uint8)
    for row, image in enumerate(np.rint(digits.images * (255 / 16)).astype(np.uint8)):
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        field[row, inset : inset + side, inset : inset + side] = np.asarray(resized)
    labels = digits.target.astype(np.int64)
    everything: Rows = np.arange(len(labels))
    rest, test = split_off(everything, labels, fraction=300 / 1797, seed=config.split_seed, purpose="test split")
    train, val = split_off(rest, labels, fraction=200 / 1497, seed=config.split_seed, purpose="val split")
    classes = tuple(str(digit) for digit in range(10))
    splits = {"train": train, "val": val, "test": test}
    return ImageIndex(ArrayReader(field, "digits"), labels, classes, splits)
