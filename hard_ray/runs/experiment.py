"""The MLflow experiment of a run: found by its name, or made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hard_ray.runs.local_database import TrackingError, artifact_folder, database_of
from hard_ray.runs.mlflow_client import is_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow then shows training runs, not chats."""


def find_experiment(client: MlflowClient, name: str, uri: str, *, create: bool = True) -> str | None:
    """The experiment's id; None: it is not there, and `create` is off.

    The files of a local database are beside it, in a folder of the experiment's own.

    Raises:
        TrackingError: it was deleted there, which keeps its name taken.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None and create:
        database = database_of(uri)
        folder = None if database is None else artifact_folder(database, name)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)  # by it, a database that was moved knows that its files moved too
        try:
            return str(client.create_experiment(name, None if folder is None else folder.as_uri(), tags=KIND))
        except MlflowException:  # another run made it in the meantime
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found is not None and found.lifecycle_stage == "deleted":
        raise deleted_experiment(name, found.experiment_id)
    return None if found is None else str(found.experiment_id)


def deleted_experiment(name: str, number: str) -> TrackingError:
    """The sentence about an experiment in MLflow's bin."""
    return TrackingError(
        f"MLflow's experiment {name!r} was deleted there, and its name stays taken; bring it back with "
        f"`mlflow experiments restore --experiment-id {number}`, or choose another tracking.experiment"
    )


def is_deleted(client: MlflowClient, run_id: str) -> bool:
    """Whether a run is in MLflow's bin, or gone; TrackingError: its whole experiment was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if not is_missing(error):
            raise
        return True
    if run.info.lifecycle_stage != "deleted":
        return False
    experiment = client.get_experiment(run.info.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        raise deleted_experiment(experiment.name, experiment.experiment_id)
    return True


def connect_once(uri: str) -> None:
    """Connect to a database server; MLflow itself would try for minutes. Raises what the driver raises."""
    from mlflow.store.db.utils import create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()
