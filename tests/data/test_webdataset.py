import gzip
import json
import tarfile
from pathlib import Path

import pytest

from hard_ray.data.layout import HIDDEN
from hard_ray.errors import DataError
from tests.support.data_folders import HEIC, SIDECAR, image, samples, sizes, tar_index, write_tar


def left_out(index: object) -> dict[str, int]:
    assert index.account.items.adds_up
    return {reason: entry.count for reason, entry in index.account.items.left_out.items()}


def test_several_pictures_in_a_sample_are_refused_with_the_keys(tmp_path: Path):
    own = [member for n in range(10) for member in ((f"{n}.jpg", image(n, "JPEG")), (f"{n}.seg.png", image(200)))]
    write_tar(tmp_path / "train-0.tar", [*own, *((f"{n}.cls", str(n % 2).encode()) for n in range(10))])
    with pytest.raises(DataError, match=r"10 samples have several images, first '0' with '0.jpg' and '0.seg.png'; set "
                       r"data.image_key to one of jpg \(10\), seg.png \(10\)"):  # fmt: skip
        tar_index(tmp_path)
    index = tar_index(tmp_path, "data.image_key=jpg")
    assert left_out(index) == {"a .png member, which is not read": 10}
    assert index.reader.read([3]) == [image(3, "JPEG")]
    assert tar_index(tmp_path, "data.image_key=SEG.png").reader.read([3]) == [image(200)]


