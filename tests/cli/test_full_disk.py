"""A full disk is a message, wherever a verb meets it."""

import errno
import os

import pytest
import typer
from hard_ray_cli.terminal import readable_errors


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_says_which_file_and_what_to_do(capsys: pytest.CaptureFixture[str], code: int):
    with pytest.raises(typer.Exit) as ended, readable_errors():
        raise OSError(code, os.strerror(code), "/runs/x/summary.json")
    assert ended.value.exit_code == 1
    text = " ".join(capsys.readouterr().err.split())
    assert f"/runs/x/summary.json cannot be written: {os.strerror(code)}" in text
    assert "make room and give the same command again" in text


def test_another_error_of_the_system_stays_what_it_is():
    with pytest.raises(ConnectionResetError), readable_errors():
        raise ConnectionResetError(errno.ECONNRESET, "reset")
