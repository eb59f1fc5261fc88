"""The command line, called in this process."""

from __future__ import annotations

import sys
from pathlib import Path

from hard_ray_cli.main import app
from typer.testing import CliRunner, Result

HARDRAY = str(Path(sys.executable).with_name("hardray"))
SECRET = "hunter2hunter2"


def invoke(*arguments: str) -> Result:
    """A command's exit code and output."""
    return CliRunner().invoke(app, list(arguments))


def words(text: str) -> str:
    """The text in one line, as a terminal of any width would wrap it."""
    return " ".join(text.split())
