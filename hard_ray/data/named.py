"""Data sets by name, from torchvision and from Hugging Face, where the network or a cache has them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import EpsImagePlugin

from hard_ray.config.data import HuggingFaceData, TorchvisionData
from hard_ray.data.index import ImageIndex, Rows, with_validation
from hard_ray.data.readers import HuggingFaceReader, TorchvisionReader
from hard_ray.data.sharded import encode_labels
from hard_ray.data.sources import find_splits, split_single
from hard_ray.errors import DataError


@functools.lru_cache(maxsize=4)
def open_torchvision(name: str, path: Path, split: str, *, download: bool) -> Any:
    """One split of a torchvision data set; classes disagree on how a split is asked for."""
    from torchvision import datasets

    factory = getattr(datasets, name, None)
    if factory is None:
        raise DataError(f"data.name {name!r}: torchvision.datasets has no such class")
    EpsImagePlugin.gs_binary = False  # torchvision asks every plugin of Pillow's, and this one would run Ghostscript
    root = path.expanduser()
    attempts: list[dict[str, Any]] = [{"train": split == "train"}, {"split": split}]
    for arguments in attempts:
        for more in ({"download": download}, {}):
            try:
                return factory(str(root), **arguments, **more)
            except TypeError:
                continue
            except (RuntimeError, OSError, ValueError) as error:
                raise DataError(f"data.name {name}, split {split}, in {root}: {error}") from None
    raise DataError(f"data.name {name!r}: takes neither `train` nor `split`, so it has no known splits")


def build_torchvision(config: TorchvisionData) -> ImageIndex:
    """Train and test as torchvision has them; validation is split off."""
    labels: list[int] = []
    splits: dict[str, Rows] = {}
    starts = []
    classes: list[str] = []
    for split in ("train", "test"):
        data = open_torchvision(config.name, config.path, split, download=config.download)
        targets = next((getattr(data, key) for key in ("targets", "labels", "_labels") if hasattr(data, key)), None)
        if targets is None:
            raise DataError(f"data.name {config.name}: has no list of targets, so it is no classification data set")
        starts.append((split, len(labels)))
        splits[split] = np.arange(len(labels), len(labels) + len(targets))
        labels += [int(target) for target in targets]
        classes = [str(name) for name in getattr(data, "classes", ())]
    every_label = np.array(labels, dtype=np.int64)
    count = int(every_label.max()) + 1
    names = tuple(classes) if len(classes) == count else tuple(str(number) for number in range(count))
    splits = with_validation(splits, every_label, fraction=config.val_fraction, seed=config.split_seed)
    return ImageIndex(TorchvisionReader(config.name, config.path, tuple(starts)), every_label, names, splits)


@functools.lru_cache(maxsize=4)
def open_hugging_face(name: str, column: str) -> Any:
    """All splits of a Hugging Face data set, as Arrow tables: `datasets` decodes nothing, in no column."""
    try:
        import datasets
    except ImportError:
        raise DataError(
            "data.kind huggingface needs the `datasets` package: pip install '.[huggingface]' in a clone of hardray"
        ) from None
    local = Path(name).expanduser()
    try:
        if (local / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(local))
        else:
            found = datasets.load_dataset(str(local) if local.exists() else name)
    except Exception as error:  # the library raises its own, the hub's and fsspec's errors
        raise DataError(f"data.name {name}: {type(error).__name__}: {error}") from None
    first = next(iter(found.values()))
    if column not in first.features:
        raise DataError(
            f"data.name {name}: has no column {column!r}, but {', '.join(first.features)}; set data.image_column"
        )
    return found.cast_column(column, datasets.Image(decode=False)).with_format("arrow")


@functools.lru_cache(maxsize=4)
def hugging_face_folders(name: str) -> tuple[Path, ...]:
    """Where a data set's images may lie: in its own folder, and where `datasets` downloads to."""
    from datasets.config import DOWNLOADED_DATASETS_PATH, HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    local = Path(name).expanduser()
    caches = (HF_DATASETS_CACHE, DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return tuple(Path(folder).resolve() for folder in ([local] if local.exists() else []) + [*caches])


def build_hugging_face(config: HuggingFaceData) -> ImageIndex:
    """Splits as the data set has them."""
    found = open_hugging_face(config.name, config.image_column)
    names = find_splits(config, sorted(found))
    if not names and len(found) > 1:
        raise DataError(f"data.train_split {config.train_split!r} is not among {', '.join(sorted(found))}; set it")
    names = names or {"train": next(iter(found))}
    values: list[Any] = []
    splits: dict[str, Rows] = {}
    starts = []
    for split, name in names.items():
        if config.label_column not in found[name].features:
            raise DataError(
                f"data.name {config.name}: has no column {config.label_column!r}, but "
                f"{', '.join(found[name].features)}; set data.label_column"
            )
        starts.append((name, len(values)))
        splits[split] = np.arange(len(values), len(values) + len(found[name]))
        values += found[name][config.label_column][:].to_pylist()
    feature = found[names["train"]].features[config.label_column]
    classes, labels = encode_labels(values, getattr(feature, "names", None), where=f"data.name {config.name}")
    if set(names) == {"train"} and len(found) == 1:
        splits = split_single(labels, config.val_fraction, config.split_seed)
    else:
        splits = with_validation(splits, labels, fraction=config.val_fraction, seed=config.split_seed)
    return ImageIndex(HuggingFaceReader(config.name, config.image_column, tuple(starts)), labels, classes, splits)
