"""Whatever lies in a folder: each file is used or left out for a reason, no image has two splits, no row two labels."""

import os
import tarfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from hard_ray.data.account import Tally
from hard_ray.data.index import ImageIndex
from hard_ray.data.layout import is_hidden
from hard_ray.data.split_names import kinds_in, whole_kind
from hard_ray.errors import DataError
from tests.support.data_folders import (
    HEIC,
    SIDECAR,
    folder_index,
    image,
    index_of,
    put,
    tar_index,
    write_rows,
    write_tar,
)

quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

PNG, JPEG = image(), image(form="JPEG")
CONTENT = {
    **dict.fromkeys(("0.png", "1.png", "2.png", "3.PNG", "x y.png", "ü.png", "0.png~", "v.png.part"), PNG),
    **dict.fromkeys(("a.jfif", "b.jpe", "c", "d.JPG_large", "e.jpeg"), JPEG),
    **{"f.heic": HEIC, "g.cr2": b"II*\0", "h": HEIC, "notes.txt": b"x", "i.xyz": b"hello", "j": b"", "k.json": b"{}"},
    **{"._0.png": SIDECAR, ".DS_Store": b"x", "Thumbs.db": b"x", "desktop.ini": b"x"},
}
SPLITS = ["train", "Train", "val", "valid", "test", "testing", "dev", "unlabeled", "mini", "images", ""]
CLASSES = ["cat", "dog", "train", "boat", "@eaDir", ".hidden", ""]
DEEPER = ["", "", "deep", "images", "__MACOSX"]


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    """Paths of files, and links: their path and what they lead to."""
    above = draw(st.sampled_from(["", "", "data", "a/b"]))
    splits = draw(st.lists(st.sampled_from(SPLITS), min_size=1, max_size=3, unique=True))
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=3, unique=True))
    folders = st.builds(
        lambda *parts: "/".join(filter(None, (above, *parts))),
        st.sampled_from(splits),
        st.sampled_from([*classes, "cat", "dog"]),
        st.sampled_from(DEEPER),
    )
    paths = st.builds(lambda folder, name: f"{folder}/{name}".lstrip("/"), folders, st.sampled_from(sorted(CONTENT)))
    # two classes of images in the first split, so that most trees can be used
    usual = [f"{above}/{splits[0]}/{name}/{n}.png" for name in ("cat", "dog") for n in range(3)]
    files = draw(st.lists(paths, max_size=20, unique=True))
    files = sorted({path.replace("//", "/").lstrip("/") for path in (*usual, *files)})
    targets = st.sampled_from([".", "..", "../..", "nowhere", *files])
    links = draw(st.lists(st.tuples(folders, targets), max_size=2))
    return files, [(f"{folder}/link{n}".lstrip("/"), target) for n, (folder, target) in enumerate(links)]


def plant(root: Path, files: list[str], links: list[tuple[str, str]]) -> None:
    put(root, {path: CONTENT[path.rpartition("/")[2]] for path in files})
    for path, target in links:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(root / target if target in files else target)


def check_rows(index: ImageIndex) -> list[str]:
    """The name of each row, once it is clear that each is in one split and no image is there twice."""
    rows = np.concatenate(list(index.splits.values()))
    assert sorted(rows.tolist()) == list(range(len(index.labels)))
    names = [index.reader.name(row) for row in range(len(index.labels))]
    assert max(Counter(map(os.path.realpath, names)).values()) == 1
    return names


def check_tally(tally: Tally) -> None:
    assert tally.adds_up, tally
    for reason, entry in tally.left_out.items():
        assert reason
        assert entry.count > 0
        assert entry.example


@quick
@given(trees())
def test_of_any_tree_of_folders(tree: tuple[list[str], list[tuple[str, str]]]):
    files, links = tree
    with TemporaryDirectory() as place:
        root = Path(place).resolve()
        plant(root, files, links)
        try:
            index = folder_index(root, "data.max_bad_fraction=1")
        except DataError as error:
            event("refused")
            assert str(root) in str(error)
            return
        event("used")
        tally = index.account.files
        check_tally(tally)
        if not any((root / path).is_dir() for path, _ in links):
            assert tally.found.total() == len(files) + len(links)
        names = check_rows(index)
        assert tally.used == len(names)
        for row, name in enumerate(names):
            parts = Path(name).relative_to(root).parts
            assert not any(map(is_hidden, parts))
            assert index.classes[index.labels[row]] in parts
        if all("folder" in index.account.origins[split] for split in ("train", "val") if split in index.splits):
            check_held_out(index, names, root)


