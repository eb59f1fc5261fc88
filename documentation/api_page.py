"""Makes docs/reference/api.md from the docstrings of `hard_ray.api`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from hard_ray import api

HEAD = """# Python API

<!-- Made by `make docs-reference` from the docstrings of hard_ray.api; a test compares the two. -->

The command line calls these functions. Importing `hard_ray.api` loads neither torch nor Ray; each function loads the
modules that it needs.

```python
from hard_ray.api import distill, load_config

config = load_config(preset="digits", overrides=["optim.steps=200"])
result = distill(config, "runs/digits")
print(result.summary["models"]["student"])
```

Every error that a user can fix is a `hard_ray.errors.HardrayError` or a subclass: `ConfigError`, `DataError`,
`ModelError`, `ClusterError`, `TeacherError`, `RunFolderError`. Its text says what was found, what is wanted and what to
do; `exit_code` is the exit code of the command line.
"""

LONGEST_LINE = 100
SECTIONS = ("Args", "Returns", "Raises")
_ENTRY = re.compile(r"^(\w+): (.*)")


def api_page() -> str:
    """Make the page."""
    return "\n".join([HEAD, *(_function(name) for name in sorted(api.__all__))]).rstrip() + "\n"


def _function(name: str) -> str:
    function = getattr(api, name)
    paragraphs, sections = read_docstring(inspect.getdoc(function) or "")
    lines = [f"## {name}", "", "```python", _signature(name, function), "```", "", *paragraphs]
    for title, entries in sections.items():
        if title == "Args":
            lines += ["| argument | meaning |", "|---|---|", *(f"| `{key}` | {text} |" for key, text in entries), ""]
        elif title == "Returns":
            lines += [f"Returns {_lowered(' '.join(_whole(entry) for entry in entries))}", ""]
        else:
            lines += [f"Raises {'; '.join(f'`{key}`: {text}' for key, text in entries)}", ""]
    return "\n".join(lines)


def _whole(entry: tuple[str, str]) -> str:
    return ": ".join(part for part in entry if part)


def _lowered(text: str) -> str:
    """A sentence with a lower-case start, to follow a verb."""
    word = text.split(maxsplit=1)[0]
    return text if word.isupper() or word.startswith("`") else text[0].lower() + text[1:]


def read_docstring(text: str) -> tuple[list[str], dict[str, list[tuple[str, str]]]]:
    """Split a docstring in Google's style into paragraphs and the entries of each section."""
    head, *rest = re.split(rf"^({'|'.join(SECTIONS)}):\n", text, flags=re.MULTILINE)
    sections = {}
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        entries: list[tuple[str, str]] = []
        for line in inspect.cleandoc("\n" + body).splitlines():
            match = _ENTRY.match(line)
            if match and title != "Returns":
                entries.append((match[1], match[2]))
            elif line.strip():
                key, before = entries.pop() if entries else ("", "")
                entries.append((key, f"{before} {line.strip()}".strip()))
        sections[title] = entries
    return [f"{' '.join(paragraph.split())}\n" for paragraph in head.strip().split("\n\n")], sections


def _signature(name: str, function: Callable[..., Any]) -> str:
    """The signature in one line, or with one argument per line if it is long."""
    signature = inspect.signature(function)
    shown = _readable(f"{name}{signature}")
    if len(shown) <= LONGEST_LINE:
        return shown
    parts = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts.append(_readable(str(parameter)))
    return "\n".join(
        [f"{name}(", *(f"    {part}," for part in parts), f") -> {_readable(signature.return_annotation)}"]
    )


def _readable(text: str) -> str:
    """Without quotes around annotations, and without addresses of functions."""
    return re.sub(r"<function [^ ]+ at 0x[0-9a-f]+>", "...", text.replace("'", ""))
