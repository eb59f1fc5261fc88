"""Sources of images, their splits, and the standard view of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, ValidationInfo, field_validator, model_validator

from hard_ray.config.base import Config, Fraction, Seed
from hard_ray.config.mix import MixConfig
from hard_ray.config.places import DataPath, local_only, with_options
from hard_ray.config.view import AugmentConfig
from hard_ray.storage.address import Remote

Interpolation = Literal["nearest", "bilinear", "bicubic"]
PositiveSize = Annotated[int, Field(ge=4, le=4096)]
_SMALLEST_BLURRED = 12
"""Pixels of a side that torchvision can reflect at the edges of a kernel of 23 pixels."""


class _Stored(Config):
    """Files below a folder, or in a bucket."""

    path: DataPath
    """The root folder, or its URL: `s3://bucket/images`, `gs://...`, `abfss://...`, `hf://...`."""
    storage_options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Options of the bucket's file system, such as `{region: eu-west-1, endpoint_override: "minio:9000", anonymous:
    true}`, which the URL's query may hold instead. Credentials come from the environment or the node's role."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        with_options(self.path, self.storage_options)
        return self

    @property
    def place(self) -> Path | Remote:
        """The folder, or the address with its options."""
        return with_options(self.path, self.storage_options)


class UnlabelledImages(_Stored):
    """A folder of images of any depth; the names of folders say nothing."""

    kind: Literal["images"] = "images"


class UnlabelledParquet(_Stored):
    """Parquet files with an encoded image in each row, all of which are one pool."""

    kind: Literal["parquet"] = "parquet"
    image_column: str = "image"
    """Name of a binary column, or of a struct with a `bytes` field."""


class UnlabelledWebDataset(_Stored):
    """WebDataset shards, all of which are one pool."""

    kind: Literal["webdataset"] = "webdataset"
    image_key: str | None = None
    """Extension of the member with the image, as `jpg`, or several in order, `jpg;png`; unset: the only image."""


UnlabelledConfig = Annotated[UnlabelledImages | UnlabelledParquet | UnlabelledWebDataset, Field(discriminator="kind")]


class _Images(Config):
    """Settings of every kind of data: image size, splits and standard view."""

    img_size: PositiveSize = 224
    """Height and width of every image after the standard view, in pixels."""
    in_chans: Literal[1, 3] = 3
    """Channels: 1 for grey images, 3 for colour."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of the training images that is split off for validation if there is no validation split."""
    split_seed: Seed = 0
    """Seed of the choice of images that are split off; independent of the run's seed."""
    max_bad_fraction: Fraction = 0.01
    """Largest share of unreadable images; a run with more stops."""
    crop: Literal["none", "padded", "resized"] = "none"
    """Training view: whole image, a random crop of the padded image, or a random resized crop."""
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Pixels of zeros added on every side before a `padded` crop."""
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Smallest and largest share of the area in a `resized` crop."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width-to-height ratio of a `resized` crop."""
    hflip: Fraction = 0.0
    """Probability of a horizontal flip in the training view."""
    augment: AugmentConfig | None = None
    """What is done to a training image after crop and flip, in timm's words; unset: nothing."""
    interpolation: Interpolation = "bicubic"
    """Interpolation for resizing."""
    crop_pct: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Evaluation view: side of the centre crop as a share of the resized image's shorter side."""
    mix: MixConfig | None = None
    """Mixup and CutMix of the images that students and teachers are trained on; unset: they are not mixed."""
    unlabelled: UnlabelledConfig | None = None
    """Images without labels that are trained on beside the labelled ones: the teacher's answers are learned on all, the
    labels on the labelled ones alone. The training of a teacher and the control `labels_only` leave them out. Unset:
    there are none."""
    unlabelled_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of each batch that `unlabelled` fills. An epoch of the run is as many images as there are of both kinds."""

    @model_validator(mode="after")
    def _ordered_ranges(self) -> _Images:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two rising positive numbers, got [{low}, {high}]")
        return self

    @model_validator(mode="after")
    def _augment_fits(self) -> _Images:
        augment = self.augment
        if augment is None:
            return self
        if augment.gaussian_blur > 0 and self.img_size < _SMALLEST_BLURRED:
            raise ValueError(
                f"augment.gaussian_blur blurs over 23 pixels, and img_size is {self.img_size}; use an img_size of "
                f"{_SMALLEST_BLURRED} or more, or augment.gaussian_blur=0"
            )
        hue = isinstance(augment.color_jitter, tuple) and any(augment.color_jitter[3:])
        if self.in_chans == 1 and (hue or augment.grayscale > 0):
            key = "color_jitter of the hue" if hue else "grayscale"
            raise ValueError(f"augment.{key} changes colours, and in_chans is 1; leave it out, or use in_chans=3")
        return self


class DigitsData(_Images):
    """scikit-learn's 1,797 handwritten digits, 16x16 in the middle of the image; nothing is downloaded."""

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
    path: Annotated[Path, BeforeValidator(local_only)]
    """Folder with the four files."""
    img_size: PositiveSize = 28
    in_chans: Literal[1] = 1


