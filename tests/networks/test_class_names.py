"""Lists of class names as editors of every system write them."""

from pathlib import Path

import pytest

from hard_ray.errors import ModelError
from hard_ray.networks.class_names import read_names

TEXT = "ant\nbee\nkäfer\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.replace("\n", "\r\n").encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.replace("\n", "\r\n").encode("utf-16-be"),
        (TEXT + "\n\n  \n").encode(),
        TEXT.rstrip().encode(),
        b"ant\nbee\nka\xcc\x88fer\n",
    ],
    ids=["plain", "mark", "windows", "utf-16", "utf-16 be", "blank lines", "no end", "decomposed"],
)
def test_names_are_the_same_however_the_file_was_written(content: bytes, tmp_path: Path):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    assert read_names(path, "teacher.class_map") == ("ant", "bee", "käfer")


def test_another_encoding_is_a_message(tmp_path: Path):
    path = tmp_path / "classes.txt"
    path.write_bytes(TEXT.encode("latin-1"))
    with pytest.raises(ModelError, match=r"it is not UTF-8 \(byte 9\)\); want a text file .* save it as UTF-8"):
        read_names(path, "teacher.class_map")
    with pytest.raises(ModelError, match="No such file or directory"):
        read_names(tmp_path / "none.txt", "--classes")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ModelError, match="names no class"):
        read_names(tmp_path / "empty.txt", "--classes")
