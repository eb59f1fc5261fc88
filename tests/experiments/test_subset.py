from pathlib import Path

import pytest

from experiments import subset


def make(root: Path) -> Path:
    for split, count in (("train", 5), ("test", 2)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                (root / split / name / f"{number}.png").write_text(f"{split} {name} {number}")
    return root


def test_a_subset_has_the_first_images_of_each_class_and_every_test_image(tmp_path: Path):
    subset.main([str(make(tmp_path / "whole")), str(tmp_path / "few"), "--per-class", "3"])
    few = tmp_path / "few"
    assert sorted(path.name for path in (few / "train/bee").iterdir()) == ["0.png", "1.png", "2.png"]
    assert (few / "train/ant/1.png").read_text() == "train ant 1"
    assert len(list((few / "test").rglob("*.png"))) == 4


def test_a_folder_that_is_there_is_not_added_to(tmp_path: Path):
    arguments = [str(make(tmp_path / "whole")), str(tmp_path / "few")]
    subset.main(arguments)
    with pytest.raises(FileExistsError):
        subset.main(arguments)
