"""`hardray probe`: what a network's features are worth on labelled images."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hard_ray.config.data import describe
from hard_ray.config.heads import NeighbourConfig, ProbeHead
from hard_ray.config.loader import absolute
from hard_ray.data.account_text import say_account
from hard_ray.data.sources.build import build_index, cache_of
from hard_ray.export.target import Target
from hard_ray.files import write_json
from hard_ray.networks.network import image_spec
from hard_ray.networks.towers import build_tower
from hard_ray.orchestration.features import compute_features, rows_of
from hard_ray.preparation.folders import ProbeFolder
from hard_ray.preparation.heads import check_labels, fit_probe, neighbour_top1
from hard_ray.runs.summary import versions
from hard_ray.storage.mirror import Mirror


def probe(
    target: Target,
    settings: NeighbourConfig,
    output: Path,
    *,
    mirror: Mirror | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure k-NN and linear probe on the final split, and write `probe.json`; returns its content.

    Neighbours are training images, and the probe is fitted to them; the validation split chooses the probe's penalty
    alone. Features in `output` of the same network and images are not computed again. `mirror` is the URL that `output`
    is a working copy of.

    Raises:
        HardrayError: a mistake that the message explains.
        StoppedError: Ctrl-C; the same call continues.
    """
    config = absolute(target.config)
    folder = ProbeFolder(output.expanduser().resolve())
    folder.check()
    index = build_index(config.data, cache=cache_of(config.runtime))
    say_account(index, say)
    check_labels(index, "hardray probe")
    images = image_spec(config.data, ())
    tower = build_tower(target.model, images)
    say(f"{target.model.model}, {tower.width} features, on {describe(config.data)}")
    with folder.locked():
        rows = rows_of(index, ("train", "val", "test"), settings.images, labelled=True)
        features = compute_features(
            tower, target.model, config, index, rows, folder.features, images=images, mirror=mirror, say=say
        )
        began = time.perf_counter()
        measured = {split: part for split, part in features.items() if split != "train"}
        knn = {
            split: round(neighbour_top1(features["train"], part, index, settings), 3)
            for split, part in measured.items()
        }
        fitted = fit_probe(features, index, ProbeHead(c=settings.c), say)
        result = {
            "model": target.model.model,
            "identity": tower.network.identity(),
            "features": tower.width,
            "data": {"what": describe(config.data), "fingerprint": index.fingerprint()},
            "classes": len(index.classes),
            "split": index.final_split,
            "images": fitted.facts["images"],
            "top1": {"knn": knn, "linear": fitted.facts["top1"]},
            "knn": {"k": settings.k, "temperature": settings.temperature},
            "linear": {"c": fitted.facts["c"]},
            "notes": [*tower.network.notes, *fitted.notes],
            "seconds": round(time.perf_counter() - began, 3),
            "versions": versions(),
        }
        write_json(folder.result, result)
    return {**result, "folder": str(folder.path)}


def default_output(target: Target) -> Path:
    """The folder of the results unless the user names one."""
    if target.run is not None:
        return target.run.path / "probe"
    return target.default_output.with_name(target.default_output.name.replace("evaluation-", "probe-", 1))
