"""Who started a run, from what, and at which commit: the tags that MLflow shows beside it."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = "NOTEBOOK"
LOCAL = "LOCAL"


def origin_tags(verb: str) -> dict[str, str]:
    """MLflow's tags for the user, the source, its type, the entry point and the commit of the working folder."""
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": _source(verb),
        "mlflow.source.type": NOTEBOOK if "ipykernel" in sys.modules else LOCAL,
        "mlflow.project.entryPoint": verb,
    }
    commit = _commit()
    return tags if commit is None else {**tags, "mlflow.source.git.commit": commit}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return str(os.getuid())


def _source(verb: str) -> str:
    """The command, or the script that called the library."""
    script = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    if "ipykernel" in script:
        return os.environ.get("JPY_SESSION_NAME") or "a notebook"
    if script in ("", "-c", "-m"):
        return "Python"
    return f"hardray {verb}" if script == "hardray" else sys.argv[0]


def _commit() -> str | None:
    """The commit of the repository that the working folder is in; None: there is none, or no git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607  (the user's own git)
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    found = done.stdout.strip()
    return found if done.returncode == 0 and len(found) in (40, 64) else None
