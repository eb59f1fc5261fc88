import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.data.index import ImageIndex
from hard_ray.data.readers import open_picture
from hard_ray.data.sources.build import build_index
from hard_ray.data.sources.idx import read_idx
from hard_ray.data.splits import split_off
from hard_ray.errors import DataError
from tests.support.helpers import make_image_folder


def index_of(*overrides: str) -> ImageIndex:
    return build_index(load_config(overrides=overrides).data)


def png(value: int, size: tuple[int, int] = (8, 6)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(stream, format="PNG")
    return stream.getvalue()


def values_of(index: ImageIndex, rows: np.ndarray) -> list[int]:
    """What each test picture was painted with."""
    return [int(np.asarray(open_picture(p).convert("L"))[0, 0]) for p in index.reader.read(rows.tolist())]


def test_digits_are_split_1297_200_300_and_stand_in_the_middle():
    index = index_of("data.kind=digits")
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 1297, "val": 200, "test": 300}
    together = np.concatenate(list(index.splits.values()))
    assert np.array_equal(np.sort(together), np.arange(1797))
    pixels = np.stack(index.reader.read([0, 1, 2]))
    assert pixels.shape == (3, 28, 28)
    assert pixels[:, :6].max() == pixels[:, 22:].max() == pixels[:, :, :6].max() == 0
    assert pixels[:, 6:22, 6:22].max() > 240


def test_splits_are_stratified():
    index = index_of("data.kind=digits")
    for rows in index.splits.values():
        share = np.bincount(index.labels[rows], minlength=10) / len(rows)
        assert np.abs(share - 0.1).max() < 0.01


def test_the_split_depends_on_its_own_seed_alone():
    one, same, other = (index_of(f"data.split_seed={s}", f"seed={r}") for s, r in ((0, 1), (0, 2), (1, 1)))
    assert np.array_equal(one.rows("val"), same.rows("val"))
    assert not np.array_equal(one.rows("val"), other.rows("val"))


def test_split_off_takes_the_exact_share():
    labels = np.repeat([0, 1, 2], [50, 30, 21])
    for fraction in (0.1, 0.25, 0.33):
        rest, taken = split_off(np.arange(101), labels, fraction=fraction, seed=0, purpose="x")
        assert len(taken) == round(fraction * 101)
        assert np.array_equal(np.sort(np.concatenate([rest, taken])), np.arange(101))


def test_an_image_folder_with_train_and_val(tmp_path: Path):
    index = index_of("data.kind=image_folder", f"data.path={make_image_folder(tmp_path)}")
    assert index.classes == ("ant", "bee")
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 24, "val": 8}
    assert index.final_split == "val"
    assert index.reader.name(0) == str(tmp_path / "train" / "ant" / "000.png")


def test_an_image_folder_without_splits_gets_three(tmp_path: Path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(50):
            (tmp_path / name / f"{number}.png").write_bytes(png(number))
    index = index_of("data.kind=image_folder", f"data.path={tmp_path}")
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 80, "test": 10, "val": 10}
    assert index.final_split == "test"


def test_splits_are_no_classes(tmp_path: Path):
    make_image_folder(tmp_path)
    with pytest.raises(DataError, match=r"data.train_split 'trian' is not among 'train', 'val'; set it to one of them"):
        index_of("data.kind=image_folder", f"data.path={tmp_path}", "data.train_split=trian")


def test_validation_is_split_off_where_there_is_none(tmp_path: Path):
    for split, count in (("train", 40), ("test", 4)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / split / name / f"{number}.png").write_bytes(png(number))
    index = index_of("data.kind=image_folder", f"data.path={tmp_path}")
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 72, "val": 8, "test": 8}


def test_unicode_spaces_and_other_files_in_a_folder(tmp_path: Path):
    for name in ("grüne Ameise", "蜂"):
        folder = tmp_path / "train" / name / "deeper down"
        folder.mkdir(parents=True)
        for number in range(10):
            (folder / f"bild {number} ü.PNG").write_bytes(png(number))
        (folder / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".hidden").mkdir()
    index = index_of("data.kind=image_folder", f"data.path={tmp_path}")
    assert index.classes == ("grüne Ameise", "蜂")
    assert len(index.labels) == 20
    assert sorted(values_of(index, np.arange(10))) == list(range(10))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "there is no such folder"),
        (lambda root: root.write_text("x"), "want a folder, this is a file"),
        (lambda root: root.mkdir(), "holds no class folders"),
        (lambda root: (root / "train" / "ant").mkdir(parents=True), "but no image in them"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path, make: object, words: str):
    root = tmp_path / "data"
    make(root)
    with pytest.raises(DataError, match=words):
        index_of("data.kind=image_folder", f"data.path={root}")


