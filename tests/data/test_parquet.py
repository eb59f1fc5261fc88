"""Parquet files as they are in the wild: types of columns, empty cells, paths as images, labels that differ."""

import io
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index
from hard_ray.data.views import decode
from hard_ray.errors import DataError

ROWS = 20
LABELS = pa.array([number % 2 for number in range(ROWS)])


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 6), value).save(stream, format="PNG")
    return stream.getvalue()


IMAGES = [png(number) for number in range(ROWS)]
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
WIDEST = max(map(len, IMAGES))


def write(
    path: Path, images: pa.Array, labels: pa.Array = LABELS, names: list | None = None, **options: object
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": images, "label": labels})
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=7, **options)


def index_of(folder: Path, *overrides: str) -> ImageIndex:
    return build_index(load_config(overrides=["data.kind=parquet", f"data.path={folder}", *overrides]).data)


def levels(index: ImageIndex) -> list[int]:
    """What each picture was painted with."""
    pictures = index.reader.read(list(range(len(index.labels))))
    return [int(np.asarray(decode(picture, in_chans=1))[0, 0]) for picture in pictures]


@pytest.mark.parametrize(
    "images",
    [
        pa.array(IMAGES),
        pa.array(IMAGES, pa.large_binary()),
        pa.array(IMAGES, pa.binary_view()),
        pa.array([image.ljust(WIDEST, b"\0") for image in IMAGES], pa.binary(WIDEST)),
        pa.array(IMAGES).dictionary_encode(),
        pa.array([list(image) for image in IMAGES], pa.list_(pa.uint8())),
        pa.array([list(image) for image in IMAGES], pa.large_list(pa.uint8())),
        pa.array([[byte - 256 * (byte > 127) for byte in image] for image in IMAGES], pa.list_(pa.int8())),
        pa.array([{"bytes": image} for image in IMAGES]),
        pa.array([{"path": "elsewhere.png", "bytes": image} for image in IMAGES]),
        pa.array([{"bytes": list(image)} for image in IMAGES], pa.struct([("bytes", pa.list_(pa.uint8()))])),
    ],
    ids=lambda array: str(array.type),
)
def test_images_are_read_from_every_type_that_holds_bytes(tmp_path: Path, images: pa.Array):
    write(tmp_path / "0.parquet", images)
    index = index_of(tmp_path)
    assert levels(index) == list(range(ROWS))
    assert index.account.items.used == ROWS


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (pa.array(["iVBORw0KGgo="] * ROWS), r"string \(as 'iVBORw0KGgo='\).*decode base64"),
        (pa.array(range(ROWS)), r"int64 \(as 0\).*name another column"),
        (pa.array([[[0, 1], [2, 3]]] * ROWS, pa.list_(pa.list_(pa.uint8()))), "encode the pixels, one image a row"),
        (pa.array([[{"bytes": b"x", "path": "a"}]] * ROWS, pa.list_(CELL)), "one image a row"),
        (pa.array([{"data": b"x", "name": "a"}] * ROWS), "structs of data, name; want .* the field `bytes`"),
        (pa.array([{"bytes": "x"}] * ROWS), "structs whose field `bytes` is string"),
        (pa.array([[0.5] * 4] * ROWS), "list<.*double>.*encode the pixels"),
    ],
)
def test_columns_that_hold_no_images_are_refused_by_type(tmp_path: Path, images: pa.Array, found: str):
    write(tmp_path / "0.parquet", images)
    with pytest.raises(DataError, match=rf"0\.parquet: data\.image_column 'image' holds .*{found}"):
        index_of(tmp_path)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (pa.array([0.0, 1.0] * 10), r"double \(as 0\.0\).*as integers from 0"),
        (pa.array([True, False] * 10), "bool .*as integers from 0"),
        (pa.array([Decimal("0"), Decimal("1")] * 10), "decimal.*as integers from 0"),
        (pa.array([[0, 1], [1]] * 10), r"list<.* \(as \[0, 1\]\).*an image has one label here"),
        (pa.array([b"ant", b"bee"] * 10), "binary .*as text"),
        (pa.array([{"id": 0}, {"id": 1}] * 10), "struct.*name another column"),
    ],
)
def test_labels_that_are_neither_numbers_nor_names_are_refused_by_type(tmp_path: Path, labels: pa.Array, found: str):
    write(tmp_path / "train-0.parquet", pa.array(IMAGES), labels)
    words = rf"train-0\.parquet: data\.label_column 'label' holds {found}"
    with pytest.raises(DataError, match=words):
        index_of(tmp_path)
    with pytest.raises(DataError, match="neither a class number below 1,000,000 nor a class name"):
        index_of(tmp_path)


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("path", ["../images/0.png", "/etc/hostname", "0.png"])
def test_paths_without_bytes_are_refused_with_what_the_cells_hold(tmp_path: Path, path: str, statistics: bool):
    (tmp_path / "0.png").write_bytes(png(0))
    images = pa.array([{"bytes": None, "path": path}] * ROWS, CELL)
    write(tmp_path / "train-0.parquet", images, write_statistics=statistics)
    words = (
        rf"train-0\.parquet: data\.image_column 'image' holds paths without bytes in .* first '{path}' in row 0; want"
    )
    with pytest.raises(DataError, match=words):
        index_of(tmp_path)
    images = pa.array([{"path": path}] * ROWS, pa.struct([("bytes", pa.null()), ("path", pa.string())]))
    write(tmp_path / "train-0.parquet", images)
    with pytest.raises(DataError, match=words):
        index_of(tmp_path)


