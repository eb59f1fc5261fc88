"""`hardray show` and `hardray presets`: print a configuration, and list the shipped ones."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ..options import Data, Files, Overrides, Preset, Teacher, load
from ..terminal import print_pairs


def show(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    teacher: Teacher = None,
    data: Data = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of configurations instead.")] = False,
) -> None:
    """Print the resolved configuration as YAML.

    `-c` loads it back to the same configuration.
    """
    from hard_ray.config.run import RunConfig
    from hard_ray.config.safe_yaml import dump_yaml

    if schema:
        sys.stdout.write(json.dumps(RunConfig.model_json_schema(), indent=2) + "\n")
        return
    sys.stdout.write(dump_yaml(load(config, preset, overrides, teacher=teacher, data=data)))


def presets() -> None:
    """List the shipped configurations."""
    from hard_ray.config.presets import preset_description, preset_names

    print_pairs((f"[bold]{name}[/bold]", preset_description(name)) for name in preset_names())
