"""Where images come from, how they are split, and the standard view of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from hard_ray.config.base import Config, Fraction, Seed

Interpolation = Literal["nearest", "bilinear", "bicubic"]
PositiveSize = Annotated[int, Field(ge=4, le=4096)]


class _Images(Config):
    """What every kind of data has: a size, three splits and a standard view."""

    img_size: PositiveSize = 224
    """Height and width of every image after the standard view, in pixels."""
    in_chans: Literal[1, 3] = 3
    """1 for grey images, 3 for colour."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """The share of the training images that becomes the validation split where there is none."""
    split_seed: Seed = 0
    """Decides which images are split off; independent of the run's seed."""
    max_bad_fraction: Fraction = 0.01
    """The share of unreadable images beyond which a run stops."""
    crop: Literal["none", "padded", "resized"] = "none"
    """Training view: whole image, a random crop of the padded image, or a random resized crop."""
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Pixels of zeros added on every side before a `padded` crop."""
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Smallest and largest share of the area that a `resized` crop keeps."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width-to-height ratio of a `resized` crop."""
    hflip: Fraction = 0.0
    """Probability of a horizontal flip in the training view."""
    interpolation: Interpolation = "bicubic"
    """How images are resized."""
    crop_pct: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Evaluation view: the centre crop's share of the resized image's shorter side."""

    @model_validator(mode="after")
    def _ordered_ranges(self) -> _Images:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two rising positive numbers, got [{low}, {high}]")
        return self


class DigitsData(_Images):
    """scikit-learn's 1,797 handwritten digits, 16x16 in the middle of the field; nothing to download."""

    kind: Literal["digits"] = "digits"
    img_size: PositiveSize = 28
    in_chans: Literal[1] = 1
    digit_size: PositiveSize = 16
    """Height and width of the digit itself, in pixels."""

    @model_validator(mode="after")
    def _digit_fits(self) -> DigitsData:
        if self.digit_size > self.img_size:
            raise ValueError(
                f"digit_size {self.digit_size} does not fit into img_size {self.img_size}; "
                "make the field at least as large as the digit"
            )
        return self


class IdxData(_Images):
    """MNIST's format: `train-images-idx3-ubyte` and its three companions, gzipped or not."""

    kind: Literal["idx"] = "idx"
    path: Path
    """The folder with the four files."""
    img_size: PositiveSize = 28
    in_chans: Literal[1] = 1


class _Files(_Images):
    """Encoded images on a file system, in named splits."""

    train_split: str = "train"
    """Name of the training split."""
    val_split: str | None = None
    """Name of the validation split; unset: `val` or `validation` if there, else split off by seed."""
    test_split: str | None = None
    """Name of the test split; unset: `test` if there."""
    crop: Literal["none", "padded", "resized"] = "resized"
    hflip: Fraction = 0.5
    crop_pct: Annotated[float, Field(gt=0.0, le=1.0)] = 0.875


class ImageFolderData(_Files):
    """`root/{train,val,test}/class/*.jpg`, or `root/class/*.jpg` split by seed."""

    kind: Literal["image_folder"] = "image_folder"
    path: Path
    """The root folder."""


class _Sharded(_Files):
    """Files that hold many images each; shuffled by shard, then within a window."""

    shuffle_window: PositiveInt = 4096
    """Rows that are shuffled together after the shards were permuted."""


class ParquetData(_Sharded):
    """Parquet files with an encoded image and a label: `root/train/*.parquet` or `root/train-*.parquet`."""

    kind: Literal["parquet"] = "parquet"
    path: Path
    """The root folder."""
    image_column: str = "image"
    """Binary column, or a struct with a `bytes` field."""
    label_column: str = "label"
    """Integer or string column."""


class WebDatasetData(_Sharded):
    """WebDataset shards: `root/train/*.tar` or `root/train-*.tar`, members `key.jpg` and `key.cls`."""

    kind: Literal["webdataset"] = "webdataset"
    path: Path
    """The root folder."""
    label_key: str = "cls"
    """The extension of the member that holds the label: an integer, or a class name."""


class TorchvisionData(_Images):
    """A torchvision data set by its class name, for example `CIFAR10`."""

    kind: Literal["torchvision"] = "torchvision"
    name: str
    """Class name in `torchvision.datasets`."""
    path: Path = Path("~/.cache/hardray/torchvision")
    """The folder that torchvision reads from and downloads into."""
    download: bool = True
    """Whether a missing data set is downloaded."""


class HuggingFaceData(_Files):
    """A data set by its Hugging Face name, or a local folder that `datasets.load_dataset` takes."""

    kind: Literal["huggingface"] = "huggingface"
    name: str
    """`org/name`, or a local folder."""
    image_column: str = "image"
    """The column that holds the image."""
    label_column: str = "label"
    """The column that holds the label."""


DataConfig = Annotated[
    DigitsData | IdxData | ImageFolderData | ParquetData | WebDatasetData | TorchvisionData | HuggingFaceData,
    Field(discriminator="kind"),
]


def describe(config: DataConfig) -> str:
    """The source in a few words, for messages."""
    where = getattr(config, "path", None) or getattr(config, "name", None)
    return f"data.kind {config.kind}" + (f" at {where}" if where else "")
