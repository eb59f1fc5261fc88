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
    probed: str = ""
    """The words that name labelled images, on which the student's features are then probed; empty: they are not."""

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
        found = re.findall(r"\$([A-Z0-9_]+)", f"{self.command} {self.probed}")
        return [name for name in dict.fromkeys(found) if name not in folders]

    def arguments(self, folders: Mapping[str, str]) -> list[str]:
        """The words of the command, with folders in place of $NAMES."""
        return _words(self.command, folders)

    def probe_arguments(self, folders: Mapping[str, str]) -> list[str]:
        """The words that name the labelled images, with folders in place of $NAMES."""
        return _words(self.probed, folders)


def _words(command: str, folders: Mapping[str, str]) -> list[str]:
    return [re.sub(r"\$([A-Z0-9_]+)", lambda m: folders[m.group(1)], word) for word in shlex.split(command)]


def verb_of(command: str) -> str:
    """The verb of a command."""
    return command.split(maxsplit=1)[0]


def seeded(command: str, seed: int | str) -> str:
    """The command with the seed of what its verb trains or draws; a teacher's seed is its recipe's."""
    key = "teacher.recipe.seed" if verb_of(command) == "train-teacher" else "seed"
    return f"{command} {key}={seed}"


def read_tables(path: Path = HERE / "rows.yaml") -> dict[str, dict[str, Any]]:
    """The tables, in the order of the file, with everything that they share written out."""
    parsed = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    methods = parsed.get("methods", {})
    return {
        name: _whole_table(table, parsed.get("bases", {}).get(table.get("base"), {}), methods)
        for name, table in parsed["tables"].items()
    }


def _whole_table(table: Mapping[str, Any], base: Mapping[str, Any], methods: Mapping[str, str]) -> dict[str, Any]:
    """A table with the keys of its base, whose command comes first, and with the words of methods for `@NAME`."""
    variants = table["variants"]
    if isinstance(variants, list):
        variants = {name: f"@{name}" for name in variants}
    return {
        **base,
        **table,
        "command": f"{base.get('command', '')} {table.get('command', '')}".strip(),
        "variants": {name: _written_out(words, methods) for name, words in variants.items()},
    }


def _written_out(words: str, methods: Mapping[str, str]) -> str:
    """Words with those of a method in place of each `@NAME`; a method may name another."""
    return re.sub(r"(?<!\S)@(\S+)", lambda found: _written_out(methods[found.group(1)], methods), words)


def read_rows(tables: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """All rows of the tables, in the order in which they are run.

    Every variant of a seed comes before the next seed, so that rows stay comparable after a stop; those that a table
    names under `first` have all of their seeds before the others begin.
    """
    return [
        _row(name, table, variant, seed)
        for name, table in tables.items()
        for group in _groups(table)
        for seed in table["seeds"]
        for variant in group
    ]


def rows_of(name: str, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Row]]:
    """The rows that a table shows, by variant; those of a variant `=TABLE/VARIANT` are run for another table."""
    shown = {}
    for variant, words in tables[name]["variants"].items():
        owner, own = words.removeprefix("=").split("/", 1) if words.startswith("=") else (name, variant)
        shown[variant] = [_row(owner, tables[owner], own, seed) for seed in tables[owner]["seeds"]]
    return shown


def _groups(table: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The variants that are run for this table: those that come first, and the others."""
    own = [variant for variant, words in table["variants"].items() if not words.startswith("=")]
    first = table.get("first", [])
    return [variant for variant in own if variant in first], [variant for variant in own if variant not in first]


def _row(name: str, table: Mapping[str, Any], variant: str, seed: int) -> Row:
    command = f"{seeded(table['command'], seed)} {table['variants'][variant]}".strip()
    return Row(name, variant, seed, command, table.get("probe", ""))
