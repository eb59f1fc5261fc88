"""Small folders of the layouts that torchvision's classes read; a kind of picture is a level of grey."""

import csv
import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

LEVELS = (40, 200)
"""Of the pictures of the two classes."""


def picture(kind: int, suffix: str = ".jpg") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (LEVELS[kind],) * 3).save(stream, {".ppm": "PPM", ".png": "PNG"}.get(suffix, "JPEG"))
    return stream.getvalue()


def place(path: Path, kind: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(kind, path.suffix))
    return path


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def class_folders(root: Path, names: tuple[str, str], count: int, suffix: str = ".jpg") -> None:
    for kind, name in enumerate(names):
        for number in range(count):
            place(root / name / f"{number:03}{suffix}", kind)


def flowers102(root: Path) -> None:
    ids = np.arange(1, 61)
    for number in ids:
        place(root / f"flowers-102/jpg/image_{number:05}.jpg", int(number % 2))
    base = root / "flowers-102"
    savemat(base / "imagelabels.mat", {"labels": ids % 2 + 1})
    savemat(base / "setid.mat", {"trnid": ids[:40], "valid": ids[40:50], "tstid": ids[50:]})


def stanford_cars(root: Path) -> None:
    base = root / "stanford_cars"
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        names = [f"{number:05}.jpg" for number in range(20)]
        for number, name in enumerate(names):
            place(base / f"cars_{split}" / name, number % 2)
        rows = np.array([(name, n % 2 + 1) for n, name in enumerate(names)], dtype=[("fname", "O"), ("class", "O")])
        (base / file).parent.mkdir(exist_ok=True)
        savemat(base / file, {"annotations": rows})
    savemat(base / "devkit/cars_meta.mat", {"class_names": np.array(["ant", "bee"], dtype=object)})


def oxford_iiit_pet(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for split, first in (("trainval", 0), ("test", 20)):
        names = [(f"{('ant', 'bee')[n % 2]}_{n}", n % 2 + 1) for n in range(first, first + 20)]
        for name, label in names:
            place(base / f"images/{name}.jpg", label - 1)
        text(base / f"annotations/{split}.txt", *(f"{name} {label} 1 1" for name, label in names))


def food101(root: Path) -> None:
    for split, first in (("train", 0), ("test", 20)):
        names = {name: [f"{name}/{number}" for number in range(first, first + 20)] for name in ("ant", "bee")}
        for kind, files in enumerate(names.values()):
            for name in files:
                place(root / f"food-101/images/{name}.jpg", kind)
        text(root / f"food-101/meta/{split}.json", json.dumps(names))


def dtd(root: Path) -> None:
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        names = [f"{name}/{name}_{number}.jpg" for name in ("ant", "bee") for number in range(first, first + 10)]
        for name in names:
            place(root / f"dtd/dtd/images/{name}", int(name.startswith("bee")))
        text(root / f"dtd/dtd/labels/{split}1.txt", *names)


def fgvc_aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b/data"
    for level, names in (("variants", ("ant", "bee")), ("families", ("A", "B"))):
        text(base / f"{level}.txt", *names)
    for split, first, count in (("train", 0, 20), ("val", 20, 10), ("trainval", 0, 30), ("test", 30, 10)):
        for level, names in (("variant", ("ant", "bee")), ("family", ("B", "A"))):
            lines = [f"{number:04} {names[number % 2]}" for number in range(first, first + count)]
            text(base / f"images_{level}_{split}.txt", *lines)
        for number in range(first, first + count):
            place(base / f"images/{number:04}.jpg", number % 2)


def sun397(root: Path) -> None:
    text(root / "SUN397/ClassName.txt", "/a/ant", "/b/bee")
    for kind, name in enumerate(("a/ant", "b/bee")):
        for number in range(20):
            place(root / f"SUN397/{name}/sun_{19 - number}.jpg", kind)


def eurosat(root: Path) -> None:
    class_folders(root / "eurosat/2750", ("ant", "bee"), 20)


def caltech101(root: Path) -> None:
    base = root / "caltech101/101_ObjectCategories"
    (base / "BACKGROUND_Google").mkdir(parents=True)
    for kind, name in enumerate(("ant", "bee")):
        for number in range(1, 21):
            place(base / name / f"image_{number:04}.jpg", kind)


def caltech256(root: Path) -> None:
    for kind, name in enumerate(("001.ant", "002.bee")):
        for number in range(1, 21):
            place(root / f"caltech256/256_ObjectCategories/{name}/{kind + 1:03}_{number:04}.jpg", kind)


def gtsrb(root: Path) -> None:
    class_folders(root / "gtsrb/GTSRB/Training", ("00000", "00001"), 20, ".ppm")
    names = [(f"{number:05}.ppm", number % 2) for number in range(10)]
    for name, kind in names:
        place(root / f"gtsrb/GTSRB/Final_Test/Images/{name}", kind)
    with (root / "gtsrb/GT-final_test.csv").open("w") as file:
        csv.writer(file, delimiter=";").writerows([("Filename", "ClassId"), *names])


def stl10(root: Path) -> None:
    base = root / "stl10_binary"
    base.mkdir(parents=True)
    for split, count in (("train", 40), ("test", 10)):
        kinds = np.arange(count) % 2
        pixels = np.take(np.array(LEVELS, dtype=np.uint8), kinds)[:, None].repeat(3 * 96 * 96, axis=1)
        (base / f"{split}_X.bin").write_bytes(pixels.tobytes())
        (base / f"{split}_y.bin").write_bytes((kinds + 1).astype(np.uint8).tobytes())
    (base / "unlabeled_X.bin").write_bytes(bytes(3 * 96 * 96 * 5))
    text(base / "class_names.txt", "ant", "bee")


def svhn(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 40), ("test", 10)):
        kinds = np.arange(count) % 2
        pixels = np.take(np.array(LEVELS, dtype=np.uint8), kinds)[None, None, None].repeat(32, 0).repeat(32, 1)
        savemat(root / f"{split}_32x32.mat", {"X": pixels.repeat(3, 2), "y": np.where(kinds, 1, 10)[:, None]})


