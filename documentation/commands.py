"""Whether the commands that the pages show are commands that there are."""

from __future__ import annotations

import shlex
from typing import Any

from documentation.cli_page import commands
from documentation.pages import hardray_arguments
from hard_ray.config.problems import known_keys
from hard_ray.config.run import RunConfig

VERBS_TO_COME = frozenset[str]()
"""Verbs that pages show and the command line does not have yet; take each out when it is there."""


def mistake(command: str, *, whole: bool = True) -> str | None:
    """What is wrong with a command, without running it; None where nothing is.

    Args:
        command: a line of a shell.
        whole: everything that is required has to be there, as in a line to copy; else the verb and options are
            looked at alone, as in a mention.
    """
    words = hardray_arguments(command)
    if words is None or not words:
        return None
    verb, arguments = words[0], words[1:]
    known = commands()
    if verb.startswith("-"):
        return None if verb in ("--help", "--version", "--install-completion") else f"no option {verb}"
    if verb == "VERB" or (verb in VERBS_TO_COME and verb not in known):
        return None
    if verb not in known:
        return f"no verb {verb}"
    inner = _submitted(arguments, whole=whole) if verb == "submit" else None
    return inner or (_parse(known[verb], arguments) if whole else _options(known[verb], arguments))


def _submitted(arguments: list[str], *, whole: bool) -> str | None:
    """What is wrong with the command that is sent."""
    if "--" not in arguments:
        return None
    sent = arguments[arguments.index("--") + 1 :]
    return mistake(shlex.join(["hardray", *sent]), whole=whole)


def _parse(command: Any, arguments: list[str]) -> str | None:
    """What typer says of the arguments, and which of the overrides no configuration has."""
    try:
        with command.make_context(command.name, list(arguments)) as context:
            overrides = context.params.get("overrides") or ()
    except Exception as error:  # typer has its own class of usage errors
        return f"{type(error).__name__}: {error}"
    return _overrides(overrides)


def _options(command: Any, arguments: list[str]) -> str | None:
    """Which of the options a command lacks."""
    arguments = arguments[: arguments.index("--")] if "--" in arguments else arguments
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    unknown = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in known]
    return f"no option {unknown[0]}" if unknown else _overrides(word for word in arguments if _is_override(word))


def _is_override(word: str) -> bool:
    return "=" in word and "." in word.partition("=")[0] and not word.startswith("-")


def _overrides(overrides: Any) -> str | None:
    """A dotted key that no kind of configuration has."""
    keys = set(known_keys(RunConfig))
    for override in overrides:
        key = override.partition("=")[0]
        if key not in keys and not any(key.startswith(f"{role}.model_kwargs.") for role in ("teacher", "student")):
            return f"no key {key}"
    return None
