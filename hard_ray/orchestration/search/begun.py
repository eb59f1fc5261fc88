"""What a search began with: a later start may raise the number of trials, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hard_ray.config.layers import dotted_values
from hard_ray.config.loader import validate
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.space import Base, Search, SpaceConfig, load_space
from hard_ray.errors import ConfigError, RunFolderError, readable
from hard_ray.files import read_json, write_json, write_text
from hard_ray.runs.search_folder import SearchFolder
from hard_ray.storage.mirror import shown_path


def write_begun(folder: SearchFolder, search: Search) -> None:
    """Write the space, its base configuration and, last, the record of both, which makes the folder a search's."""
    write_text(folder.base, dump_yaml(search.base))
    saved = search.space.model_copy(update={"base": Base(config=Path(folder.base.name)), "trials": search.space.count})
    write_text(folder.config, dump_yaml(saved))
    write_json(folder.begun, {"space": saved.model_dump(mode="json"), "base": search.base.model_dump(mode="json")})


def settle(folder: SearchFolder, given: Search | None) -> Search:
    """The search that a later start goes on with: `given`, or else the files in the folder, which may be edited.

    Raises RunFolderError, which names every key that is not as the search began, except a larger number of trials.
    """
    there = load_space(str(folder.config), saved=True)
    begun = _read_begun(folder) or there
    search = given or there
    changed = list(changes(begun, search))
    if changed:
        raise RunFolderError(
            f"{shown_path(folder.path)} holds a search of another space: {'; '.join(changed)}; a search that has begun "
            "can only get more trials: give what it began with, or choose another --output"
        )
    if given is not None or search.space.count != begun.space.count or not folder.begun.exists():
        write_begun(folder, search)
    return search


def changes(begun: Search, now: Search) -> Iterator[str]:
    """Each key that differs, with both values; more trials are no change."""
    before, after = _values(begun), _values(now)
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if key == "trials" and now.space.count > begun.space.count:
            continue
        if old != new:
            fewer = " (trials that were made stay)" if key == "trials" else ""
            yield f"{key} was {_shown(old)}, now {_shown(new)}{fewer}"


def _values(search: Search) -> dict[str, Any]:
    space = search.space.model_dump(mode="json", exclude={"base", "trials"})
    base = search.base.model_dump(mode="json")
    return dotted_values({**space, "trials": search.space.count, "base": base}, empty_blocks=True)


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


def _read_begun(folder: SearchFolder) -> Search | None:
    """The search as it began; None: a version of hardray that kept no record began it."""
    try:
        begun = read_json(folder.begun)
        if begun is None:
            return None
        base = validate([begun["base"]], source=str(folder.begun))
        return Search(SpaceConfig.model_validate(begun["space"]), base, str(folder.begun))
    except (ConfigError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(f"{folder.begun} cannot be read ({readable(error)}); put a copy of it back") from None
