from pathlib import Path

from tests.cli.commands import invoke
from tests.support.helpers import make_image_folder


def test_a_teacher_is_trained_on_an_image_folder_too(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("data: {img_size: 32}\n")
    root = make_image_folder(tmp_path / "data")
    options = ("--data", str(root), "--model", "resnet18", "teacher.recipe.batch_size=8", "--dry-run")
    done = invoke("train-teacher", "-c", str(tmp_path / "mine.yaml"), *options)
    assert done.exit_code == 0, done.stderr
    assert "data.kind image_folder" in done.stdout
