"""Entry point of Ray Train in a worker.

Train's controller and its helpers load this function and its configuration too. The configuration is bytes, and this
module imports nothing, so that none of them spends seconds on importing torch and timm.
"""

from __future__ import annotations

from typing import Any


def train_worker(given: dict[str, Any]) -> dict[str, Any]:
    """Run the unfinished trainings of `plan`, a pickled WorkerPlan, on `index`, the shipped ImageIndex.

    Returns the `status`, and the `error` if it is `failed`.
    """
    import pickle

    from hard_ray.orchestration.run.worker import train_plan

    plan = pickle.loads(given["plan"])  # noqa: S301  (made by this run's driver)
    return train_plan(plan, given["index"].get())