def test_one_path_among_images_is_refused_with_its_row(tmp_path: Path):
    cells = [{"bytes": image, "path": "x.png"} for image in IMAGES]
    cells[16]["bytes"] = None
    write(tmp_path / "0.parquet", pa.array(cells, CELL))
    with pytest.raises(DataError, match=r"paths without bytes in 1 of the 6 rows from 14 on, first 'x.png' in row 16"):
        index_of(tmp_path)


@pytest.mark.parametrize("make", [lambda cell: cell, lambda cell: cell and {"bytes": cell, "path": None}])
@pytest.mark.parametrize("empty", [[0], [3, 4, 9, 19], list(range(7, 14))])
def test_rows_without_an_image_are_left_out_and_counted(tmp_path: Path, make: object, empty: list[int]):
    for part in range(2):
        cells = [None if part == 0 and number in empty else image for number, image in enumerate(IMAGES)]
        write(tmp_path / f"train-{part}.parquet", pa.array([make(cell) for cell in cells]))
    index = index_of(tmp_path)
    kept = [number for number in range(ROWS) if number not in empty]
    assert levels(index) == kept + list(range(ROWS))
    assert index.labels.tolist() == [number % 2 for number in kept] * 1 + [number % 2 for number in range(ROWS)]
    assert index.shard.tolist() == [0] * len(kept) + [1] * ROWS
    assert index.reader.name(len(kept)).endswith("train-1.parquet[group 0, row 0]")
    assert index.reader.name(len(kept) - 1).endswith(f"[group {kept[-1] // 7}, row {kept[-1] % 7}]")
    items = index.account.items
    assert (items.used, items.adds_up) == (len(kept) + ROWS, True)
    (entry,) = items.left_out.values()
    assert (entry.count, entry.example) == (len(empty), f"{tmp_path / 'train-0.parquet'}, row {empty[0]}")


def test_a_struct_of_nothing_is_an_empty_cell(tmp_path: Path):
    cells = [{"bytes": image, "path": None} for image in IMAGES]
    cells[5] = {"bytes": None, "path": None}
    write(tmp_path / "0.parquet", pa.array(cells, CELL))
    assert levels(index_of(tmp_path)) == [number for number in range(ROWS) if number != 5]


def test_a_table_without_empty_cells_is_read_as_it_was(tmp_path: Path):
    write(tmp_path / "0.parquet", pa.array(IMAGES))
    index = index_of(tmp_path)
    assert index.reader.kept is None
    assert index.reader.read([19, 0, 7]) == [IMAGES[19], IMAGES[0], IMAGES[7]]


def test_files_with_numbers_and_with_names_are_refused(tmp_path: Path):
    write(tmp_path / "train-0.parquet", pa.array(IMAGES))
    write(tmp_path / "train-1.parquet", pa.array(IMAGES), pa.array([str(number % 2) for number in range(ROWS)]))
    with pytest.raises(DataError, match=r"holds numbers in .*train-0\.parquet, and names in .*train-1\.parquet; want"):
        index_of(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["bee", "ant"], r"class 0 is 'ant' in .*train-0\.parquet, and 'bee' in that of .*train-1\.parquet"),
        (["ant", "bee", "cat"], r"class 2 is None in .*train-0\.parquet, and 'cat' in"),
    ],
)
def test_files_with_other_class_names_are_refused(tmp_path: Path, names: list[str], words: str):
    write(tmp_path / "train-0.parquet", pa.array(IMAGES), names=["ant", "bee"])
    write(tmp_path / "train-1.parquet", pa.array(IMAGES), names=names)
    with pytest.raises(DataError, match=words):
        index_of(tmp_path)


def test_class_names_of_one_file_serve_all(tmp_path: Path):
    write(tmp_path / "train-0.parquet", pa.array(IMAGES))
    write(tmp_path / "train-1.parquet", pa.array(IMAGES), names=["ant", "bee"])
    assert index_of(tmp_path).classes == ("ant", "bee")


def test_numbers_as_text_are_names_in_the_order_of_text_and_that_is_said(tmp_path: Path):
    write(tmp_path / "0.parquet", pa.array(IMAGES), pa.array([str(number) for number in range(ROWS)]))
    index = index_of(tmp_path, "data.val_fraction=0.4")
    assert index.classes[:3] == ("0", "1", "10")
    assert any("holds numbers as text" in note and "'0', '1', '10'" in note for note in index.account.notes)