def emnist(root: Path) -> None:
    raw = root / "EMNIST/raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 40), ("test", 10)):
        kinds = np.arange(count) % 2
        pixels = np.take(np.array(LEVELS, dtype=np.uint8), kinds)[:, None, None].repeat(28, 1).repeat(28, 2)
        for name, array in (("images-idx3", pixels), ("labels-idx1", (25 * kinds + 1).astype(np.uint8))):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (raw / f"emnist-letters-{split}-{name}-ubyte").write_bytes(head + array.tobytes())


def imagenette(root: Path) -> None:
    for split, count in (("train", 20), ("val", 10)):
        class_folders(root / "imagenette2" / split, ("n01440764", "n02102040"), count, ".JPEG")


def rendered_sst2(root: Path) -> None:
    for split in ("train", "valid", "test"):
        class_folders(root / "rendered-sst2" / split, ("negative", "positive"), 20, ".png")


def clevr(root: Path) -> None:
    base = root / "clevr/CLEVR_v1.0"
    for split in ("train", "val", "test"):
        names = [f"CLEVR_{split}_{number:06}.png" for number in range(20)]
        for number, name in enumerate(names):
            place(base / f"images/{split}/{name}", number % 2)
        scenes = [{"image_filename": name, "objects": [{}] * (n % 2)} for n, name in enumerate(names)]
        text(base / f"scenes/CLEVR_{split}_scenes.json", json.dumps({"scenes": scenes}))


def image_folder(root: Path) -> None:
    class_folders(root, ("ant", "bee"), 20)


def voc(root: Path) -> None:
    base = root / "VOCdevkit/VOC2012"
    for split in ("train", "val"):
        place(base / "JPEGImages/0.jpg", 0)
        text(base / "Annotations/0.xml", "<annotation><folder>x</folder></annotation>")
        text(base / f"ImageSets/Main/{split}.txt", "0")