def test_one_class_only_is_refused(tmp_path: Path):
    make_image_folder(tmp_path, classes=("ant",))
    with pytest.raises(DataError, match="one class only"):
        index_of("data.kind=image_folder", f"data.path={tmp_path}")


def test_a_class_that_only_validation_has_is_refused(tmp_path: Path):
    make_image_folder(tmp_path)
    (tmp_path / "val" / "wasp").mkdir()
    with pytest.raises(DataError, match="the training split has no class 'wasp'"):
        index_of("data.kind=image_folder", f"data.path={tmp_path}")


def test_a_split_that_is_named_must_be_there(tmp_path: Path):
    make_image_folder(tmp_path)
    with pytest.raises(DataError, match=r"data.val_split 'dev' is not among 'train', 'val'"):
        index_of("data.kind=image_folder", f"data.path={tmp_path}", "data.val_split=dev")


def write_idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def mnist_like(folder: Path, suffix: str = "") -> Path:
    random = np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 20)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", random.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count) % 4)
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_gzipped_or_not(tmp_path: Path, suffix: str):
    index = index_of("data.kind=idx", f"data.path={mnist_like(tmp_path, suffix)}")
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 54, "val": 6, "test": 20}
    assert index.classes == ("0", "1", "2", "3")
    assert index.labels[60:64].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("t10k-images-idx3-ubyte", (20, 9, 9), "t10k images have 9 x 9 pixels, and the train images 28 x 28"),
        ("t10k-labels-idx1-ubyte", (20, 1, 1), "want 1 dimensions"),
        ("train-images-idx3-ubyte", (0, 28, 28), "none of them 0"),
    ],
)
def test_idx_files_that_do_not_fit_together_are_refused(tmp_path: Path, name: str, shape: tuple, words: str):
    mnist_like(tmp_path)
    write_idx(tmp_path / name, np.zeros(shape, dtype=np.uint8))
    with pytest.raises(DataError, match=words):
        index_of("data.kind=idx", f"data.path={tmp_path}")


@pytest.mark.parametrize("shape", [(2**32 - 4, 2**32 - 5, 0), (1,) * 65])
def test_idx_shapes_that_no_array_has_are_refused(tmp_path: Path, shape: tuple[int, ...]):
    head = b"\0\0\x08" + bytes([len(shape)]) + b"".join(length.to_bytes(4, "big") for length in shape)
    (tmp_path / "odd").write_bytes(head + bytes(int(shape[0] == 1)))
    with pytest.raises(DataError, match="odd: not an idx file"):
        read_idx(tmp_path / "odd")


def test_broken_idx_files_are_named(tmp_path: Path):
    mnist_like(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x09abc")
    with pytest.raises(DataError, match="not an idx file of unsigned bytes"):
        index_of("data.kind=idx", f"data.path={tmp_path}")
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte"):
        index_of("data.kind=idx", f"data.path={tmp_path}")


def test_idx_files_are_found_by_either_name_and_unpacked_by_content(tmp_path: Path):
    mnist_like(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").rename(tmp_path / "train-images.idx3-ubyte")
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(gzip.compress(labels.read_bytes()))
    index = index_of("data.kind=idx", f"data.path={tmp_path}")
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 54, "val": 6, "test": 20}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x14" + bytes(20), mtime=0)[:-9], "Compressed file ended"),
        (b"<html>not found</html>", "not an idx file"),
        (b"", "not an idx file"),
        (b"\0\0\x0c\x01\0\0\0\x14" + bytes(80), "not an idx file of unsigned bytes, or of more than"),
    ],
)
def test_files_that_are_no_idx_are_said_with_the_remedy(tmp_path: Path, content: bytes, words: str):
    mnist_like(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(
        DataError, match=f"t10k-labels-idx1-ubyte: .*{words}.*; want a file in MNIST's format; download"
    ):
        index_of("data.kind=idx", f"data.path={tmp_path}")


def test_the_real_mnist_files(shared_data: Path):
    index = index_of("data.kind=idx", f"data.path={shared_data / 'mnist'}")
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 54000, "val": 6000, "test": 10000}


