"""Makes docs/reference/cli.md from the typer app."""

from __future__ import annotations

import inspect
import typing
from typing import Any

from hard_ray_cli.main import app
from typer.main import get_command

HEAD = """# Command line

<!-- Made by `make docs-reference` from cli/; a test compares the two. -->

`hardray --help` lists the verbs, `hardray VERB --help` the options of a verb. `hardray --version` prints the version.
`hardray --install-completion` sets up completion for the shell.

| exit code | meaning |
|---|---|
| 0 | success; of `doctor`: nothing is wrong |
| 1 | a failure; the message says how to fix it; of `doctor`: something is wrong |
| 2 | the command or the configuration is wrong; nothing was started |
| 130 | stopped by Ctrl-C, SIGTERM or a closed terminal; the message says whether a run has a checkpoint |
"""


def commands() -> dict[str, Any]:
    """The commands of typer, by verb."""
    group: Any = get_command(app)
    return dict(group.commands)


def cli_page() -> str:
    """Make the page."""
    return "\n".join([HEAD, *(_verb(name, command) for name, command in commands().items())]).rstrip() + "\n"


def _verb(name: str, command: Any) -> str:
    shown = [parameter for parameter in command.params if not parameter.hidden and parameter.name != "help"]
    usage = " ".join(["hardray", name, *filter(None, map(_usage, shown))])
    lines = [f"## {name}", "", "```text", usage, "```", "", inspect.cleandoc(command.help or ""), ""]
    if shown:
        lines += ["| option | value | default | meaning |", "|---|---|---|---|", *map(_line, shown), ""]
    return "\n".join(lines)


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _usage(parameter: Any) -> str:
    """A required option or an argument, as in a usage line."""
    if _is_argument(parameter):
        name = parameter.metavar or parameter.name.upper()
        return f"[{name}]..." if parameter.nargs == -1 else name
    return f"{parameter.opts[0]} {_kind(parameter).replace(', ', '|')}" if parameter.required else ""


def _line(parameter: Any) -> str:
    names = (
        [parameter.metavar or parameter.name.upper()]
        if _is_argument(parameter)
        else [*parameter.opts, *parameter.secondary_opts]
    )
    repeat = "; may be repeated" if parameter.multiple or parameter.nargs == -1 else ""
    default = "required" if parameter.required else _default(parameter)
    text = (parameter.help or "").replace("|", r"\|")
    cells = (", ".join(f"`{name}`" for name in names), _kind(parameter).replace("|", r"\|") + repeat, default, text)
    return f"| {' | '.join(cells)} |"


def _default(parameter: Any) -> str:
    return "" if parameter.default in (None, False) else f"`{parameter.default}`"


def _kind(parameter: Any) -> str:
    """The type of a value, in a word."""
    annotation = parameter.type_descriptor.annotation
    choices = _choices(annotation)
    if choices:
        return ", ".join(choices)
    if parameter.is_flag if not _is_argument(parameter) else False:
        return "flag"
    inner = next((part for part in typing.get_args(annotation) if part is not type(None)), annotation)
    inner = next(iter(typing.get_args(inner)), inner)
    names = {"str": "TEXT", "Path": "PATH", "int": "INTEGER", "float": "NUMBER", "bool": "flag"}
    return parameter.metavar or names[inner.__name__]


def _choices(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return next((found for part in typing.get_args(annotation) if (found := _choices(part))), [])
