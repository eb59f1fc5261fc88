"""Options that hold several values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hard_ray_cli.options import listed

from hard_ray.errors import ConfigError
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