class _Photographs(_Images):
    """Images of any size, of which a training view shows a part."""

    crop: Literal["none", "padded", "resized"] = "resized"
    hflip: Fraction = 0.5
    crop_pct: Annotated[float, Field(gt=0.0, le=1.0)] = 0.875


class ImagesData(_Photographs, _Stored):
    """A folder of images without labels, of any depth, split by seed; the names of folders say nothing."""

    kind: Literal["images"] = "images"

    @model_validator(mode="after")
    def _no_more_unlabelled(self) -> ImagesData:
        if self.unlabelled is not None:
            raise ValueError(
                "unlabelled adds images to labelled ones, and kind images has no labels; put all images into one "
                "folder, or use a kind with labels"
            )
        return self


class _Files(_Photographs):
    """Encoded images on a file system, in named splits."""

    train_split: str | Literal[False] = "train"
    """Name of the training split; `train` finds its other usual names too (`training`, `imagenet1k-train`).
    `false`: names say nothing, all images are one pool that is split by seed."""
    val_split: str | Literal[False] | None = None
    """Name of the validation split; unset: the one whose name says so (`val`, `valid`, `validation`, `dev`), else
    split off by seed. `false`: leave that one out, and split off by seed."""
    test_split: str | Literal[False] | None = None
    """Name of the test split; unset: the one whose name says so, if its images have labels. `false`: none."""

    @field_validator("train_split", "val_split", "test_split", mode="before")
    @classmethod
    def _names_or_false(cls, value: Any, info: ValidationInfo) -> Any:
        is_train = info.field_name == "train_split"
        if value is False or isinstance(value, str) or (value is None and not is_train):
            return value
        otherwise = "false for one pool" if is_train else "false for none, or null for the one whose name says so"
        raise ValueError(f"got {value!r}; want the name of a split, in quotes if it is a number, or {otherwise}")


class ImageFolderData(_Files, _Stored):
    """`root/{train,val,test}/class/*.jpg`, or `root/class/*.jpg` split by seed."""

    kind: Literal["image_folder"] = "image_folder"


class _Sharded(_Files):
    """Files with many images each; shards are shuffled, then rows within a window."""

    shuffle_window: PositiveInt = 4096
    """Rows in the window that is shuffled after the shards are."""


class ParquetData(_Sharded, _Stored):
    """Parquet files with an encoded image and a label: `root/train/*.parquet` or `root/train-*.parquet`."""

    kind: Literal["parquet"] = "parquet"
    image_column: str = "image"
    """Name of a binary column, or of a struct with a `bytes` field."""
    label_column: str | None = "label"
    """Name of an integer or string column. `null`: the images have no labels."""


class WebDatasetData(_Sharded, _Stored):
    """WebDataset shards: `root/train/*.tar` or `root/train-*.tar`, members `key.jpg` and `key.cls`."""

    kind: Literal["webdataset"] = "webdataset"
    label_key: str | None = "cls"
    """Extension of the member with the label, an integer or a class name. `null`: the images have no labels."""
    label_field: str | None = None
    """Field of the `json` member that holds the label, as `label` or `annotation.class`; unset: the whole member."""
    image_key: str | None = None
    """Extension of the member with the image, as `jpg` or `input.png`, or several in order, `jpg;png`; unset: the only
    image of each sample."""

    @property
    def label_member(self) -> str | None:
        """The extension of the label's member; with `label_field` it is `json`, unless another is set."""
        if self.label_key is None:
            return None
        return "json" if self.label_field is not None and self.label_key == "cls" else self.label_key.lower()


