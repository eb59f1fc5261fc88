"""`hardray fit-head`: features by a Ray job on actors, the head in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from hard_ray.config.data import describe, describe_pixels
from hard_ray.config.heads import HeadConfig, ProbeHead, PrototypesHead, ZeroShotHead
from hard_ray.config.loader import absolute
from hard_ray.config.networks import TeacherConfig
from hard_ray.config.run import RunConfig
from hard_ray.data.account_text import account_lines, say_account
from hard_ray.data.checked_shard import spans
from hard_ray.data.index import ImageIndex, Rows
from hard_ray.data.sources.build import build_index, cache_of
from hard_ray.errors import TeacherError
from hard_ray.export.timm_folder import timm_view
from hard_ray.networks.network import ImageSpec, image_spec
from hard_ray.networks.towers import Tower, build_tower, names_of
from hard_ray.orchestration.features import compute_features, rows_of
from hard_ray.preparation.features import SHARD_IMAGES, try_features
from hard_ray.preparation.folders import HeadFolder, ShardFolder
from hard_ray.preparation.head_folder import HeadResult, write_head
from hard_ray.preparation.heads import check_count, check_labels, describe_head, fit_probe, fit_prototypes
from hard_ray.preparation.zero_shot import ZeroShot, fit_zero_shot
from hard_ray.storage.mirror import Mirror

SPLITS = {"probe": ("train", "val", "test"), "prototypes": ("train",)}
"""The splits whose features a kind of head needs."""


def fit_head(
    config: RunConfig,
    head: HeadConfig,
    output: Path,
    *,
    mirror: Mirror | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> HeadResult:
    """Put a head on a frozen tower, `teacher` of the configuration, and write both to `output` in timm's layout.

    Features in `output` of the same tower and images are not computed again. `mirror` is the URL that `output` is a
    working copy of.

    Raises:
        HardrayError: a mistake that the message explains, before anything is started.
        StoppedError: Ctrl-C; the same call continues.
    """
    folder = HeadFolder(output.expanduser().resolve())
    folder.check()
    if isinstance(head, ZeroShotHead):
        made = fit_zero_shot(config.teacher.model, head, say, wanted=_classes(config))
        clip = made.clip
        with folder.locked():
            return write_head(folder, clip.tower, made.fitted, made.names, clip.images, view=clip.view)
    ready = prepare(absolute(config), head, say)
    with folder.locked():
        rows = head_rows(ready.index, head)
        features = compute_features(
            ready.tower,
            ready.network,
            ready.config,
            ready.index,
            rows,
            folder.features,
            images=ready.images,
            mirror=mirror,
            say=say,
        )
        match head:
            case ProbeHead():
                fitted, names = fit_probe(features, ready.index, head, say), ready.index.classes
            case PrototypesHead():
                fitted, names = fit_prototypes(features["train"], head), tuple(names_of(head.count, "prototype"))
            case _:
                assert_never(head)
        view, notes = timm_view(ready.config.data), ready.tower.network.notes
        return write_head(folder, ready.tower, fitted, names, ready.images, view=view, notes=notes)


def _classes(config: RunConfig) -> tuple[str, ...] | None:
    """The classes of the data, which a zero-shot head needs not; None: no data were named."""
    return (
        None
        if config.data == RunConfig().data
        else build_index(absolute(config).data, cache=cache_of(config.runtime)).classes or None
    )


@dataclass(frozen=True, slots=True)
class Ready:
    """Data and tower, checked."""

    config: RunConfig
    index: ImageIndex
    tower: Tower
    network: TeacherConfig
    """The tower's configuration."""
    images: ImageSpec


def prepare(config: RunConfig, head: ProbeHead | PrototypesHead, say: Callable[[str], None]) -> Ready:
    """Read the data's index, load the tower and check both; nothing is started."""
    network = tower_config(config)
    index = build_index(config.data, cache=cache_of(config.runtime))
    say_account(index, say)
    if isinstance(head, ProbeHead):
        check_labels(index, "a probe")
    else:
        check_count(len(head_rows(index, head)["train"]), head.count)
    images = image_spec(config.data, ())
    return Ready(config, index, build_tower(network, images), network, images)


def head_rows(index: ImageIndex, head: ProbeHead | PrototypesHead) -> dict[str, Rows]:
    """The images, by split, whose features a head is fitted to and measured on."""
    return rows_of(index, SPLITS[head.kind], head.images, labelled=isinstance(head, ProbeHead))


def tower_config(config: RunConfig) -> TeacherConfig:
    """The tower of a configuration; raises TeacherError if it has no weights."""
    if not config.teacher.has_weights:
        raise TeacherError(
            f"the tower {config.teacher.model} has no weights; want a trained one; give --pretrained for timm's "
            "weights, --checkpoint FILE, or --tower local-dir:FOLDER"
        )
    return config.teacher.model_copy(update={"class_map": None})


def plan_lines(config: RunConfig, head: HeadConfig, output: Path) -> list[tuple[str, str]]:
    """Say what `fit_head` will do, after asking the tower about a real image; raises the HardrayError of a mistake."""
    folder = HeadFolder(output.expanduser().resolve())
    folder.check()
    if isinstance(head, ZeroShotHead):
        return zero_shot_lines(fit_zero_shot(config.teacher.model, head, lambda _: None, wanted=_classes(config)))
    ready = prepare(absolute(config), head, lambda _: None)
    rows = head_rows(ready.index, head)
    total = sum(map(len, rows.values()))
    batch, seconds = try_features(ready.tower, ready.config, ready.index)
    splits = ", ".join(f"{len(each):,} {split}" for split, each in rows.items())
    there = len(ShardFolder(folder.features).shards())
    parameters = sum(parameter.numel() for parameter in ready.tower.network.parameters())
    return [
        ("data", f"{describe(ready.config.data)}: {splits} images"),
        ("pixels", describe_pixels(ready.config.data)),
        *account_lines(ready.index),
        ("tower", f"{ready.network.model}, {parameters / 1e6:,.2f} M parameters, {ready.tower.width} features, frozen"),
        *(("tower", note) for note in ready.tower.network.notes),
        ("features", f"{total:,} images in {len(spans(total, SHARD_IMAGES))} shards, float32, in {folder.features}"),
        *([("features", f"{there} shards are there, and are verified before they are used")] if there else []),
        ("head", describe_head(head, ready.index)),
        ("tried", f"{batch} images of the training split decoded, and the tower asked about them"),
        ("estimated", f"{seconds * total:,.0f} s of one actor at this machine's speed; the head comes on top"),
    ]


def zero_shot_lines(made: ZeroShot) -> list[tuple[str, str]]:
    """A zero-shot head that was made for a dry run, and not written."""
    clip, network = made.clip, made.clip.tower.network
    parameters = sum(parameter.numel() for parameter in network.parameters())
    prompts = made.fitted.facts["prompts"]
    return [
        (
            "tower",
            f"{clip.tower.name}, image tower of {parameters / 1e6:,.2f} M parameters, {clip.tower.width} features",
        ),
        ("head", f"zero-shot: {len(made.names)} classes, {len(prompts)} prompts, cosine times {clip.scale:.4g}"),
        ("tried", "the text tower was asked about every class; timm's image tower agrees with open_clip's"),
    ]