def test_alternatives_of_the_image_are_tried_in_their_order(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", [*samples(0, 10), ("x.webp", image(7, "WEBP")), ("x.cls", b"1")])
    assert len(tar_index(tmp_path).labels) == 11
    assert len(tar_index(tmp_path, "data.image_key=jpg;png;webp").labels) == 11
    index = tar_index(tmp_path, "data.image_key=png")
    assert len(index.labels) == 10
    assert left_out(index) == {"a member of a sample without a member .png (data.image_key)": 2}


@pytest.mark.parametrize("stem", ["img{} 2.0 (copy)", "v1.{}", "img.{}.final"])
def test_dots_in_names_end_keys_early_and_are_refused(tmp_path: Path, stem: str):
    write_tar(tmp_path / "train-0.tar", [*samples(0, 20), *samples(20, 4, stem=stem)])
    with pytest.raises(DataError, match="a key ends at the first dot of a name, so rename members with other dots"):
        tar_index(tmp_path)


def test_folders_in_keys_may_have_dots(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", [*samples(0, 10, stem="./v1.0/{}"), *samples(10, 10, stem="./v1.1/{}")])
    assert len(tar_index(tmp_path).labels) == 20


def test_hidden_members_and_links_are_left_out_and_others_counted(tmp_path: Path):
    own = [*samples(0, 10), *((f"s{n}.txt", b"a caption") for n in range(10)), ("README", b"hello")]
    hidden = [("._s0.png", SIDECAR), ("__MACOSX/s0.png", image()), ("@eaDir/s0.png", image()), (".DS_Store", b"")]
    path = write_tar(
        tmp_path / "train-0.tar", [*own, *hidden, ("alone.png.txt", b""), ("x.heic", HEIC), ("x.cls", b"1")]
    )
    with tarfile.open(path, "a") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "link.png"),
            (tarfile.LNKTYPE, "hard.png"),
            (tarfile.DIRTYPE, "folder.png"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "s0.png"
            archive.addfile(entry)
    index = tar_index(tmp_path)
    assert len(index.labels) == 10
    assert left_out(index) == {
        "a .txt member, which is not read": 10,
        "a member whose name has no extension": 1,
        HIDDEN: 4,
        "a member of a sample without an image": 2,
        ".heic images are not read: convert them to JPEG or PNG": 1,
        "a link in a tar file (write it with `tar --dereference --hard-dereference`)": 2,
    }


def test_members_of_unknown_extension_are_read_by_content(tmp_path: Path):
    members = [
        member for n in range(10) for member in ((f"{n}.jfif", image(n, "JPEG")), (f"{n}.cls", str(n % 2).encode()))
    ]
    write_tar(tmp_path / "train-0.tar", members)
    index = tar_index(tmp_path)
    assert len(index.labels) == 10
    assert index.account.items.by_content == {".jfif": 10}


def json_tar(root: Path, value: object, count: int = 10) -> Path:
    members = []
    for n in range(count):
        members += [(f"{n}.png", image(n)), (f"{n}.json", json.dumps(value(n)).encode())]
    write_tar(root / "train-0.tar", members)
    return root


def test_labels_are_a_field_of_a_json_member(tmp_path: Path):
    json_tar(tmp_path, lambda n: {"url": "x", "label": n % 2, "made": {"by": {"class": ("ant", "bee")[n % 2]}}})
    assert tar_index(tmp_path, "data.label_field=label").labels[:4].tolist() == [0, 1, 0, 1]
    named = tar_index(tmp_path, "data.label_field=made.by.class", "data.label_key=json")
    assert named.classes == ("ant", "bee")
    with pytest.raises(DataError, match=r"0.json: holds the fields 'url', 'label', 'made'; set data.label_field"):
        tar_index(tmp_path, "data.label_key=json")
    with pytest.raises(DataError, match=r"has the fields 'url', 'label', 'made' and no 'lable' \(data.label_field\)"):
        tar_index(tmp_path, "data.label_field=lable")
    with pytest.raises(DataError, match=r"0.json: field 'made' is .*; want a class number or a class name"):
        tar_index(tmp_path, "data.label_field=made")
    with pytest.raises(DataError, match=r"10 images have no member '0'.cls; set data.label_key.* has .json"):
        tar_index(tmp_path)


@pytest.mark.parametrize(("value", "label"), [(3, 3), (3.0, 3), ("3", "3")])
def test_a_json_label_keeps_its_type(tmp_path: Path, value: object, label: object):
    json_tar(tmp_path, lambda n: value if n else type(value)(2))
    index = tar_index(tmp_path, "data.label_key=json")
    assert index.classes[index.labels[1]] == str(label)
    assert len(index.classes) == (4 if isinstance(label, int) else 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff\xfe3\0", r"begins with .*no UTF-8 text; write it in UTF-8, or set data.label_key"),
        (b"a\nb", r"the label has several lines, first 'a'; want one class number or name"),
        (b"x" * 2000, r"the label has 2,000 bytes; want a class number or name of at most 1,024"),
        (b"", r"train-0.tar\[offset .* \(train split\): the label '' \(no label\) is neither .*correct member .cls"),
        (b"-1", r"the label -1 \(no label\) is neither a class number below"),
        (b"unknown", r"is the name 'unknown', but the number 0 in .*want numbers everywhere, or names everywhere"),
    ],
)
def test_a_label_that_is_none_is_refused_by_name(tmp_path: Path, text: bytes, words: str):
    write_tar(tmp_path / "train-0.tar", [*samples(0, 10), ("x.png", image()), ("x.cls", text)])
    with pytest.raises(DataError, match=words):
        tar_index(tmp_path)


@pytest.mark.parametrize("text", [b"3", b" 3\n", b"3.0", "\ufeff3".encode(), b"003"])
def test_a_number_may_be_written_in_several_ways(tmp_path: Path, text: bytes):
    write_tar(tmp_path / "train-0.tar", [*samples(0, 10), ("x.png", image()), ("x.CLS", text)])
    assert tar_index(tmp_path).labels[-1] == 3


@pytest.mark.parametrize("label", [b"-1", None])
def test_a_test_split_without_labels_is_left_out(tmp_path: Path, label: bytes | None):
    write_tar(tmp_path / "train-0.tar", samples(0, 20))
    write_tar(tmp_path / "val-0.tar", samples(50, 6))
    members = [(f"{n}.png", image(n)) for n in range(8)]
    write_tar(tmp_path / "test-0.tar", [*members, *((f"{n}.cls", label) for n in range(8) if label is not None)])
    index = tar_index(tmp_path)
    assert sizes(index) == {"train": 20, "val": 6}
    assert len(index.labels) == len(index.shard) == 26
    assert index.account.items.left_out["the test split has no labels"].count == 8
    assert index.reader.read(index.rows("val").tolist()) == [image(n) for n in range(50, 56)]
    with pytest.raises(DataError, match="8 images of the test split have no labels.*set data.test_split=false"):
        tar_index(tmp_path, "data.test_split=test")


def test_a_validation_split_without_labels_is_refused(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", samples(0, 20))
    write_tar(tmp_path / "val-0.tar", [("a.png", image()), ("a.cls", b"-1")])
    with pytest.raises(DataError, match=r"\(val split\): the label -1 .*leave the split out with data.val_split=false"):
        tar_index(tmp_path)
    assert sizes(tar_index(tmp_path, "data.val_split=false")) == {"train": 18, "val": 2}


def test_classes_that_only_held_out_images_have_are_said(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", samples(0, 10))
    write_tar(tmp_path / "val-0.tar", [("a.png", image()), ("a.cls", b"3"), ("b.png", image()), ("b.cls", b"1")])
    assert tar_index(tmp_path).account.notes == [
        "2 of 4 classes have no image in train: '2', '3'",
        "2 of 4 classes have no image in val: '0', '2'",
    ]


def test_two_members_of_one_name_are_refused(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", [*samples(0, 10), ("s0.PNG", image(9))])
    with pytest.raises(DataError, match="two members are named 's0.PNG'"):
        tar_index(tmp_path)


@pytest.mark.parametrize("name", ["train-0.tar.gz", "train-1.tgz", "train-0.tar.zst"])
def test_a_compressed_shard_is_not_passed_over(tmp_path: Path, name: str):
    path = write_tar(tmp_path / "train-1.tar", samples(0, 10))
    (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{name}: is compressed.*unpack it"):
        tar_index(tmp_path)


def test_a_damaged_or_joined_archive_loses_nothing_in_silence(tmp_path: Path):
    one = write_tar(tmp_path / "a/train-0.tar", samples(0, 10)).read_bytes()
    (tmp_path / "a/train-1.tar").write_bytes(one + one)
    with pytest.raises(DataError, match=r"train-1.tar: more follows after byte .*write joined archives as one"):
        tar_index(tmp_path / "a")
    damaged = bytearray(one)
    damaged[1024 * 4 : 1024 * 4 + 512] = b"\x7f" * 512
    (tmp_path / "a/train-1.tar").write_bytes(bytes(damaged))
    with pytest.raises(DataError, match=r"train-1.tar: (more follows|cannot be read)"):
        tar_index(tmp_path / "a")
    (tmp_path / "a/train-1.tar").write_bytes(one[:5000])
    with pytest.raises(DataError, match=r"train-1.tar: (cannot be read|more follows)"):
        tar_index(tmp_path / "a")


def test_a_shard_reached_twice_is_read_once_and_in_two_splits_refused(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", samples(0, 20))
    (tmp_path / "train-1.tar").symlink_to("train-0.tar")
    assert len(tar_index(tmp_path).labels) == 20
    (tmp_path / "val-0.tar").symlink_to("train-0.tar")
    with pytest.raises(DataError, match="one file by a link.*the split 'train' and in the split 'val'"):
        tar_index(tmp_path)


def test_a_folder_without_shards_says_what_it_holds(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no .tar file \(it holds 1 .txt\); set data.path"):
        tar_index(tmp_path)
