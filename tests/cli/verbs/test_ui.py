from pathlib import Path

from tests.cli.commands import invoke


def test_ui_without_runs_says_what_to_give(tmp_path: Path):
    done = invoke("ui", "--runs", str(tmp_path))
    assert done.exit_code == 1
    assert "holds no mlflow.db" in done.stderr
