"""Options that hold several values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hard_ray_cli.options import as_given, listed, load

from hard_ray.errors import ConfigError, StorageError
from tests.cli.commands import invoke


def test_values_are_read_as_yaml_reads_them():
    assert listed("1, 3,5", "--severities") == [1, 3, 5]
    assert listed("0.5,1e-1", "--mean") == [0.5, 0.1]
    with pytest.raises(ConfigError, match="the option --severities"):
        listed("1,03", "--severities")
    with pytest.raises(ConfigError, match="the option --widths"):
        listed("4,[8", "--widths")


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "nowhere", "--severities", "1,3", "--images", "20"),
        ("evaluate", "nowhere", "--images", "all"),
        ("train-autoencoder", "--kind", "kl", "--widths", "4,8", "data.kind=image_folder", "data.path=nowhere"),
    ],
)
def test_numbers_of_a_command_line_are_numbers(tmp_path: Path, command: tuple[str, ...]):
    done = invoke(*command, "--output", str(tmp_path / "out"))
    assert "is no number" not in done.output
    assert "nowhere" in done.output


def test_a_configuration_may_be_at_a_url(tmp_path: Path):
    (tmp_path / "birds.yaml").write_text("optim: {lr: 0.25}\n")
    (tmp_path / "here.yaml").write_text("optim: {batch_size: 8}\n")
    url = Path(f"file://{tmp_path}/birds.yaml")
    found = load([url, tmp_path / "here.yaml"], "digits", None)
    assert (found.optim.lr, found.optim.batch_size) == (0.25, 8)
    assert as_given([url], None, None, teacher=None, data=None) == ["-c", f"file://{tmp_path}/birds.yaml"]
    with pytest.raises(StorageError, match=f"file://{tmp_path} is a folder; name a file in it"):
        load([Path(f"file://{tmp_path}")], "digits", None)
    with pytest.raises(StorageError, match="none.yaml"):
        load([Path(f"file://{tmp_path}/none.yaml")], "digits", None)
