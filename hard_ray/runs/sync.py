"""Sending a run or a search to MLflow after it has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hard_ray.config.layers import read_layer
from hard_ray.config.loader import validate
from hard_ray.errors import HardrayError
from hard_ray.files import read_json
from hard_ray.redaction import without_password
from hard_ray.runs.folder import RunFolder, open_run
from hard_ray.runs.place import Kind, known_place
from hard_ray.runs.search_folder import SearchFolder, search_at
from hard_ray.runs.summary import markdown
from hard_ray.runs.tracking import Follower, check_address, readable_problem, tracking_uri
from hard_ray.runs.trials import MLFLOW_WORDS, TrialStatus
from hard_ray.storage.mirror import shown_path


def sync(output: Path, say: Callable[[str], None]) -> None:
    """Send to MLflow what it lacks of a run or a search; HardrayError: there is none, or the server does not answer.

    A run that has not finished is closed as its driver noted, or as KILLED: nobody else holds its folder.
    """
    with known_place(output, say, SENT) as place, (folder := _opened(place.folder)).locked():
        for follower in _of_search(folder, say) if isinstance(folder, SearchFolder) else _of_run(folder, say):
            try:
                _close(follower)
            except Exception as error:  # client, store and network raise errors of any kind
                shown = without_password(follower.uri)
                reason = readable_problem(error).replace(follower.uri, shown)
                raise HardrayError(
                    f"MLflow at {shown} cannot be updated: {reason}; nothing is lost, try again once it answers"
                ) from None
            say(f"{shown_path(follower.folder.path)}: MLflow run {follower.sent.run_id} is up to date")
        place.send()  # the marks of what MLflow has


def _opened(path: Path) -> RunFolder:
    return search_at(path) or open_run(path)


SENT = Kind("record of what was sent", ("sync",), open=_opened)


def _close(follower: Follower) -> None:
    if follower.parent is None:
        tracking = follower.config.tracking.model_copy(update={"enabled": True})
        check_address(tracking, follower.folder.path.parent, create=True)
    summary = read_json(follower.folder.summary)
    if follower.folder.is_finished:
        follower.close("FINISHED", markdown(summary, follower.config) if summary else None)
    else:
        follower.close(follower.ended or follower.sent.ended or "KILLED")


def _of_run(folder: RunFolder, say: Callable[[str], None]) -> list[Follower]:
    """A run, its teacher's training and its controls."""
    main = _follower(folder, folder.path.name, None, say)
    controls = [RunFolder(path) for path in sorted((folder.path / "controls").glob("*"))]
    parts = [part for part in (folder.part("teacher"), *controls) if part.config.exists()]
    return [main, *(_follower(part, f"{main.name}/{part.path.name}", main, say) for part in parts)]


def _of_search(folder: SearchFolder, say: Callable[[str], None]) -> list[Follower]:
    """A search and its trials, with the states that `results.json` has."""
    config = validate([read_layer(folder.base, saved=True)], source=str(folder.base))
    results = read_json(folder.results, {})
    uri = tracking_uri(config.tracking, folder)
    main = Follower(folder, config, folder.path.name, uri, verb="tune", say=say)
    main.ended = {"finished": "FINISHED", "failed": "FAILED"}.get(results.get("status"))
    followers = [main]
    for row in results.get("trials", []):
        trial = folder.trial(row["id"])
        trial.bring()
        if trial.config.is_file():
            made = Follower(trial, config, f"{main.name}/{row['id']}", uri, parent=main, verb="tune", say=say)
            made.ended = MLFLOW_WORDS[TrialStatus(row["status"])]
            followers.append(made)
    return followers


def _follower(folder: RunFolder, name: str, parent: Follower | None, say: Callable[[str], None]) -> Follower:
    config = validate([read_layer(folder.config, saved=True)], source=str(folder.config))
    uri = parent.uri if parent else tracking_uri(config.tracking, folder)
    shown = config.experiment.name or name if parent is None else name
    return Follower(folder, config, shown, uri, parent=parent, say=say)
