"""Data sets of Hugging Face as they are in the wild: empty cells, paths, columns of other types, splits that differ."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index
from hard_ray.data.views import UnreadableImageError, decode
from hard_ray.errors import DataError

datasets = pytest.importorskip("datasets")

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROWS = 20


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 6), value).save(stream, format="PNG")
    return stream.getvalue()


def cells(empty: tuple[int, ...] = (), first: int = 0) -> list[dict | None]:
    return [None if n in empty else {"bytes": png(first + n), "path": None} for n in range(ROWS)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, tmp_path / "cache")


def saved(root: Path, splits: dict[str, dict[str, Any]], names: dict[str, list[str]] | None = None) -> Path:
    """A folder as `save_to_disk` writes it."""
    made = {}
    for split, columns in splits.items():
        table = datasets.Dataset(pa.table(columns))
        if names is not None:
            table = table.cast_column("label", datasets.ClassLabel(names=names[split]))
        made[split] = table
    datasets.DatasetDict(made).save_to_disk(str(root))
    return root


def index_of(folder: Path, *overrides: str) -> ImageIndex:
    return build_index(load_config(overrides=["data.kind=huggingface", f"data.name={folder}", *overrides]).data)


def columns(images: list, labels: list | None = None) -> dict[str, Any]:
    return {"image": pa.array(images, CELL), "label": labels or [number % 2 for number in range(len(images))]}


def test_rows_without_an_image_are_left_out_and_counted(tmp_path: Path):
    folder = saved(tmp_path / "saved", {"train": columns(cells((0, 7))), "test": columns(cells((3,), first=100))}, None)
    index = index_of(folder)
    pictures = index.reader.read(list(range(len(index.labels))))
    levels = [int(np.asarray(decode(picture, in_chans=1))[0, 0]) for picture in pictures]
    train = [number for number in range(ROWS) if number not in (0, 7)]
    test = [number for number in range(ROWS) if number != 3]
    assert levels == train + [100 + number for number in test]
    assert index.labels.tolist() == [number % 2 for number in train + test]
    assert index.reader.name(0) == f"{folder}[train, row 1]"
    assert index.reader.name(len(train)) == f"{folder}[test, row 0]"
    items = index.account.items
    assert items.adds_up
    (entry,) = items.left_out.values()
    assert (entry.count, entry.example) == (3, f"data.name {folder}, split 'train', row 0")


def test_a_set_without_empty_cells_is_read_as_it_was(tmp_path: Path):
    index = index_of(saved(tmp_path / "saved", {"train": columns(cells())}))
    assert index.reader.kept is None
    assert index.reader.read([19, 0]) == [png(19), png(0)]


@pytest.mark.parametrize("path", ["/etc/hostname", "gone.png"])
def test_paths_that_lead_to_no_file_are_refused_before_anything_starts(tmp_path: Path, path: str):
    images = [{"bytes": None, "path": path} for _ in range(ROWS)]
    folder = saved(tmp_path / "saved", {"train": columns(images)})
    words = rf"split 'train': data\.image_column 'image' holds a path without bytes in row 0, '{path}', and it cannot"
    with pytest.raises(DataError, match=words):
        index_of(folder)


@pytest.mark.parametrize(
    ("images", "found"), [(pa.array(range(ROWS)), "int64"), (pa.array([0.5] * ROWS), "float64")], ids=["int", "float"]
)
def test_a_column_without_images_is_refused_by_type(tmp_path: Path, images: pa.Array, found: str):
    folder = saved(tmp_path / "saved", {"train": {"image": images, "label": [0, 1] * 10}})
    with pytest.raises(DataError, match=rf"data\.image_column 'image' holds .*{found}.*; want images"):
        index_of(folder)


def test_columns_are_looked_for_in_every_split(tmp_path: Path):
    test = {"picture": pa.array(cells(), CELL), "label": [0, 1] * 10}
    folder = saved(tmp_path / "saved", {"train": columns(cells()), "test": test})
    with pytest.raises(DataError, match=r"split 'test': has no column 'image', but picture, label; set data\.image"):
        index_of(folder)
    test = {"image": pa.array(cells(), CELL), "fine": [0, 1] * 10}
    folder = saved(tmp_path / "other", {"train": columns(cells()), "test": test})
    with pytest.raises(DataError, match=r"split 'test': has no column 'label', but image, fine; set data\.label"):
        index_of(folder)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0.0, 1.0] * 10, r"double \(as \[0\.0\]\)"),
        ([True, False] * 10, "bool"),
        ([[0, 1]] * ROWS, r"list<.*an image has one label here"),
    ],
)
def test_labels_of_other_types_are_refused_with_split_and_column(tmp_path: Path, labels: list, found: str):
    folder = saved(tmp_path / "saved", {"train": columns(cells(), labels)})
    words = rf"split 'train': data\.label_column 'label' holds {found}"
    with pytest.raises(DataError, match=words):
        index_of(folder)


def test_a_missing_label_is_refused_with_its_row_and_in_a_test_split_left_out(tmp_path: Path):
    labels = [0, 1] * 9 + [None, 1]
    folder = saved(tmp_path / "saved", {"train": columns(cells(), labels)})
    with pytest.raises(DataError, match=r"\[train, row 18\].*the label None.*column 'label' \(data\.label_column\)"):
        index_of(folder)
    test = columns(cells(), [-1] * ROWS)
    folder = saved(
        tmp_path / "other", {"train": columns(cells()), "test": test}, {"train": ["a", "b"], "test": ["a", "b"]}
    )
    index = index_of(folder)
    assert set(index.splits) == {"train", "val"}
    assert any("have no labels" in note for note in index.account.notes)


def test_splits_with_other_class_names_are_refused(tmp_path: Path):
    names = {"train": ["ant", "bee"], "test": ["bee", "ant"]}
    folder = saved(tmp_path / "saved", {"train": columns(cells()), "test": columns(cells())}, names)
    with pytest.raises(DataError, match=r"class 0 'ant' in split 'train', and 'bee' in split 'test'; want the same"):
        index_of(folder)


def test_lists_of_numbers_are_no_picture_of_eight_bits(tmp_path: Path):
    images = pa.array([[[number, 2000], [3, 4]] for number in range(ROWS)])  # `datasets` makes 32-bit pictures of them
    folder = saved(tmp_path / "saved", {"train": {"image": images, "label": [0, 1] * 10}})
    (picture,) = index_of(folder).reader.read([0])
    with pytest.raises(UnreadableImageError, match="mode is I"):
        decode(picture, in_chans=3)


def test_one_saved_split_is_a_pool(tmp_path: Path):
    datasets.Dataset(pa.table(columns(cells()))).save_to_disk(str(tmp_path / "saved"))
    index = index_of(tmp_path / "saved")
    assert {split: len(rows) for split, rows in index.splits.items()} == {"train": 16, "val": 2, "test": 2}
