"""An ordinary shard is read by whole columns as it is read member by member; any other is left to that way."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hard_ray.config.data import WebDatasetData
from hard_ray.data.account import Tally
from hard_ray.data.labels import Labels
from hard_ray.data.sources.samples import read_samples
from hard_ray.data.sources.tar_headers import plain_samples

JPEG = b"\xff\xd8\xff" + bytes(700)
Entry = tuple[str, bytes]


def write(path: Path, entries: list[Entry], form: int = tarfile.PAX_FORMAT, mtime: float = 0) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in entries:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime
            archive.addfile(member, io.BytesIO(data))
    return path


def samples(count: int, label: bytes = b"%d", others: tuple[str, ...] = ()) -> list[Entry]:
    found: list[Entry] = []
    for number in range(count):
        text = label % (number % 7) if b"%" in label else label
        found += [(f"a/{number:06d}.jpg", JPEG), (f"a/{number:06d}.cls", text)]
        found += [(f"a/{number:06d}.{other}", b"{}") for other in others]
    return found


def shuffled(entries: list[Entry]) -> list[Entry]:
    random.Random(3).shuffle(entries)
    return entries


@pytest.mark.parametrize(
    ("entries", "config"),
    [
        (samples(50), {}),
        (samples(50, b"class %d\n"), {}),
        (samples(50, b"  %d \n"), {}),
        (samples(50, b"%d.0"), {}),
        (samples(50, b'{"id": %d}'), {"label_field": "id", "label_key": "cls"}),
        (samples(20, others=("json", "seg.txt", "txt")), {}),
        (shuffled(samples(40, others=("txt",))), {}),
        (samples(20), {"label_key": None}),
        (samples(20), {"image_key": "jpg"}),
        ([(f"{name}.JPG", data) for name, data in (("x1", JPEG), ("x2", JPEG))], {"label_key": None}),
        (samples(3, "grün".encode()), {}),
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("mtime", [0, 1.5])
def test_whole_columns_say_what_single_members_say(
    tmp_path: Path, entries: list[Entry], config: dict[str, str], form: int, mtime: float
) -> None:
    if "label_field" in config:
        entries = [(name.replace(".cls", ".json"), data) for name, data in entries]
    path = write(tmp_path / "x.tar", entries, form, mtime)
    data = WebDatasetData(path=tmp_path, **config)
    tally = Tally()
    expected = read_samples(path, data, tally)
    found = plain_samples(path, data)
    assert found is not None
    assert found.offset.tolist() == [sample.image.offset for sample in expected]
    assert found.size.tolist() == [sample.image.size for sample in expected]
    assert [key.as_py() for key in found.keys] == [sample.image.key for sample in expected]
    assert list(found.labels) == [sample.label for sample in expected]
    assert found.tally == tally


@pytest.mark.parametrize(
    "entries",
    [
        [*samples(3), ("a/000000.png", JPEG)],  # two images of one sample
        [*samples(3), ("a/7.jpg", JPEG)],  # no label
        [*samples(3), ("b/000001.cls", b"1")],  # no image
        [*samples(3), ("noextension", b"1")],
        [*samples(3), ("a/.hidden.jpg", JPEG)],
        [*samples(3), ("a/__MACOSX/x.jpg", JPEG)],
        [*samples(3), ("__meta__/x.jpg", JPEG)],
        [*samples(3), ("a/000001.jpg", JPEG)],  # twice
        [*samples(3), ("a/" + "x" * 120 + ".jpg", JPEG)],
        [*samples(3), ("a/ü.jpg", JPEG), ("a/ü.cls", b"1")],
        [*samples(3), ("a/9.unknown", JPEG)],  # its content decides
        [],
    ],
)
def test_other_shards_are_read_member_by_member(tmp_path: Path, entries: list[Entry]) -> None:
    path = write(tmp_path / "x.tar", entries)
    assert plain_samples(path, WebDatasetData(path=tmp_path)) is None


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_no_damaged_header_is_taken_for_whole(tmp_path: Path, form: int) -> None:
    """Any byte of a header that changes is noticed, or changes nothing that is read."""
    path = write(tmp_path / "x.tar", samples(2), form, 1.5)
    whole, draw = path.read_bytes(), random.Random(0)
    config = WebDatasetData(path=tmp_path)
    before = plain_samples(path, config)
    assert before is not None
    for _ in range(400):
        place, changed = draw.randrange(512), bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        found = plain_samples(path, config)
        assert found is None or (found.offset.tolist(), list(found.labels)) == (
            before.offset.tolist(),
            list(before.labels),
        )
    path.write_bytes(whole[:600])
    assert plain_samples(path, config) is None
    path.write_bytes(whole + whole)
    assert plain_samples(path, config) is None


def test_labels_of_several_kinds() -> None:
    labels = Labels.of([3, "a", None, "", -1, "a", 2**80])
    assert list(labels) == [3, "a", None, "", -1, "a", np.iinfo(np.int64).max]
    assert labels.missing.tolist() == [False, False, True, True, True, False, False]
    assert labels.used_names == {"a", ""}
    joined = Labels.joined([labels, Labels.of(["b", "a"]), Labels.none(1), Labels.of([7])])
    assert list(joined) == [*labels, "b", "a", None, 7]
    assert list(joined.take(slice(7, 9))) == ["b", "a"]
