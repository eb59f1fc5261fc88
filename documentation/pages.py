"""The pages of docs/, with their commands and YAML."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"^(?:<!-- run in: (?P<folder>[\w-]+) -->\n)?(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$",
    flags=re.MULTILINE | re.DOTALL,
)
_SETTING = re.compile(r"[A-Z_]+=")
_SPAN = re.compile(r"`(hardray [^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    """Path below docs/."""
    line: int
    """Line of its opening fence."""
    language: str
    text: str
    folder: str | None
    """The folder in which `make docs-test` runs it after earlier blocks of that folder; None: it is not run."""

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, continued ones joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [" ".join(line.split()) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pages() -> list[str]:
    """The pages in the order of the site's navigation, as paths below docs/."""
    return list(_leaves(_site()["nav"]))


def _site() -> Any:
    """mkdocs.yml, with its `!!python/name:` tags left out."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506  (a SafeLoader)


def _leaves(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for part in entry.values():
            yield from _leaves(part)
    else:
        for part in entry:
            yield from _leaves(part)


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        indent = match["indent"]
        inside = "".join(part.removeprefix(indent) for part in match["text"].splitlines(keepends=True))
        found.append(Block(page, line, match["language"], inside, match["folder"]))
    return found


def mentions(page: str) -> list[str]:
    """Every `hardray ...` that is inline code of a page."""
    return _SPAN.findall(_BLOCK.sub("", (DOCS / page).read_text(encoding="utf-8")))


def hardray_arguments(command: str) -> list[str] | None:
    """The arguments of `hardray`, without variables before and redirections after the command.

    None for another command, and for a line of text that a block writes to a file.
    """
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return None
    while words and _SETTING.match(words[0]):
        words.pop(0)
    if not words or words[0] != "hardray":
        return None
    end = next((place for place, word in enumerate(words) if word in (">", "|", "&&")), len(words))
    return words[1:end]