def write_parquet(path: Path, values: list[int], labels: list, *, struct_cell: bool, metadata: dict | None = None):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [png(value) for value in values]
    images = pa.array([{"bytes": cell, "path": None} for cell in cells]) if struct_cell else pa.array(cells)
    table = pa.table({"image": images, "label": pa.array(labels)})
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, path, row_group_size=7)


@pytest.mark.parametrize("layout", ["train/part-{}.parquet", "data/train-{:05d}-of-00002.parquet"])
@pytest.mark.parametrize("struct_cell", [True, False])
def test_parquet_rows_are_read_whatever_their_row_group(tmp_path: Path, layout: str, struct_cell: bool):
    for part in range(2):
        values = list(range(20 * part, 20 * part + 20))
        write_parquet(tmp_path / layout.format(part), values, [v % 3 for v in values], struct_cell=struct_cell)
    index = index_of("data.kind=parquet", f"data.path={tmp_path}", "data.val_fraction=0.2")
    assert len(index.rows("train")) == 32
    rows = np.array([39, 0, 8, 21, 7, 38])
    assert values_of(index, rows) == rows.tolist()
    assert index.labels[rows].tolist() == [v % 3 for v in rows]
    assert index.shard.tolist() == [0] * 20 + [1] * 20
    assert "row" in index.reader.name(3)


