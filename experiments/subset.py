"""Make an image folder with few training images per class, as links: `python -m experiments.subset FROM TO`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Link the first images of each class of `train`, and the whole of `test`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="image folder {train,test}/class/*")
    parser.add_argument("target", type=Path, help="a folder that does not exist")
    parser.add_argument("--per-class", type=int, default=500)
    given = parser.parse_args(arguments)
    source = given.source.resolve()
    for folder in sorted(path for path in (source / "train").iterdir() if path.is_dir()):
        chosen = given.target / "train" / folder.name
        chosen.mkdir(parents=True)
        for image in sorted(folder.iterdir())[: given.per_class]:
            (chosen / image.name).symlink_to(image)
    (given.target / "test").symlink_to(source / "test")


if __name__ == "__main__":
    main()
