"""The data set of a run as MLflow names it: name, digest, numbers of images, source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hard_ray.redaction import without_password
from hard_ray.runs.mlflow_names import plain_text, shortened

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

    from hard_ray.config.data import DataConfig
    from hard_ray.data.index import ImageIndex

LONGEST_DIGEST = 36
LONGEST_NAME = 200


def dataset_facts(config: DataConfig, index: ImageIndex) -> dict[str, Any]:
    """The content of `dataset.json`; the digest is the beginning of the index's fingerprint.

    Images without labels have no `classes`.
    """
    where = getattr(config, "path", None) or getattr(config, "name", None)
    source = without_password(plain_text(str(where or config.kind)))
    return {
        "name": shortened(Path(source).name or config.kind, LONGEST_NAME),
        "digest": index.fingerprint()[:LONGEST_DIGEST],
        "kind": config.kind,
        "source": source,
        "rows": {split: len(rows) for split, rows in index.splits.items()},
        **({"classes": len(index.classes)} if index.has_labels else {}),
    }


def dataset_input(facts: dict[str, Any]) -> DatasetInput:
    """The run's input of these facts."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = {"num_rows": sum(facts["rows"].values()), "rows": facts["rows"]}
    profile |= {"classes": facts["classes"]} if "classes" in facts else {}
    dataset = Dataset(
        name=facts["name"],
        digest=facts["digest"],
        source_type="local" if "/" in facts["source"] and "://" not in facts["source"] else "code",
        source=json.dumps({"uri": facts["source"], "kind": facts["kind"]}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