def check_held_out(index: ImageIndex, names: list[str], root: Path) -> None:
    """A row of a split lies in a folder whose name says that split."""
    for split, rows in index.splits.items():
        for row in rows.tolist():
            folder = Path(index.account.origins[split].removeprefix("folder ")).relative_to(root)
            assert Path(names[row]).is_relative_to(root / folder)
            assert split in {whole_kind(part) for part in folder.parts}


STEMS = [
    "train-0",
    "train-1",
    "imagenet-train-2",
    "val-0",
    "x-validation-00",
    "test-0",
    "unlabeled",
    "extra-3",
    "00000",
]
ABOVE = ["", "", "data/", "plain_text/", "train/", "val/", "split=test/", "@eaDir/"]
MEMBERS = [
    "{}.png",
    "{}.jpg",
    "{}.cls",
    "{}.json",
    "{}.txt",
    "._{}.png",
    "d/{}.heic",
    "{}.v2.png",
    "__MACOSX/{}.png",
    "{}",
]


@quick
@given(
    st.lists(st.tuples(st.sampled_from(ABOVE), st.sampled_from(STEMS)), min_size=1, max_size=4, unique=True),
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(MEMBERS)), max_size=8, unique=True),
    st.sampled_from([(), ("data.image_key=png",), ("data.val_split=false", "data.test_split=false")]),
)
def test_of_any_tar_files(shards: list[tuple[str, str]], more: list[tuple[int, str]], given: tuple[str, ...]):
    with TemporaryDirectory() as place:
        root, members = Path(place).resolve(), Counter[str]()
        for above, stem in shards:
            own = [
                (f"{above}{stem}{n}.{kind}", (PNG, str(n % 2).encode())[kind == "cls"])
                for n in range(8)
                for kind in ("png", "cls")
            ]
            own += [(pattern.format(f"m{n}"), PNG if "png" in pattern else b"1") for n, pattern in more]
            members[str(write_tar(root / f"{above}{stem}.tar", own))] = len(own)
        try:
            index = tar_index(root, *given)
        except DataError as error:
            event("refused")
            assert str(root) in str(error)
            return
        event("used")
        check_tally(index.account.files)
        check_tally(index.account.items)
        assert index.account.files.found.total() == len(shards)
        used = {str(index.reader.files[number]) for number in set(index.reader.file.tolist())}
        assert index.account.items.found.total() == sum(members[path] for path in used)
        check_rows(index)
        check_labels(index)
        check_shards(index, [str(path) for path in index.reader.files], root)


def check_labels(index: ImageIndex) -> None:
    """The label of each row is that of the member with its key, which ends at the first dot of the file's name."""
    for number, path in enumerate(index.reader.files):
        with tarfile.open(path) as archive:
            text = {key_of(member): archive.extractfile(member).read() for member in archive if ".cls" in member.name}
            key = {member.offset_data: key_of(member) for member in archive}
        for row in np.flatnonzero(index.reader.file == number).tolist():
            assert index.classes[index.labels[row]].encode() == text[key[index.reader.offset[row]]]


def key_of(member: tarfile.TarInfo) -> str:
    folder, _, name = member.name.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}"


def check_shards(index: ImageIndex, files: list[str], root: Path) -> None:
    """Rows of a file are in one split, or split off from its rows; a file with a held-out name is not trained on."""
    for number, path in enumerate(files):
        rows = set(np.flatnonzero(index.shard == number).tolist())
        inside = {split for split, own in index.splits.items() if rows & set(own.tolist())}
        by_chance = {split for split in inside if "split off" in index.account.origins[split]}
        assert len(inside - by_chance) <= 1
        said = kinds_in(os.path.relpath(path, root).removesuffix(".tar"))
        if len(said) == 1 and len(files) > 1 and by_chance:
            assert said == {"train"} or "all images" in index.account.origins[min(by_chance)]


@quick
@given(
    st.lists(st.tuples(st.sampled_from(ABOVE), st.sampled_from(STEMS)), min_size=1, max_size=4, unique=True),
    st.sampled_from([(), ("data.val_split=false", "data.test_split=false"), ("data.train_split=false",)]),
    st.booleans(),
)
def test_of_any_parquet_files(shards: list[tuple[str, str]], given: tuple[str, ...], has_labels: bool):
    with TemporaryDirectory() as place:
        root = Path(place).resolve()
        for number, (above, stem) in enumerate(shards):
            label = -1 if not has_labels and "test" in stem else None
            write_rows(root / f"{above}{stem}.parquet", 20 * number, 10 + number, label)
        put(root, {"README.md": b"x"})
        try:
            index = index_of("data.kind=parquet", f"data.path={root}", *given)
        except DataError as error:
            event("refused")
            assert str(root) in str(error)
            return
        event("used")
        check_tally(index.account.files)
        assert index.account.files.found.total() == len(shards) + 1
        check_rows(index)
        check_shards(index, [str(path) for path in index.reader.files], root)
