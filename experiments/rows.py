"""The rows of `rows.yaml`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hard_ray.config.safe_yaml import parse_yaml

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "experiments"
RUNS = ("distill", "train-teacher")
"""The verbs that make a run, which is resumed if it has begun."""


@dataclass(frozen=True, slots=True)
class Row:
    """One experiment: a run, the training of a teacher, or a scoring."""

    table: str
    variant: str
    seed: int
    command: str
    """The arguments of `hardray`, with $NAMES for folders."""

    @property
    def verb(self) -> str:
        """The verb: `distill`, `train-teacher` or `score-augmentations`."""
        return verb_of(self.command)

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.table}-{self.variant}-s{self.seed}"

    @property
    def result(self) -> Path:
        """The file of its results; it exists once the row is done."""
        return RESULTS / f"{self.name}.json"

    def missing(self, folders: Mapping[str, str]) -> list[str]:
        """The $NAMES of the command that `folders` lacks."""
        return [name for name in re.findall(r"\$([A-Z0-9_]+)", self.command) if name not in folders]

    def arguments(self, folders: Mapping[str, str]) -> list[str]:
        """The words of the command, with folders in place of $NAMES."""
        return [re.sub(r"\$([A-Z0-9_]+)", lambda m: folders[m.group(1)], word) for word in shlex.split(self.command)]


def verb_of(command: str) -> str:
    """The verb of a command."""
    return command.split(maxsplit=1)[0]


def seeded(command: str, seed: int | str) -> str:
    """The command with the seed of what its verb trains or draws; a teacher's seed is its recipe's."""
    key = "teacher.recipe.seed" if verb_of(command) == "train-teacher" else "seed"
    return f"{command} {key}={seed}"


def read_tables(path: Path = HERE / "rows.yaml") -> dict[str, dict[str, Any]]:
    """The tables, in the order of the file."""
    tables: dict[str, dict[str, Any]] = parse_yaml(path.read_text(encoding="utf-8"), str(path))["tables"]
    return tables


def read_rows(tables: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """All rows, with every variant of a seed before the next seed, so that rows stay comparable after a stop."""
    return [
        Row(name, variant, seed, f"{seeded(table['command'], seed)} {extra}".strip())
        for name, table in tables.items()
        for seed in table["seeds"]
        for variant, extra in table["variants"].items()
    ]
