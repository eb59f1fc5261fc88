"""Checks of the commands that pages show."""

from __future__ import annotations

import shlex
from typing import Any

from documentation.cli_page import commands
from documentation.pages import hardray_arguments
from hard_ray.config.problems import known_keys
from hard_ray.config.run import RunConfig

VERBS_TO_COME = frozenset[str]()
"""Verbs that pages show before the command line has them; remove a verb once it exists."""


def mistake(command: str, *, whole: bool = True) -> str | None:
    """Find the mistake in a command without running it; None if it has none.

    Args:
        command: a line of a shell.
        whole: require every required option, as in a line to copy; otherwise only check the verb and the given
            options, as in a mention.
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
    """The mistake in the command that `submit` sends."""
    if "--" not in arguments:
        return None
    sent = arguments[arguments.index("--") + 1 :]
    return mistake(shlex.join(["hardray", *sent]), whole=whole)


def _parse(command: Any, arguments: list[str]) -> str | None:
    """Typer's error for the arguments, or the first override of an unknown key."""
    try:
        with command.make_context(command.name, list(arguments)) as context:
            overrides = context.params.get("overrides") or ()
    except Exception as error:  # typer has its own class of usage errors
        return f"{type(error).__name__}: {error}"
    return _overrides(overrides)


def _options(command: Any, arguments: list[str]) -> str | None:
    """The first option that the command does not have, or the first override of an unknown key."""
    arguments = arguments[: arguments.index("--")] if "--" in arguments else arguments
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    unknown = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in known]
    return f"no option {unknown[0]}" if unknown else _overrides(word for word in arguments if _is_override(word))


def _is_override(word: str) -> bool:
    return "=" in word and "." in word.partition("=")[0] and not word.startswith("-")


def _overrides(overrides: Any) -> str | None:
    """The first dotted key that no kind of configuration has."""
    keys = set(known_keys(RunConfig))
    for override in overrides:
        key = override.partition("=")[0]
        if key not in keys and not any(key.startswith(f"{role}.model_kwargs.") for role in ("teacher", "student")):
            return f"no key {key}"
    return None