def test_parquet_keeps_the_class_names_of_its_metadata(tmp_path: Path):
    features = {"info": {"features": {"label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}}}}
    write_parquet(
        tmp_path / "train" / "x.parquet", list(range(30)), [0, 1, 2] * 10, struct_cell=True, metadata=features
    )
    assert index_of("data.kind=parquet", f"data.path={tmp_path}").classes == ("ant", "bee", "cat")


def test_text_labels_are_sorted_and_eleven_numbers_keep_their_order(tmp_path: Path):
    write_parquet(
        tmp_path / "a" / "train" / "x.parquet", list(range(30)), ["cat", "ant", "bee"] * 10, struct_cell=False
    )
    index = index_of("data.kind=parquet", f"data.path={tmp_path / 'a'}")
    assert index.classes == ("ant", "bee", "cat")
    assert index.labels[:3].tolist() == [2, 0, 1]
    numbers = list(range(11)) * 4
    write_parquet(tmp_path / "b" / "train" / "x.parquet", list(range(44)), numbers, struct_cell=False)
    index = index_of("data.kind=parquet", f"data.path={tmp_path / 'b'}")
    assert index.classes == tuple(str(number) for number in range(11))
    assert index.labels.tolist() == numbers


@pytest.mark.parametrize("labels", [[None] * 8, [-1] * 8, [0.5] * 8, [0] * 7 + [2**40]])
def test_parquet_labels_that_are_none_are_refused(tmp_path: Path, labels: list):
    write_parquet(tmp_path / "train" / "x.parquet", list(range(8)), labels, struct_cell=False)
    with pytest.raises(DataError, match="is neither a class number below 1,000,000 nor a class name"):
        index_of("data.kind=parquet", f"data.path={tmp_path}")


def test_a_parquet_label_that_is_no_text_is_refused_by_file(tmp_path: Path):
    write_parquet(tmp_path / "train" / "x.parquet", list(range(8)), ["ant", "bee"] * 4, struct_cell=False)
    damaged = (tmp_path / "train" / "x.parquet").read_bytes().replace(b"bee", b"b\xffe")
    (tmp_path / "train" / "x.parquet").write_bytes(damaged)
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read as Parquet .*utf-8"):
        index_of("data.kind=parquet", f"data.path={tmp_path}")


def test_parquet_without_the_column_names_those_it_has(tmp_path: Path):
    write_parquet(tmp_path / "train" / "x.parquet", list(range(8)), [0, 1] * 4, struct_cell=False)
    with pytest.raises(DataError, match="has no column 'picture', but image, label; set data.image_column"):
        index_of("data.kind=parquet", f"data.path={tmp_path}", "data.image_column=picture")


def write_tar(path: Path, samples: list[tuple[str, int, str | None]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, value, label in samples:
            members = [(f"{key}.png", png(value))] + ([(f"{key}.cls", label.encode())] if label is not None else [])
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def test_webdataset_members_are_read_by_offset(tmp_path: Path):
    for shard in range(3):
        samples = [(f"img{n:03d}", n, str(n % 2)) for n in range(10 * shard, 10 * shard + 10)]
        write_tar(tmp_path / f"train-{shard:04d}.tar", samples)
    write_tar(tmp_path / "val-0000.tar", [(f"img{n:03d}", n, str(n % 2)) for n in range(100, 104)])
    index = index_of("data.kind=webdataset", f"data.path={tmp_path}")
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 30, "val": 4}
    assert values_of(index, np.array([29, 0, 15, 33])) == [29, 0, 15, 103]
    assert index.shard.tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 4


def test_webdataset_labels_may_be_names(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", [(f"{n}", n, ("bee", "ant")[n % 2]) for n in range(20)])
    index = index_of("data.kind=webdataset", f"data.path={tmp_path}")
    assert index.classes == ("ant", "bee")
    assert index.labels[:2].tolist() == [1, 0]


def test_a_webdataset_image_without_label_is_refused(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", [("a", 0, "0"), ("b", 1, None)])
    with pytest.raises(DataError, match="1 images have no member .*cls; set data.label_key"):
        index_of("data.kind=webdataset", f"data.path={tmp_path}")


def test_an_archive_without_an_image_is_an_empty_split(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", [])
    with pytest.raises(DataError, match="the train split holds no image"):
        index_of("data.kind=webdataset", f"data.path={tmp_path}")


def test_a_webdataset_class_number_beyond_all_classes_is_refused(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", [("a", 0, "0"), ("b", 1, "999999999")])
    with pytest.raises(DataError, match="the label 999999999 is neither a class number below 1,000,000"):
        index_of("data.kind=webdataset", f"data.path={tmp_path}")


@pytest.mark.parametrize(("kind", "suffix"), [("parquet", "parquet"), ("webdataset", "tar")])
def test_a_broken_shard_is_named(tmp_path: Path, kind: str, suffix: str):
    (tmp_path / f"train-0.{suffix}").write_bytes(b"nonsense" * 100)
    with pytest.raises(DataError, match=rf"train-0.{suffix}: cannot be read"):
        index_of(f"data.kind={kind}", f"data.path={tmp_path}")


def test_torchvision_by_name(tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    mnist_like(raw)
    overrides = ("data.kind=torchvision", "data.name=MNIST", f"data.path={tmp_path}", "data.download=false")
    index = index_of(*overrides)
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 54, "test": 20, "val": 6}
    reference = index_of("data.kind=idx", f"data.path={raw}")
    rows = np.array([61, 5, 79])
    for one, other in zip(index.reader.read(rows.tolist()), reference.reader.read(rows.tolist()), strict=True):
        assert np.array_equal(np.asarray(one), other)
    with pytest.raises(DataError, match="has no such class"):
        index_of("data.kind=torchvision", "data.name=NoSuchData")


def test_hugging_face_from_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    made = {}
    for split, count in (("train", 30), ("test", 10)):
        rows = {
            "image": [{"bytes": png(n), "path": None} for n in range(count)],
            "label": [n % 2 for n in range(count)],
        }
        made[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "saved"))
    index = index_of("data.kind=huggingface", f"data.name={tmp_path / 'saved'}")
    assert index.classes == ("ant", "bee")
    assert {name: len(rows) for name, rows in index.splits.items()} == {"train": 27, "test": 10, "val": 3}
    assert values_of(index, np.array([29, 3, 35])) == [29, 3, 5]
    with pytest.raises(DataError, match="no-such-folder"):
        index_of("data.kind=huggingface", "data.name=./no-such-folder")


def test_a_fingerprint_changes_with_labels_and_splits():
    one, same, other = (index_of(f"data.split_seed={seed}") for seed in (0, 0, 1))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_what_is_looked_at_first_is_spread_over_a_split():
    index = build_index(load_config(overrides=["data.kind=digits"]).data)
    rows = index.rows("val")
    found = index.rows_to_look_at("val", 3)
    assert found[:3].tolist() == [rows[0], rows[(len(rows) - 1) // 2], rows[-1]]
    assert sorted(found) == sorted(rows)
    assert sorted(index.rows_to_look_at("val", len(rows) + 1)) == sorted(rows)
