"""Names of shards: the split that each file of many images belongs to, by its path."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hard_ray.config.data import ParquetData, WebDatasetData
from hard_ray.data.index import SplitName
from hard_ray.data.split_names import NEUTRAL_WORDS, cleaned, disagreement, kinds_in

ShardConfig = ParquetData | WebDatasetData


def name_shards(
    config: ShardConfig, paths: Sequence[str], *, where: str
) -> tuple[list[str], dict[str, SplitName | None]]:
    """The name of the split that each path belongs to, and the split that each name says.

    A configured name takes the files with a folder, or a name before the numbering, that is equal to it. Other files
    are named by the part of their path that says a split. A word that all of them share, as in `test-bed/train-0.tar`
    and `test-bed/val-0.tar`, says nothing. The folders above belong to the name only where they differ, as in
    `v1/train` and `v2/train`.

    Raises DataError if a path says more than one split.
    """
    if config.train_split is False:
        return ["all files"] * len(paths), {"all files": None}
    configured = _configured(config)
    parts = [tuple(path.rpartition(".")[0].split("/")) for path in paths]
    given = [_given(each, configured, where) for each in parts]
    others = [each for each, name in zip(parts, given, strict=True) if name is None]
    kinds = iter(_kinds(others, where, may_disagree=_is_complete(config)))
    said = [
        (("", name), None) if name is not None else (_said(each, kind := next(kinds)), kind)
        for each, name in zip(parts, given, strict=True)
    ]
    contexts: dict[str, set[str]] = {}
    for (context, name), _ in said:
        contexts.setdefault(name, set()).add(context)
    names = ["/".join(filter(None, pair)) if len(contexts[pair[1]]) > 1 else pair[1] for pair, _ in said]
    return names, dict(zip(names, (kind for _, kind in said), strict=True))


def _is_complete(config: ShardConfig) -> bool:
    """Whether all three splits are configured, so that nothing is told by words."""
    return config.val_split is not None and config.test_split is not None


def _configured(config: ShardConfig) -> set[str]:
    """The names that somebody chose: `train` is the default, and one of them only beside the two others."""
    names = {name for name in (config.val_split, config.test_split) if isinstance(name, str)}
    if config.train_split != "train" or _is_complete(config):
        names.add(str(config.train_split))
    return names


def _given(parts: tuple[str, ...], configured: set[str], where: str) -> str | None:
    """The configured name that a path has; raises DataError if it has two."""
    having = configured & {
        _plain_name(parts),
        *(name for place in range(len(parts)) for name in _names_at(parts, place)),
    }
    if len(having) > 1:
        raise disagreement(where, ["/".join(parts)])
    return next(iter(having), None)


def _names_at(parts: tuple[str, ...], place: int) -> tuple[str, ...]:
    """The names by which the part of a path may be configured: alone and with the folders above it, cleaned or not."""
    tidy = cleaned(parts[place])
    above = "/".join(_context(parts[:place]))
    return parts[place], tidy, f"{above}/{tidy}", "/".join(parts[: place + 1])


def _context(parts: Sequence[str]) -> list[str]:
    """The folders that tell one data set from another: no numbers, no `data/`, no `year=2020/`."""
    return [part for part in parts if part.lower() not in NEUTRAL_WORDS and not part.isdigit() and "=" not in part]


def _kinds(paths: Sequence[tuple[str, ...]], where: str, *, may_disagree: bool) -> list[SplitName | None]:
    """The split that each path says, without the words that all share where some say two."""
    said = [_words_for(parts) for parts in paths]
    if any(len(kinds) > 1 for kinds in said):
        shared = set.intersection(*said)
        unlike = [kinds - shared for kinds in said]
        if all(len(kinds) == 1 for kinds in unlike):
            said = unlike
        elif not may_disagree:
            raise disagreement(
                where, ["/".join(parts) for parts, kinds in zip(paths, said, strict=True) if len(kinds) > 1]
            )
    return [next(iter(kinds)) if len(kinds) == 1 else None for kinds in said]


def _words_for(parts: tuple[str, ...]) -> set[SplitName]:
    """The splits that the parts of a path say; a folder that says several, as `train_test_split/`, is none of them."""
    said = [kinds_in(part) for part in parts]
    single = set().union(*(kinds for kinds in said[:-1] if len(kinds) == 1), said[-1])
    return single or set().union(*said)


def _said(parts: tuple[str, ...], kind: SplitName | None) -> tuple[str, str]:
    """The folders above the part that says the split, and the name that it says."""
    saying = [place for place, part in enumerate(parts) if kind in kinds_in(part)]
    place = next((place for place in saying if len(kinds_in(parts[place])) == 1), next(iter(saying), None))
    if place is None:
        return "", _plain_name(parts)
    return "/".join(_context(parts[:place])), cleaned(parts[place])


def _plain_name(parts: tuple[str, ...]) -> str:
    """The name of a path that says no split: its first folder but `data`, else its beginning: `extra` of `extra-00`."""
    folders = parts[:-1]
    return folders[0] if folders and folders[0] != "data" else re.split(r"[-_.]", parts[-1], maxsplit=1)[0]
