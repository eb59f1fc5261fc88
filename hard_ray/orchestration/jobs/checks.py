"""Checks of a command before it is sent to a cluster, as far as this machine can make them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hard_ray.config.base import Config
from hard_ray.config.layers import dotted_values, layer_of, parse_overrides, read_layer
from hard_ray.config.loader import absolute, fitting_preset, validate
from hard_ray.config.presets import preset_text
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.config.space import base_file, load_space
from hard_ray.errors import SubmissionError
from hard_ray.redaction import secret_in
from hard_ray.storage.address import Remote, is_url

_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)

STAYS = "a relative path starts at a copy of the working directory on the cluster, which goes with the job"


def environment(given: Sequence[str], here: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables of a job, given as `KEY=VALUE`, or as `KEY` for the value `here`; no message shows one.

    Raises SubmissionError if a name is invalid, or the variable is not set here.
    """
    made: dict[str, str] = {}
    for number, item in enumerate(given, start=1):
        key, mark, value = item.partition("=")
        if not _VARIABLE.fullmatch(key):
            raise SubmissionError(
                f"--env number {number} has no valid name: want KEY=VALUE, or KEY for its value here; KEY has letters, "
                "digits and _, and no digit first"
            )
        if "\0" in value:
            raise SubmissionError(f"--env {key}: the value has a null character, which no variable can hold; remove it")
        if not mark and key not in here:
            raise SubmissionError(f"--env {key}: the variable is not set here; set it, or give {key}=VALUE")
        made[key] = value if mark else here[key]
    return made


BY_ENV = "Ray's dashboard shows commands; pass it by --env, such as --env MLFLOW_TRACKING_URI"


def check_words(words: Sequence[str], *, remedy: str = BY_ENV) -> None:
    """Raise a SubmissionError if a word contains a secret: Ray keeps the words, and others read them."""
    for number, word in enumerate(words, start=1):
        found = secret_in(word)
        if found is not None:
            raise SubmissionError(f"word {number} of the command contains {found}, and {remedy}")


def check_config(config: RunConfig) -> None:
    """Raise a SubmissionError if a path of a job's configuration is relative, or it names a cluster of its own."""
    problems = [f"{key} {value}: data and weights are not sent; {STAYS}" for key, value in _relative(config)]
    if config.runtime.address not in (None, "auto"):
        problems.append("runtime.address: a job runs on the cluster that it is sent to; remove the key")
    if problems:
        raise SubmissionError("\n".join([*problems, "give absolute paths that every node reaches"]))


def _relative(config: Config) -> Iterator[tuple[str, str]]:
    before = dotted_values(config.model_dump(mode="json"))
    after = dotted_values(absolute(config).model_dump(mode="json"))
    for key, value in before.items():
        if value != after[key] and not str(value).startswith("~"):
            yield key, str(value)


def space_files(name: str) -> list[Path]:
    """The files of the working directory that a space consists of: itself and its base, unless they are elsewhere."""
    path = next((here for here in (Path(name), Path(f"{name}.yaml")) if not is_url(name) and here.is_file()), None)
    if path is None:
        return []
    base = read_layer(path).get("base")
    config = base.get("config") if isinstance(base, dict) else None
    files = [path, *([Path(config) if is_url(config) else path.parent / config] if isinstance(config, str) else [])]
    return [file for file in files if not file.is_absolute() and not is_url(file)]


def check_space(name: str, overrides: Sequence[str]) -> None:
    """Check a search as `tune` does.

    Raises:
        ConfigError: every mistake of the space.
        SubmissionError: as `check_config` does.
        StorageError: a file at a URL cannot be read.
    """
    search = load_space(name, overrides)
    base, folder = search.space.base, Remote.parse(name).parent if is_url(name) else Path(search.source).parent
    above = [layer_of(base.overrides, name), parse_overrides(overrides)]
    if base.preset is not None:
        beneath = fitting_preset(parse_yaml(preset_text(base.preset), f"preset {base.preset}"), above)
    else:
        beneath = read_layer(base_file(base, folder))
    check_config(validate([beneath, *above], source=search.source))
