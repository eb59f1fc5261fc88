"""Writes a tower with its head as a folder in timm's layout."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hard_ray.config.networks import TeacherConfig
from hard_ray.export.card_text import card_text
from hard_ray.export.timm_folder import EvalView, write_timm_files
from hard_ray.files import write_json, write_text
from hard_ray.networks.network import ImageSpec, Network, build_teacher
from hard_ray.networks.towers import Tower
from hard_ray.preparation.folders import HeadFolder
from hard_ray.preparation.heads import FittedHead
from hard_ray.runs.summary import versions

SHOWN = 10
"""Classes that a card names."""


@dataclass(frozen=True, slots=True)
class HeadResult:
    """A written teacher."""

    folder: Path
    facts: dict[str, Any]
    """The content of `head.json`: `kind`, `top1` by split of a probe, `temperature` of prototypes, ..."""
    names: tuple[str, ...]
    """The outputs in their order."""
    notes: tuple[str, ...]
    """Sentences about what was found."""


def write_head(
    folder: HeadFolder,
    tower: Tower,
    fitted: FittedHead,
    names: Sequence[str],
    images: ImageSpec,
    *,
    view: EvalView,
    notes: Sequence[str] = (),
) -> HeadResult:
    """Write tower and head; `config.json` comes last, so that a folder with it is whole.

    `view` is the transform from a picture to the tower's input.
    """
    network = tower.with_head(fitted.head)
    images = ImageSpec(images.img_size, images.in_chans, tuple(names))
    facts = {
        **fitted.facts,
        "outputs": len(names),
        "features": tower.width,
        "tower": {"model": tower.name, "identity": tower.network.identity()},
        "notes": list(fitted.notes),
        "versions": versions(),
    }
    folder.config.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".head-") as temporary:
        made = Path(temporary)
        write_timm_files(network, made, images=images, names=names, view=view)
        facts["identity"] = build_teacher(TeacherConfig(model=f"local-dir:{made}"), images).identity()
        write_text(made / folder.card.name, _card(network, tower, images, facts))
        write_json(made / folder.result.name, facts)
        for target in (folder.weights, folder.card, folder.result, folder.config):
            (made / target.name).replace(target)
    return HeadResult(folder.path, facts, tuple(names), (*notes, *fitted.notes))


def _card(network: Network, tower: Tower, images: ImageSpec, facts: dict[str, Any]) -> str:
    names = images.classes
    shown = ", ".join(names[:SHOWN]) + (f", ... ({len(names)})" if len(names) > SHOWN else "")
    rows = {"tower": f"{tower.name}, {tower.width} features", "head": str(facts["kind"]), "outputs": shown}
    rows |= {f"top-1 on {split}": f"{value:.2f} %" for split, value in facts.get("top1", {}).items()}
    what = f"A frozen tower with a fitted head of {len(names)} outputs, made by `hardray fit-head`."
    return card_text(network, images, what=what, facts=rows)
