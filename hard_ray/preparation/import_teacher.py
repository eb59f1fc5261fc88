"""Converts a checkpoint in another layout to a teacher in timm's layout."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from timm.models import get_pretrained_cfg
from torch import Tensor

from hard_ray.config.networks import NetworkConfig
from hard_ray.config.problems import describe
from hard_ray.errors import ConfigError, ModelError, RunFolderError
from hard_ray.export.card_text import card_text
from hard_ray.export.timm_folder import EvalView, write_timm_folder
from hard_ray.networks.checkpoint import Weights, read_checkpoint
from hard_ray.networks.class_names import read_names
from hard_ray.networks.misfit import Remedies, explained, listed
from hard_ray.networks.network import ImageSpec, Network, build_student, check_known
from hard_ray.networks.weights import compare, fitted, without_prefixes

LARGE = 224
"""Input size, in pixels, for an architecture that defines none."""


@dataclass(frozen=True, slots=True)
class ImportedTeacher:
    """A folder in timm's layout and its contents."""

    folder: Path
    network: Network
    images: ImageSpec
    names: tuple[str, ...] | None
    """Classes in the order of the outputs; None if unknown."""
    notes: tuple[str, ...] = ()
    """What was chosen in the checkpoint, and what was left out, a sentence each."""


def network_config(model: str, **given: Any) -> NetworkConfig:
    """Build the configuration of the architecture and its input; raises ConfigError, which lists all wrong options."""
    values = {"model": model, **{name: _read(value) for name, value in given.items() if value is not None}}
    try:
        return NetworkConfig.model_validate(values)
    except ValidationError as error:
        problems = [describe(problem, values) for problem in error.errors(include_url=False)]
        raise ConfigError(problems, "the options") from None


def _read(value: Any) -> Any:
    """Numbers where a list has their texts, as from a command line; what is no number stays, and is refused."""
    if isinstance(value, (str, int, float)):
        return value
    return [_number(part) for part in value]


def _number(part: float | str) -> float | str:
    try:
        return float(part)
    except ValueError:
        return part


def import_teacher(
    checkpoint: Path, config: NetworkConfig, output: Path, *, classes: Path | None = None, renames: Sequence[str] = ()
) -> ImportedTeacher:
    """Read weights, fit them to an architecture, and write both with the input contract to `output`, which must be new.

    The checkpoint is a safetensors file, or a torch file that is read without unpickling objects. `config` has the
    architecture, and mean, standard deviation and size of its input; the file `classes` has the names of the classes in
    the order of the outputs, one a line. `renames` are `OLD=NEW`, applied in order: matches of the regular expression
    OLD in a key become NEW, and a key that becomes empty is dropped. Raises HardrayError, which says what to do.
    """
    output = output.expanduser()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunFolderError(f"{output} already exists; choose another --output")
    check_known(config.model, "teacher")
    names = read_names(classes, "--classes") if classes is not None else None
    rules = [_rule(rename) for rename in renames]
    read = read_checkpoint(checkpoint.expanduser())
    images = _image_spec(config, read.weights, names)
    network = build_student(config, images, role="teacher")
    wanted = network.model.state_dict()
    read = replace(read, weights=renamed(without_prefixes(read.weights, wanted), rules))
    found = fitted(read, wanted)
    misfit = compare(found.weights, wanted)
    if misfit:
        lines = explained(misfit, found.weights, network.model, remedies=Remedies(), architecture=read.architecture)
        raise ModelError("\n  ".join([f"checkpoint {checkpoint} does not fit --model {config.model}:", *lines]))
    network.model.load_state_dict(found.weights)
    card = _card(network, images, checkpoint, names)
    write_timm_folder(network, output, images=images, names=names, view=EvalView(), card=card)
    return ImportedTeacher(output, network, images, names, found.notes)


def _card(network: Network, images: ImageSpec, checkpoint: Path, names: Sequence[str] | None) -> str:
    digest = hashlib.sha256(checkpoint.expanduser().read_bytes()).hexdigest()
    facts = {"weights": f"{checkpoint.name}, SHA-256 {digest}", "classes": ", ".join(names) if names else "not named"}
    what = (
        f"An image classifier with {len(images.classes)} classes, imported by hardray from weights in another layout."
    )
    return card_text(network, images, what=what, facts=facts)


def _image_spec(config: NetworkConfig, weights: Weights, names: tuple[str, ...] | None) -> ImageSpec:
    """Read classes and channels from the last and first layers; raises ModelError if the options contradict them."""
    known = get_pretrained_cfg(config.model)
    last = _layer(weights, getattr(known, "classifier", None))
    first = _layer(weights, getattr(known, "first_conv", None))
    default = tuple(getattr(known, "input_size", None) or (3, LARGE, LARGE))
    outputs = len(names or ()) if last is None else len(last)
    if names is not None and len(names) != outputs:
        raise ModelError(
            f"--classes names {len(names)} classes, the checkpoint has {outputs} outputs; one line for each"
        )
    if not outputs and getattr(known, "classifier", None):
        outputs = known.num_classes  # type: ignore[union-attr]  # the comparison of the keys then says that it is missing
    if not outputs:
        raise ModelError(
            f"the checkpoint does not show the number of classes: of its {len(weights)} keys, such as "
            f"{listed(list(weights), 3)}, none is the last layer of --model {config.model}; want its weights; name "
            "another --model, or the classes with --classes"
        )
    channels = default[0] if first is None or first.ndim != 4 else first.shape[1]
    for name, values in (("--mean", config.mean), ("--std", config.std)):
        if values is not None and len(values) not in (1, channels):
            raise ModelError(f"{name} has {len(values)} values for {channels} channels; give 1 or {channels}")
    return ImageSpec(config.img_size or default[-1], channels, names or tuple(map(str, range(outputs))))


def _layer(weights: Weights, names: str | Sequence[str] | None) -> Tensor | None:
    """Find the weight of a layer by the end of its key; of several names the first."""
    if not names:
        return None
    wanted = f"{names if isinstance(names, str) else names[0]}.weight"
    return next((value for key, value in weights.items() if f".{key}".endswith(f".{wanted}")), None)


def _rule(rename: str) -> tuple[re.Pattern[str], str]:
    old, equals, new = rename.rpartition("=")
    if not equals or not old:
        raise ConfigError([f"{rename!r}: want OLD=NEW, for example '^backbone\\.='"], "--rename")
    try:
        return re.compile(old), new
    except re.error as error:
        raise ConfigError([f"{old!r} is not a regular expression: {error}"], "--rename") from None


def renamed(weights: Weights, rules: Sequence[tuple[re.Pattern[str], str]]) -> Weights:
    """Rename keys, and drop empty ones; raises ModelError if two keys become the same, or a rule matches nothing."""
    found = {key: key for key in weights}
    for pattern, new in rules:
        if not any(pattern.search(key) for key in found.values()):
            raise ModelError(
                f"--rename {pattern.pattern!r} finds nothing in keys such as {listed(list(found.values()), 3)}"
            )
        try:
            found = {old: pattern.sub(new, key) for old, key in found.items()}
        except (re.error, IndexError) as error:
            raise ConfigError([f"{new!r} cannot stand for {pattern.pattern!r}: {error}"], "--rename") from None
    taken: dict[str, str] = {}
    for old, key in found.items():
        if key and taken.setdefault(key, old) != old:
            raise ModelError(f"--rename makes one key {key!r} of {taken[key]!r} and {old!r}")
    return {key: weights[old] for key, old in taken.items()}
