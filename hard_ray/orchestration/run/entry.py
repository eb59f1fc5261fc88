"""Where Ray Train enters a worker.

Train's controller and its helpers read the function and its configuration too. They are told bytes, and this
module imports nothing, so that none of them spends seconds on importing torch and timm.
"""

from __future__ import annotations

from typing import Any


def train_worker(told: dict[str, Any]) -> dict[str, Any]:
    """Ray Train's function: every training of the plan that is not finished yet.

    Args:
        told: `plan`, a pickled WorkerPlan, and `index`, a list with a reference to the ImageIndex.

    Returns:
        How it ended: `status`, and with `failed` the `error`.
    """
    import pickle

    import ray

    from hard_ray.orchestration.run.worker import train_plan

    plan = pickle.loads(told["plan"])  # noqa: S301  (made by this run's driver)
    return train_plan(plan, ray.get(told["index"][0]))
