"""Samples of a tar file: the members that share a key, one of them the image and one the label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from hard_ray.config.data import WebDatasetData
from hard_ray.data.account import Tally
from hard_ray.data.labels import Label
from hard_ray.data.layout import HEAD, NO_IMAGE, why_no_image, why_no_image_inside
from hard_ray.data.remote_folders import ShardFile
from hard_ray.data.sources.tar_labels import read_label
from hard_ray.data.sources.tar_members import Member, read_members, unread
from hard_ray.errors import DataError


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and its label."""

    image: Member
    label: Label | None
    """None: there is none."""
    why_none: str = ""
    """What was found where the label was looked for."""


def read_samples(path: ShardFile, config: WebDatasetData, tally: Tally) -> list[Sample]:
    """The samples of a tar file in the order of their images; members that are not used are entered in the tally.

    Raises DataError if a sample has several images and none is chosen, or a label cannot be read.
    """
    groups: dict[str, list[Member]] = {}
    for member in read_members(path, tally):
        groups.setdefault(member.key, []).append(member)
    samples: list[Sample] = []
    several: dict[str, list[Member]] = {}
    with path.open("rb") as stream:
        for key, members in groups.items():
            pictures = _pictures(members, config, stream, path, tally)
            if len(pictures) > 1:
                several[key] = pictures
                continue
            samples += _sample(members, pictures, config, stream, path, tally)
    if several:
        raise DataError(_several(path, several))
    return sorted(samples, key=lambda sample: sample.image.offset)


def _sample(
    members: Sequence[Member],
    pictures: Sequence[Member],
    config: WebDatasetData,
    stream: BinaryIO,
    path: ShardFile,
    tally: Tally,
) -> list[Sample]:
    """The sample of one key, or none; its members are entered as used or left out."""
    used = [member for member in members if member.extension == config.label_member] if pictures else []
    used += [picture for picture in pictures if picture not in used]
    tally.used += len(used)
    for member in members:
        if member not in used:
            tally.leave_out(_why_unused(member, config, has_image=bool(pictures)), f"{path}: {member.name}")
    if not pictures:
        return []
    label = next((member for member in used if member.extension == config.label_member), None)
    if label is None or label is pictures[0]:
        others = ", ".join(f".{member.extension}" for member in members if member is not pictures[0])
        return [Sample(pictures[0], None, f"its sample {members[0].key!r} has {others or 'no other member'}")]
    stream.seek(label.offset)
    value, why_none = read_label(stream.read(label.size), config, f"{path}: {label.name}")
    return [Sample(pictures[0], value, why_none)]


def _pictures(
    members: Sequence[Member], config: WebDatasetData, stream: BinaryIO, path: ShardFile, tally: Tally
) -> list[Member]:
    """The image of a sample: that of `data.image_key`, else every member that is one."""
    if config.image_key is not None:
        named = {member.extension: member for member in members}
        chosen = (named.get(key.strip().lower()) for key in config.image_key.split(";"))
        return [member for member in chosen if member is not None][:1]
    found = []
    for member in members:
        reason = why_no_image(f"x{member.suffix}")
        if reason is None and member.extension != config.label_member:
            stream.seek(member.offset)
            reason = why_no_image_inside(stream.read(min(HEAD, member.size)))
            tally.by_content[member.suffix] += not reason
        if reason == "":
            found.append(member)
    return found


def _why_unused(member: Member, config: WebDatasetData, *, has_image: bool) -> str:
    reason = why_no_image(f"x{member.suffix}")
    if has_image or (reason and reason != NO_IMAGE):
        return unread(f"x{member.suffix}")
    missing = "an image" if config.image_key is None else f"a member .{config.image_key} (data.image_key)"
    return f"a member of a sample without {missing}"


def _several(path: ShardFile, several: Mapping[str, Sequence[Member]]) -> str:
    """The message that samples have several images each."""
    counts = Counter(member.extension for members in several.values() for member in members)
    key, members = next(iter(several.items()))
    keys = ", ".join(f"{extension} ({count:,})" for extension, count in counts.most_common(10))
    return (
        f"{path}: {len(several):,} samples have several images, first {key!r} with "
        f"{' and '.join(repr(member.name) for member in members[:3])}; set data.image_key to one of "
        f"{keys}{dots(members)}"
    )


def dots(members: Sequence[Member]) -> str:
    """The hint that dots in names end keys early; empty if there are none."""
    has_dots = any("." in member.extension for member in members)
    hint = "; a key ends at the first dot of a name, so rename members with other dots in their names"
    return hint if has_dots else ""
