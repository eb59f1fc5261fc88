"""A model that was saved somewhere, ready to be asked: a run's student, a folder in timm's layout, or a timm name."""

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
from timm.models import get_pretrained_cfg
from torch import nn

from hard_ray.config.networks import NetworkConfig
from hard_ray.data.views import eval_view
from hard_ray.errors import ModelError, RunFolderError
from hard_ray.export.timm_folder import EvalView, timm_view
from hard_ray.networks.network import ImageSpec, Network, check_known, input_contract, label_names
from hard_ray.runs.record import RunRecord, read_record

View = Callable[[Image.Image], NDArray[np.uint8]]
"""From an upright picture to pixels of shape (channels, height, width)."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A network in evaluation mode, and what it is asked with."""

    title: str
    """What the user calls it."""
    network: Network
    images: ImageSpec
    """Its input; classes without names are numbered."""
    names: tuple[str, ...] | None
    """The classes in the order of the outputs, where they are known."""
    view: View
    """The evaluation view: what is done to a picture before the network sees it."""
    eval_view: EvalView
    """The same in timm's words."""
    record: RunRecord | None = None
    """The run that it is of, where it is of one."""
    is_best: bool = False
    """Whether it is the run's best on the validation split, instead of its last."""


def open_model(name: str, *, best: bool = False) -> SavedModel:
    """Whatever a user may name as a model.

    Args:
        name: a run's folder, a folder in timm's layout such as an export, or a timm name.
        best: of a run the best on the validation split, instead of the last.

    Raises:
        HardrayError: there is no such model, or it cannot be used.
    """
    path = Path(name).expanduser()
    if path.exists():
        return open_folder(path, best=best)
    if "/" in name and ":" not in name:
        raise ModelError(f"{name}: there is no such folder; want a run, an export, or the name of a timm model")
    _refuse_best(name, best)
    return _named(name)


def open_folder(path: Path, *, best: bool = False) -> SavedModel:
    """The student of a run, or the model of a folder in timm's layout.

    Raises:
        HardrayError: the folder is neither, the run has no finished student, or its files cannot be used.
    """
    if not path.exists():
        raise RunFolderError(f"{path}: there is no such folder; want a run, or a folder in timm's layout")
    if (path / "config.yaml").is_file():
        return _student(read_record(path), best=best)
    if not (path / "config.json").is_file():
        raise RunFolderError(
            f"{path} is no run, which has a config.yaml, and no folder in timm's layout, which has a config.json; "
            "name the folder that `hardray distill` wrote, or its student/"
        )
    _refuse_best(str(path), best)
    model = _load(f"local-dir:{path.resolve()}", str(path))
    return _as_it_is(model, str(path), label_names(model))


def _refuse_best(name: str, best: bool) -> None:
    if best:
        raise RunFolderError(
            f"{name} is no run, so that --best has nothing to choose from; name a run, or leave --best"
        )


def _student(record: RunRecord, *, best: bool) -> SavedModel:
    folder = record.folder.best if best else record.folder.student
    if not (folder / "config.json").is_file() or not (best or record.folder.is_finished):
        raise RunFolderError(_without(record, best))
    config = record.config
    model = _load(f"local-dir:{folder}", str(folder))
    names = label_names(model)
    images = ImageSpec(config.data.img_size, config.data.in_chans, _named_or_numbered(names, model))
    contract = input_contract(model, NetworkConfig(model=str(folder), img_size=config.student.img_size), images)
    return SavedModel(
        title=record.name,
        network=Network(model, contract).freeze(),
        images=images,
        names=names,
        view=partial(eval_view, config=config.data),
        eval_view=timm_view(config.data),
        record=record,
        is_best=best,
    )


def _without(record: RunRecord, best: bool) -> str:
    path = record.folder.path
    if best:
        return (
            f"{path} has no best/: no student was measured on the validation split yet; wait for the first evaluation"
        )
    also = ", or take the best so far with --best" if (record.folder.best / "config.json").is_file() else ""
    return f"{path} has no finished student; continue the run with `hardray distill --resume {path}`{also}"


def _named(name: str) -> SavedModel:
    if ":" not in name:
        check_known(name, "model")
        known = get_pretrained_cfg(name)
        if known is None or not known.has_weights:
            raise ModelError(f"{name}: timm has no weights for it; name a run, or a folder that holds some")
    model = _load(name, name)
    return _as_it_is(model, name, label_names(model) or (None if ":" in name else _imagenet_names(model)))


def _load(name: str, what: str) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm raises whatever its model, the file or the hub does
        raise ModelError(f"{what}: the model cannot be loaded: {type(error).__name__}: {error}") from error
    return model


def _as_it_is(model: nn.Module, title: str, names: tuple[str, ...] | None) -> SavedModel:
    """A model that only its own configuration speaks for."""
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
    )


def _named_or_numbered(names: tuple[str, ...] | None, model: nn.Module) -> tuple[str, ...]:
    return names or tuple(str(number) for number in range(int(model.num_classes)))  # type: ignore[arg-type]


def _imagenet_names(model: nn.Module) -> tuple[str, ...] | None:
    """What the number of classes says of timm's own weights, which are ImageNet's; it says nothing of others."""
    subset = infer_imagenet_subset(model)
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))
