from pathlib import Path

from tests.cli.commands import invoke


def test_a_checkpoint_that_is_not_there_cannot_be_imported(tmp_path: Path):
    done = invoke("import-teacher", str(tmp_path / "w.pt"), "--model", "resnet18", "--output", str(tmp_path / "t"))
    assert done.exit_code == 1
    assert "there is no such file" in " ".join(done.stderr.split())
