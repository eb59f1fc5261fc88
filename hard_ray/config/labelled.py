"""Labelled images that a model is measured on, named on a command line as KIND=PATH."""

from __future__ import annotations

from hard_ray.config.data import DataConfig
from hard_ray.config.layers import Layer
from hard_ray.errors import ConfigError

VIEW = ("img_size", "in_chans", "crop", "crop_pct", "interpolation")
"""Keys of the evaluation view, which stay those of the model's own data."""
KINDS = {
    "image_folder": "path",
    "parquet": "path",
    "webdataset": "path",
    "idx": "path",
    "torchvision": "name",
    "huggingface": "name",
    "digits": None,
}
"""Kinds of data with labels, and the key of what names the data."""


def labelled_layer(text: str, own: DataConfig) -> Layer:
    """The block `data` for KIND=PATH, with the evaluation view of a model's own data; ConfigError: it is none."""
    kind, _, place = text.partition("=")
    if kind not in KINDS:
        raise ConfigError([f"--labelled {text}: want KIND=PATH, with one of {', '.join(KINDS)} as KIND"], "the options")
    key = KINDS[kind]
    if (key is None) == bool(place):
        wanted = f"{kind}=PATH" if key else kind
        raise ConfigError([f"--labelled {text}: want {wanted}"], "the options")
    view = own.model_dump(mode="json", include=set(VIEW))
    return {"data": {"kind": kind, **({key: place} if key else {}), **view}}


def name_of(text: str) -> str:
    """A name for a folder of results on KIND=PATH."""
    kind, _, place = text.partition("=")
    last = place.rstrip("/").rpartition("/")[2]
    return f"{kind}-{last}" if last else kind
