"""Sending a run to MLflow after it has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hard_ray.config.layers import read_layer
from hard_ray.config.loader import validate
from hard_ray.errors import HardrayError
from hard_ray.files import read_json
from hard_ray.redaction import without_password
from hard_ray.runs.folder import RunFolder, open_run
from hard_ray.runs.summary import markdown
from hard_ray.runs.tracking import Follower, tracking_uri


def sync(output: Path, say: Callable[[str], None]) -> None:
    """Send to MLflow what it lacks of a run; HardrayError: no run, it is in use, or the server does not answer."""
    folder = open_run(output)
    with folder.locked():
        main = _follower(folder, folder.path.name, None)
        controls = [RunFolder(path) for path in sorted((folder.path / "controls").glob("*"))]
        parts = [part for part in (folder.part("teacher"), *controls) if part.config.exists()]
        followers = [main, *(_follower(part, f"{main.name}/{part.path.name}", main) for part in parts)]
        for follower in followers:
            summary = read_json(follower.folder.summary)
            try:
                if follower.folder.is_finished:
                    follower.close("FINISHED", markdown(summary, follower.config) if summary else None)
                else:
                    follower.sync()
            except Exception as error:  # client, store and network raise errors of any kind
                shown = without_password(follower.uri)
                reason = f"{type(error).__name__}: {str(error).strip()}".replace(follower.uri, shown)
                raise HardrayError(
                    f"MLflow at {shown} cannot be updated: {reason}; nothing is lost, try again once it answers"
                ) from None
            say(f"{follower.folder.path}: MLflow run {follower.sent.run_id} is up to date")


def _follower(folder: RunFolder, name: str, parent: Follower | None) -> Follower:
    config = validate([read_layer(folder.config, saved=True)], source=str(folder.config))
    uri = parent.uri if parent else tracking_uri(config.tracking, folder)
    return Follower(folder, config, config.experiment.name or name if parent is None else name, uri, parent=parent)
