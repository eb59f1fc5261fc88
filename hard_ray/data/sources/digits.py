"""scikit-learn's handwritten digits, the default data."""

from __future__ import annotations

import numpy as np

from hard_ray.config.data import DigitsData
from hard_ray.data.index import FoundImages
from hard_ray.data.labels import Labels
from hard_ray.data.readers import ArrayReader

SHARES = (300 / 1797, 200 / 1497)
"""The test split's share of all digits, and the validation split's share of the others: 300 and 200 images."""


def find_digits(config: DigitsData) -> FoundImages:
    """Resize each of the 1,797 digits and put it in the middle of the image."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    side, inset = config.digit_size, (config.img_size - config.digit_size) // 2
    field = np.zeros((len(digits.images), config.img_size, config.img_size), dtype=np.uint8)
    for row, image in enumerate(np.rint(digits.images * (255 / 16)).astype(np.uint8)):
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        field[row, inset : inset + side, inset : inset + side] = np.asarray(resized)
    return FoundImages(ArrayReader(field, "digits"), Labels.of(digits.target), "digits")
