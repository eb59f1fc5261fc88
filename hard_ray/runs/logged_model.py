"""The finished student as MLflow's logged model, for inference."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from hard_ray.config.run import RunConfig, embeds
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.mlflow_client import is_missing
from hard_ray.runs.sent import Sent

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME = "student"
KEY = "hardray.id"


def log_model(
    client: MlflowClient, folder: RunFolder, config: RunConfig, sent: Sent, remember: Callable[[], None]
) -> None:
    """Log the finished student: pt2, with an input example, any batch size.

    It takes images in [0, 1], shape (batch, channels, height, width), normalises them and returns logits or, of a
    student of an embedding, the backbone's features. The client alone is used, never MLflow's active run, which may be
    the caller's. What an interruption left is completed.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.exceptions import MlflowException

    run = client.get_run(str(sent.run_id))
    if sent.model_id is None:
        sent.model_id = _found_or_made(client, run.info.experiment_id, sent)
        remember()
    try:
        with tempfile.TemporaryDirectory() as place:
            saved = Path(place) / "model"
            _save(folder, config, saved, client.get_logged_model(sent.model_id).artifact_location, sent)
            client.log_model_artifacts(sent.model_id, str(saved))
        client.finalize_logged_model(sent.model_id, LoggedModelStatus.READY)
    except MlflowException as error:
        if is_missing(error):  # it was deleted there
            sent.model_id = None
            remember()
        raise
    named = [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]
    if sent.model_id not in named:
        client.log_outputs(str(sent.run_id), [LoggedModelOutput(sent.model_id, step=0)])
    sent.model = True
    remember()


def _found_or_made(client: MlflowClient, experiment: str, sent: Sent) -> str:
    """The model of this run, if a request made it whose answer was lost; else a new one."""
    known = client.search_logged_models([experiment], filter_string=f"tags.`{KEY}` = '{sent.key}'")
    if known:
        return str(known[0].model_id)
    made = client.create_logged_model(
        experiment, name=MODEL_NAME, source_run_id=sent.run_id, tags={KEY: sent.key}, model_type=None
    )
    return str(made.model_id)


def _save(folder: RunFolder, config: RunConfig, path: Path, location: str, sent: Sent) -> None:
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import Model

    from hard_ray.config.networks import NetworkConfig
    from hard_ray.networks.embedding import build_tower
    from hard_ray.networks.network import ImageSpec, build_student

    names = json.loads((folder.student / "config.json").read_text(encoding="utf-8")).get("label_names", ())
    images = ImageSpec(config.data.img_size, config.data.in_chans, tuple(names))
    build = build_tower if embeds(config) else build_student
    network = build(NetworkConfig(model=f"local-dir:{folder.student}", img_size=config.student.img_size), images)
    side = config.data.img_size
    mlflow.pytorch.save_model(
        network.eval(),
        str(path),
        mlflow_model=Model(
            artifact_path=location, model_uuid=sent.model_id, run_id=sent.run_id, model_id=sent.model_id
        ),
        input_example=np.zeros((2, config.data.in_chans, side, side), dtype=np.float32),
        serialization_format="pt2",
        pip_requirements=[f"{name}=={version(name)}" for name in ("torch", "torchvision", "mlflow")],
    )
