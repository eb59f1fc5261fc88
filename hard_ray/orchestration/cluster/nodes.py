"""The nodes of a cluster: their versions, and whether they see a folder of this machine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hard_ray.storage import objects
from hard_ray.storage.address import Remote

PACKAGES = ("ray", "torch", "timm", "hardray")
"""Packages whose versions must be equal, since results and pickles depend on them."""

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """The answer of one node."""

    name: str
    versions: dict[str, str | None]
    """The version of Python and of each package; None: it is not installed there."""
    sees: bool
    """Whether the node sees a file or an object that this machine wrote."""


def versions_here() -> dict[str, str | None]:
    """The versions of this process, in the form of `Node.versions`."""
    versions, _ = _sent_as_code()
    found: dict[str, str | None] = versions(PACKAGES)
    return found


def look(folder: Path | Remote | None) -> tuple[list[Node], list[str]]:
    """Ask every node that is alive; return the nodes, and the names of those that did not answer.

    A file is written into `folder`, or an object below a URL, read by every node, and removed (None: nothing is
    written).

    Raises:
        OSError: nothing can be written to the folder.
        StorageError: nothing can be written to the URL.
    """
    text = secrets.token_hex(16)
    mark = None if folder is None else folder / f".hardray-{text[:8]}"
    if isinstance(mark, Remote):
        objects.write(mark, text.encode())
    elif mark is not None:
        mark.write_text(text, encoding="utf-8")
    try:
        return _ask(mark, text)
    finally:
        if isinstance(mark, Remote):
            objects.delete(mark)
        elif mark is not None:
            mark.unlink(missing_ok=True)


def _ask(mark: Path | Remote | None, text: str) -> tuple[list[Node], list[str]]:
    _, asks = _sent_as_code()
    probe: Any = ray.remote(asks)
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


def _sent_as_code() -> tuple[Any, Any]:
    """Two functions that nodes run: one for the versions, and one that also reads a file.

    They are local so that Ray sends their code: a node may lack hardray.
    """

    def versions(packages: Sequence[str]) -> dict[str, str | None]:
        import importlib.metadata
        import platform

        found: dict[str, str | None] = {"python": platform.python_version()}
        for name in packages:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = None
        return found

    def probe(packages: Sequence[str], mark: str, text: str) -> tuple[dict[str, str | None], bool]:
        import pathlib

        try:
            if "://" in mark:
                from hard_ray.storage import objects
                from hard_ray.storage.address import Remote

                sees = objects.read(Remote.parse(mark)).decode() == text
            else:
                sees = pathlib.Path(mark).read_text(encoding="utf-8") == text
        except Exception:  # also of a node that lacks hardray, or rights
            sees = False
        return versions(packages), sees

    return versions, probe


def import_in_worker(*, patience_s: float = 3 * PATIENCE_S) -> str:
    """Import torch, timm and hardray in one of Ray's workers; return the folder of hardray there.

    Raises what an import raises, and GetTimeoutError if no worker starts.
    """

    def imports() -> str:
        import timm  # noqa: F401
        import torch  # noqa: F401

        import hard_ray.networks.network

        return str(Path(hard_ray.networks.network.__file__).parents[1])

    found: str = ray.get(ray.remote(imports).options(num_cpus=0).remote(), timeout=patience_s)
    return found


def differences(here: Mapping[str, str | None], nodes: Sequence[Node]) -> Iterator[str]:
    """Describe each version that differs between this process and a node."""
    for name, version in here.items():
        for node in nodes:
            there = node.versions[name]
            if there is None:
                yield f"{name} is not installed on {node.name}"
            elif there != version:
                yield f"{name} is {version} here and {there} on {node.name}"
