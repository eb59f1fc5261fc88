"""What the nodes of a cluster are: their versions, and whether they see a folder of this machine."""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PACKAGES = ("ray", "torch", "timm", "hardray")
"""What has to be equal: bits and pickles hang on them."""

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """One node, as it was found."""

    name: str
    versions: dict[str, str | None]
    """Python's and each package's; None: it is not installed there."""
    sees: bool
    """Whether it reads in a folder what was written there here."""


def versions_here() -> dict[str, str | None]:
    """As of a node."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def look(folder: Path | None) -> tuple[list[Node], list[str]]:
    """Ask every node that is alive.

    Args:
        folder: a file is written into it, looked for on every node, and removed; None: nothing is written.

    Returns:
        The nodes, and the names of those that did not answer.

    Raises:
        OSError: nothing can be written into the folder here.
    """
    text = secrets.token_hex(16)
    mark = None if folder is None else folder / f".hardray-{text[:8]}"
    if mark is not None:
        mark.write_text(text, encoding="utf-8")
    try:
        return _ask(mark, text)
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)


def _ask(mark: Path | None, text: str) -> tuple[list[Node], list[str]]:
    probe = ray.remote(_probe())
    asked: dict[Any, str] = {}
    for node in (node for node in ray.nodes() if node["Alive"]):
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        answer = probe.options(num_cpus=0, scheduling_strategy=where).remote(PACKAGES, str(mark), text)
        asked[answer] = f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE_S)
    found, silent = [], [asked[answer] for answer in late]
    for answer in ready:
        try:
            versions, sees = ray.get(answer)
            found.append(Node(asked[answer], versions, sees))
        except ray.exceptions.RayError:  # the node died, or cannot start a process
            silent.append(asked[answer])
    return sorted(found, key=lambda node: node.name), sorted(silent)


def _probe() -> Any:
    """A function that is sent as code, because a node may lack hardray."""

    def probe(packages: Sequence[str], mark: str, text: str) -> tuple[dict[str, str | None], bool]:
        import importlib.metadata
        import pathlib
        import platform

        versions: dict[str, str | None] = {"python": platform.python_version()}
        for name in packages:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = None
        try:
            sees = pathlib.Path(mark).read_text(encoding="utf-8") == text
        except OSError:
            sees = False
        return versions, sees

    return probe


def differences(here: Mapping[str, str | None], nodes: Sequence[Node]) -> Iterator[str]:
    """Which versions differ between this process and nodes."""
    for name, version in here.items():
        for node in nodes:
            there = node.versions[name]
            if there is None:
                yield f"{name} is not installed on {node.name}"
            elif there != version:
                yield f"{name} is {version} here and {there} on {node.name}"
