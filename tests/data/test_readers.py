"""What a reader gives of files that are none, of rows that name foreign ones, and of programs in place of pictures."""

import io
import json
import os
import pickle
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin, Image

from hard_ray.config.loader import load_config
from hard_ray.data import readers
from hard_ray.data import safe_parquet as parquet
from hard_ray.data.index import ImageIndex
from hard_ray.data.mapped import Names
from hard_ray.data.readers import FileReader, Picture, TarReader
from hard_ray.data.sources.build import build_index
from hard_ray.data.views import UnreadableImageError, decode
from hard_ray.errors import DataError
from tests.support.helpers import Trap

PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
"""PostScript, which Pillow has Ghostscript run."""


def png(value: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 6), value).save(stream, format="PNG")
    return stream.getvalue()


def index_of(*overrides: str) -> ImageIndex:
    return build_index(load_config(overrides=overrides).data)


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """There once a Ghostscript was started."""
    path, program = tmp_path / "ran", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n: > {path}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    with suppress(OSError):  # it makes no picture
        Image.open(io.BytesIO(PROGRAM)).load()
    assert path.exists()  # the trap works where Pillow is asked for anything
    path.unlink()
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return path


def unreadable(picture: Picture) -> bool:
    with pytest.raises(UnreadableImageError):
        decode(picture, in_chans=3)
    return True


def test_a_program_that_is_called_an_image_is_unreadable_and_not_run(ran: Path):
    assert unreadable(PROGRAM)
    assert not ran.exists()


def test_a_program_in_a_torchvision_folder_is_unreadable_and_not_run(tmp_path: Path, ran: Path):
    for split in ("train", "test"):
        for name in ("AA", "BB"):
            folder = tmp_path / "data" / "country211" / split / name
            folder.mkdir(parents=True)
            for number in range(10):
                (folder / f"{number}.jpg").write_bytes(PROGRAM if number == 3 else png(number))
    place = ("data.kind=torchvision", "data.name=Country211", f"data.path={tmp_path / 'data'}", "data.download=false")
    index = index_of(*place)
    pictures = index.reader.read(list(range(5)))
    assert unreadable(pictures[3])
    assert np.asarray(decode(pictures[4], in_chans=1)).max() == 4
    assert not ran.exists()


def hugging_face_folder(root: Path, cells: list[dict], **columns: list) -> Path:
    """A folder that `load_dataset` takes; `thumbnail` is a second column of images."""
    images = {name: {"_type": "Image"} for name in ("image", "thumbnail")}
    table = pa.table(
        {
            "image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "thumbnail": pa.array([{"bytes": PROGRAM, "path": None}] * len(cells)),
            "label": [number % 2 for number in range(len(cells))],
            **columns,
        }
    )
    root.mkdir(exist_ok=True)
    features = {**images, "label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, root / "train.parquet")
    return root


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its cache is the test's own."""
    datasets = pytest.importorskip("datasets")
    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, tmp_path / "cache")
    return tmp_path / "cache"


def test_a_program_in_any_column_of_a_hugging_face_set_is_not_run(tmp_path: Path, ran: Path, hugging_face: Path):
    cells = [{"bytes": PROGRAM if number == 3 else png(number), "path": None} for number in range(20)]
    place = ("data.kind=huggingface", f"data.name={hugging_face_folder(tmp_path / 'data', cells)}")
    index = index_of(*place)
    assert index.classes == ("ant", "bee")
    assert index.labels[:3].tolist() == [0, 1, 0]
    pictures = index.reader.read([3, 4])
    assert unreadable(pictures[0])
    assert np.asarray(decode(pictures[1], in_chans=1)).max() == 4
    with pytest.raises(DataError, match="neither a class number below 1,000,000 nor a class name"):
        index_of(*place, "data.label_column=thumbnail")
    assert not ran.exists()


def test_a_pickle_is_no_hugging_face_set_and_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hugging_face: Path
):
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    monkeypatch.chdir(tmp_path)  # a builder that is named takes what lies here
    with pytest.raises(DataError, match="data.name pandas"):
        index_of("data.kind=huggingface", "data.name=pandas")
    assert not (tmp_path / "sprung").exists()


