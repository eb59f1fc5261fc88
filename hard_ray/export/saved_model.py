"""A saved model, loaded for inference: a run's student, a folder in timm's layout, or a timm name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
from numpy.typing import NDArray
from PIL import Image
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset
from timm.data.model_config import resolve_input_data_config
from torch import nn

from hard_ray.config.networks import NetworkConfig
from hard_ray.data.views import eval_view
from hard_ray.errors import ModelError
from hard_ray.export.named_model import NamedModel, find_model
from hard_ray.export.timm_folder import EvalView, timm_view
from hard_ray.networks.network import ImageSpec, Network, input_contract, label_names
from hard_ray.runs.record import RunRecord, read_record

View = Callable[[Image.Image], NDArray[np.uint8]]
"""From an upright picture to pixels of shape (channels, height, width)."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A network in evaluation mode, and how a picture becomes its input."""

    title: str
    """The run's name, else the name that the user gave."""
    network: Network
    images: ImageSpec
    """Its input; classes without names are numbered."""
    names: tuple[str, ...] | None
    """The classes in the order of the outputs; None: they are unknown."""
    view: View
    """The evaluation view: the transform from a picture to the network's input."""
    eval_view: EvalView
    """The same transform in timm's terms."""
    record: RunRecord | None = None
    """The run that trained it; None: it is from no run."""
    is_best: bool = False
    """Whether it is the run's best on the validation split, instead of its last."""
    source: str = ""
    """The name for `timm.create_model`."""

    @property
    def has_classes(self) -> bool:
        """Whether it answers with classes; if not, with its features."""
        return self.names is not None or len(self.images.classes) > 0

    @property
    def folder(self) -> Path | None:
        """The folder that it was loaded from; None: it is no folder."""
        kind, _, path = self.source.partition(":")
        return Path(path) if kind == "local-dir" else None


def open_model(name: str, *, best: bool = False) -> SavedModel:
    """Load the model that a user names, as in `find_model`; HardrayError: there is none, or it cannot be used."""
    return load_model(find_model(name, best=best))


def load_model(found: NamedModel) -> SavedModel:
    """Load a model that was found; HardrayError: its files, or those of its run, cannot be used."""
    if found.run is not None:
        return _student(found, read_record(found.run.path))
    model = _load(found.source, found.name)
    names = label_names(model)
    if names is None and ":" not in found.source:
        names = _imagenet_names(model)
    return _by_its_own_settings(model, found, names)


def _student(found: NamedModel, record: RunRecord) -> SavedModel:
    config, folder = record.config, found.source.removeprefix("local-dir:")
    model = _load(found.source, folder)
    names = label_names(model)
    images = ImageSpec(config.data.img_size, config.data.in_chans, _named_or_numbered(names, model))
    contract = input_contract(model, NetworkConfig(model=folder, img_size=config.student.img_size), images)
    return SavedModel(
        title=record.name,
        network=Network(model, contract).freeze(),
        images=images,
        names=names,
        view=partial(eval_view, config=config.data),
        eval_view=timm_view(config.data),
        record=record,
        is_best=found.is_best,
        source=found.source,
    )


def _load(name: str, what: str) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm raises whatever its model, the file or the hub does
        raise ModelError(f"{what}: the model cannot be loaded: {type(error).__name__}: {error}") from error
    return model


def _by_its_own_settings(model: nn.Module, found: NamedModel, names: tuple[str, ...] | None) -> SavedModel:
    title = found.name
    data: dict[str, Any] = resolve_input_data_config(model)
    channels, height, width = data["input_size"]
    if height != width:
        raise ModelError(f"{title} takes images of {height} x {width} pixels; only square ones can be used here")
    images = ImageSpec(width, channels, _named_or_numbered(names, model))
    contract = input_contract(model, NetworkConfig(model=title), images)
    transform = create_transform(**data, is_training=False, normalize=False)
    return SavedModel(
        title=title,
        network=Network(model, contract).freeze(),
        images=images,
        names=names,
        view=lambda picture: np.asarray(transform(picture), dtype=np.uint8),
        eval_view=EvalView(data["crop_pct"], data["crop_mode"], data["interpolation"]),
        source=found.source,
    )


def _named_or_numbered(names: tuple[str, ...] | None, model: nn.Module) -> tuple[str, ...]:
    return names or tuple(str(number) for number in range(int(model.num_classes)))  # type: ignore[arg-type]


def _imagenet_names(model: nn.Module) -> tuple[str, ...] | None:
    """ImageNet's class names by the number of outputs; for timm's own weights alone, which were trained on it."""
    subset = infer_imagenet_subset(model)
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))
