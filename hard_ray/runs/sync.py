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
from hard_ray.runs.tracking import Follower, check_address, readable_problem, tracking_uri


def sync(output: Path, say: Callable[[str], None]) -> None:
    """Send to MLflow what it lacks of a run; HardrayError: no run, it is in use, or the server does not answer.

    A run that has not finished is closed as its driver noted, or as KILLED: nobody else holds its folder.
    """
    folder = open_run(output)
    with folder.locked():
        main = _follower(folder, folder.path.name, None, say)
        controls = [RunFolder(path) for path in sorted((folder.path / "controls").glob("*"))]
        parts = [part for part in (folder.part("teacher"), *controls) if part.config.exists()]
        followers = [main, *(_follower(part, f"{main.name}/{part.path.name}", main, say) for part in parts)]
        for follower in followers:
            try:
                if follower is main:
                    tracking = follower.config.tracking.model_copy(update={"enabled": True})
                    check_address(tracking, folder.path.parent, create=True)
                _close(follower)
            except Exception as error:  # client, store and network raise errors of any kind
                shown = without_password(follower.uri)
                reason = readable_problem(error).replace(follower.uri, shown)
                raise HardrayError(
                    f"MLflow at {shown} cannot be updated: {reason}; nothing is lost, try again once it answers"
                ) from None
            say(f"{follower.folder.path}: MLflow run {follower.sent.run_id} is up to date")


def _close(follower: Follower) -> None:
    summary = read_json(follower.folder.summary)
    if follower.folder.is_finished:
        follower.close("FINISHED", markdown(summary, follower.config) if summary else None)
    else:
        follower.close(follower.sent.ended or "KILLED")


def _follower(folder: RunFolder, name: str, parent: Follower | None, say: Callable[[str], None]) -> Follower:
    config = validate([read_layer(folder.config, saved=True)], source=str(folder.config))
    uri = parent.uri if parent else tracking_uri(config.tracking, folder)
    shown = config.experiment.name or name if parent is None else name
    return Follower(folder, config, shown, uri, parent=parent, say=say)