def test_a_row_may_name_files_of_its_data_set_and_of_the_cache_and_no_others(tmp_path: Path, hugging_face: Path):
    private, own, cached = (tmp_path / name / "9.png" for name in ("home", "data/images", "cache/downloads"))
    for path in (private, own, cached):
        path.parent.mkdir(parents=True)
        path.write_bytes(png(9))
    (own.parent / "link.png").symlink_to(private)
    (own.parent / "loop.png").symlink_to(own.parent / "loop.png")
    foreign = [private, own.parent / "../../home/9.png", own.parent / "link.png", own.parent / "loop.png", "a\0b"]
    names = [own, cached, *foreign, *[own] * 13]
    folder = hugging_face_folder(tmp_path / "data", [{"bytes": None, "path": str(name)} for name in names])
    index = index_of("data.kind=huggingface", f"data.name={folder}")
    pictures = index.reader.read(list(range(7)))
    assert pictures[:2] == [png(9)] * 2
    for picture in pictures[2:]:
        assert isinstance(picture, OSError)
    for picture in pictures[2:5]:
        assert f"which is not below {folder}" in str(picture)


@pytest.mark.timeout(60)
def test_what_is_no_file_with_an_end_is_unreadable_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readers, "LARGEST_FILE", 1000)
    (tmp_path / "image.png").write_bytes(png(5))
    (tmp_path / "link.png").symlink_to("image.png")
    (tmp_path / "large.png").write_bytes(png(5) + bytes(1000))
    (tmp_path / "device.png").symlink_to("/dev/null")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {
        "large.png": "bytes; want an image of at most 1,000",
        "device.png": "device.png is not a regular file",
        "folder.png": "folder.png is not a regular file",
        "pipe.png": "pipe.png is not a regular file",
        "gone.png": "No such file",
    }
    pictures = FileReader(tmp_path, Names.of(["image.png", "link.png", *reasons])).read(range(7))
    assert pictures[:2] == [png(5)] * 2
    for picture, reason in zip(pictures[2:], reasons.values(), strict=True):
        assert isinstance(picture, OSError)
        assert reason in str(picture)


def test_a_member_of_a_shard_that_is_too_large_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for number in range(20):
            for suffix, data in (("png", png() + bytes(1000 * (number == 3))), ("cls", str(number % 2).encode())):
                info = tarfile.TarInfo(f"{number:02}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    index = index_of("data.kind=webdataset", f"data.path={tmp_path}")
    assert isinstance(index.reader, TarReader)
    monkeypatch.setattr(readers, "LARGEST_FILE", 1000)
    pictures = index.reader.read([2, 3, 4])
    assert [isinstance(picture, bytes) for picture in pictures] == [True, False, True]
    assert unreadable(pictures[1])


def parquet_index(root: Path, images: list[bytes], row_group_size: int) -> ImageIndex:
    (root / "train").mkdir()
    table = pa.table({"image": images, "label": [number % 2 for number in range(len(images))]})
    pq.write_table(table, root / "train" / "0.parquet", row_group_size=row_group_size)
    return index_of("data.kind=parquet", f"data.path={root}")


def test_the_pictures_of_a_damaged_row_group_are_unreadable_and_the_others_are_not(tmp_path: Path):
    index = parquet_index(tmp_path, [png(number) for number in range(20)], row_group_size=10)
    shard = tmp_path / "train" / "0.parquet"
    image = pq.ParquetFile(shard).metadata.row_group(1).column(0)
    data = bytearray(shard.read_bytes())
    data[image.dictionary_page_offset : image.dictionary_page_offset + image.total_compressed_size] = bytes(
        image.total_compressed_size
    )
    shard.write_bytes(data)
    pictures = index.reader.read([3, 13, 9, 19])
    assert [isinstance(picture, OSError) for picture in pictures] == [False, True, False, True]
    assert unreadable(pictures[1])


def test_a_parquet_file_of_more_rows_than_bytes_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"0\.parquet: cannot be read as Parquet \(says that its row groups have 50000"):
        parquet_index(tmp_path, [b"x"] * 50_000, row_group_size=50_000)


def test_a_row_group_that_unfolds_to_more_than_is_read_at_once_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parquet, "LARGEST_READ", 2_000_000)
    index = parquet_index(tmp_path, [os.urandom(20_000)] * 20_000, row_group_size=20_000)
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        picture = index.reader.read([0])[0]
    finally:
        pa.set_memory_pool(usual)
    assert isinstance(picture, OSError)
    assert "more than 2,000,000 bytes at once; write the file with smaller row groups" in str(picture)
    assert pool.max_memory() < 4_000_000, "of 400,000,000 that the file's rows have"


def test_the_pictures_of_an_archive_that_is_gone_are_unreadable(tmp_path: Path):
    (tmp_path / "0.tar").write_bytes(png(3))
    files, size = (tmp_path / "0.tar", tmp_path / "gone.tar"), len(png(3))
    reader = TarReader(files, np.array([0, 1]), np.array([0, 0]), np.array([size, size]))
    there, gone = reader.read([0, 1])
    assert there == png(3)
    assert isinstance(gone, OSError)
