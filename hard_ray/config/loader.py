"""Loading: files and overrides become one validated configuration.

Later layers win: defaults, then files from left to right, then `dotted.key=value` overrides. A block whose
`kind` (or `policy`) changes is replaced; any other block is merged key by key. Validation happens once, after
merging, and reports every mistake together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hard_ray.config.layers import Layer, merge, parse_overrides, read_layer, shown_file
from hard_ray.config.presets import preset_text
from hard_ray.config.problems import all_problems, describe
from hard_ray.config.run import TRAINS, RunConfig
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.errors import ConfigError, RunFolderError
from hard_ray.storage.address import is_url

LOCAL_PREFIXES = ("local-dir:", "sqlite:///")
"""Prefixes of text values that are followed by a path."""

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def load_config(
    files: Sequence[Path] = (),
    *,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    beneath: Layer | None = None,
    defaults: Layer | None = None,
    trains: bool = True,
) -> RunConfig:
    """Merge preset, files and overrides, and validate the result.

    Args:
        files: YAML files or their URLs; later ones win.
        preset: a shipped configuration, below the files.
        overrides: `dotted.key=value` texts, above the files.
        beneath: a layer between the preset and the files.
        defaults: a layer below the preset.
        trains: whether a student is trained; if not, images without labels need no teacher with weights.

    Raises:
        ConfigError: every mistake found, in one message.
        StorageError: there is nothing at a URL, or it cannot be used.
    """
    above: list[Layer] = [] if beneath is None else [beneath]
    above += [*(read_layer(path) for path in files), parse_overrides(overrides)]
    layers: list[Layer] = [] if defaults is None else [defaults]
    if preset is not None:
        layers.append(fitting_preset(parse_yaml(preset_text(preset), f"preset {preset}"), above))
    layers += above
    sources = [f"preset {preset}"] if preset else []
    sources += [shown_file(path) for path in files]
    sources += ["the overrides"] if overrides else []
    return validate(layers, source=" + ".join(sources) or "the defaults", trains=trains)


def fitting_preset(preset: Layer, above: Sequence[Layer]) -> Layer:
    """The preset, without its control `labels_only` if a layer above it chooses the objective that has no classes."""
    kind = next((layer["objective"].get("kind") for layer in reversed(above) if _names_objective(layer)), None)
    experiment = preset.get("experiment")
    if kind != "embedding" or not isinstance(experiment, dict):
        return preset
    controls = [control for control in experiment.get("controls", ()) if control != "labels_only"]
    return {**preset, "experiment": {**experiment, "controls": controls}}


def _names_objective(layer: Layer) -> bool:
    objective = layer.get("objective")
    return isinstance(objective, dict) and "kind" in objective


def validate(layers: Sequence[Layer], *, source: str, trains: bool = True) -> RunConfig:
    """Merge `layers` over the defaults and validate once; `trains` is that of `load_config`."""
    merged: Layer = RunConfig().model_dump(mode="json")
    for layer in layers:
        merged = merge(merged, layer)
    try:
        return RunConfig.model_validate(merged, context={TRAINS: trains})
    except ValidationError as error:
        raise ConfigError(all_problems(error, merged), source) from None


def from_options(model: type[ConfigT], values: Layer) -> ConfigT:
    """Validate the options of a command; ConfigError: every mistake in them, in one message."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [describe(problem, values) for problem in error.errors(include_url=False)]
        raise ConfigError(problems, "the options") from None


def read_begun(model: type[ConfigT], path: Path) -> ConfigT:
    """Read the settings that a folder was started with; ConfigError: no such file; RunFolderError: they are refused."""
    layer = read_layer(path, saved=True)
    try:
        return model.model_validate(layer)
    except ValidationError as error:
        problems = [describe(problem, layer, model) for problem in error.errors(include_url=False)]
        raise RunFolderError(
            f"{path} has settings that this version of hardray does not take: {'; '.join(problems[:5])}; go on with "
            "the version that began the folder, or choose another --output"
        ) from None


def absolute(config: ConfigT) -> ConfigT:
    """Make every relative path absolute: workers and a later resume have other working directories."""
    changed = {name: _absolute(getattr(config, name)) for name in type(config).model_fields}
    return config.model_copy(update=changed)


def _absolute(value: Any) -> Any:
    match value:
        case BaseModel():
            return absolute(value)
        case tuple():
            return tuple(_absolute(item) for item in value)
        case Path():
            return value.expanduser().absolute()
        case str():
            for prefix in LOCAL_PREFIXES:
                if value.startswith(prefix) and not is_url(value.removeprefix(prefix)):
                    return f"{prefix}{Path(value.removeprefix(prefix)).expanduser().absolute()}"
    return value