class TorchvisionData(_Images):
    """A torchvision data set, by the name of its class, for example `CIFAR10`."""

    kind: Literal["torchvision"] = "torchvision"
    name: str
    """Class name in `torchvision.datasets`."""
    path: Annotated[Path, BeforeValidator(local_only)] = Path("~/.cache/hardray/torchvision")
    """Folder that torchvision reads from and downloads to."""
    download: bool = True
    """Whether a missing data set is downloaded."""
    train_split: str | None = None
    """Name of the training split; unset: `train`, or `trainval` or `train-standard` where the class has no `train`."""
    val_split: str | Literal[False] | None = None
    """Name of the validation split; unset: `val` or `valid` if the class has it, else split off by seed. `false`: split
    off by seed."""
    test_split: str | Literal[False] | None = None
    """Name of the test split; unset: `test` if the class has it. `false`: none."""
    arguments: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further arguments of the class, for example `{split: letters}` for EMNIST or `{annotation_level: family}`."""

    @model_validator(mode="after")
    def _arguments_are_free(self) -> TorchvisionData:
        keys = {"root": "path", "download": "download", "train": "train_split"}
        for argument, key in keys.items():
            if argument in self.arguments:
                raise ValueError(f"arguments holds {argument!r}; set data.{key} instead")
        for argument in ("transform", "target_transform", "transforms", "loader"):
            if argument in self.arguments:
                raise ValueError(f"arguments holds {argument!r}, which is no plain value; remove it")
        return self


class HuggingFaceData(_Files):
    """A Hugging Face data set by its name, or a local folder that `datasets.load_dataset` accepts."""

    kind: Literal["huggingface"] = "huggingface"
    name: str
    """`org/name`, or a local folder."""
    image_column: str = "image"
    """Column with the image."""
    label_column: str | None = "label"
    """Column with the label. `null`: the images have no labels."""


DataConfig = Annotated[
    DigitsData
    | IdxData
    | ImageFolderData
    | ImagesData
    | ParquetData
    | WebDatasetData
    | TorchvisionData
    | HuggingFaceData,
    Field(discriminator="kind"),
]


def has_labels(config: DataConfig) -> bool:
    """Whether the images that are split and measured have labels."""
    match config:
        case ImagesData():
            return False
        case ParquetData() | HuggingFaceData():
            return config.label_column is not None
        case WebDatasetData():
            return config.label_key is not None
        case _:
            return True


LABEL_KEYS = {"parquet": "data.label_column", "huggingface": "data.label_column", "webdataset": "data.label_key"}
"""The key that is null where images of a kind have no labels."""


def why_unlabelled(config: DataConfig) -> str:
    """Why the images have no labels, for messages: the key and its value."""
    return f"{key} is null" if (key := LABEL_KEYS.get(config.kind)) else f"data.kind is {config.kind}"


def labelled_share(config: DataConfig, batch_size: int) -> float:
    """The share of each batch whose images have labels."""
    if not has_labels(config):
        return 0.0
    return 1.0 if config.unlabelled is None else 1.0 - unlabelled_count(config, batch_size) / batch_size


def unlabelled_count(config: DataConfig, batch_size: int) -> int:
    """How many images of a batch `data.unlabelled` gives."""
    return 0 if config.unlabelled is None else round(config.unlabelled_share * batch_size)


def refuse_splits(config: DataConfig) -> None:
    """Raise ValueError if several views of an image are set, for what uses one."""
    if config.augment is not None and config.augment.splits:
        raise ValueError(
            f"data.augment.splits {config.augment.splits} makes views for objective.jsd, which trains a classifier; "
            "use data.augment.splits=0 here"
        )


def refuse_mix(config: DataConfig) -> None:
    """Raise ValueError if images are to be mixed, for what trains no classifier."""
    if config.mix is not None:
        raise ValueError(
            "data.mix mixes images and labels for classifiers, which are not trained here; use data.mix=null"
        )


def describe(config: DataConfig) -> str:
    """A short name of the source, for messages."""
    where = getattr(config, "path", None) or getattr(config, "name", None)
    return f"data.kind {config.kind}" + (f" at {where}" if where else "")
