"""A Ray Train job that does nothing: the imports of hardray's worker, one update of a student, and out."""

from __future__ import annotations

import tempfile
import time

import ray.train
from ray.train.torch import TorchTrainer

from benchmarks.work import quiet_ray


def step() -> None:
    """The worker."""
    import torch

    import hard_ray.orchestration.worker  # noqa: F401  (the same imports)
    from benchmarks.work import BATCH, SPEC, STUDENT
    from hard_ray.config.networks import StudentConfig
    from hard_ray.networks.network import build_student

    network = build_student(StudentConfig(model=STUDENT), SPEC).train()
    torch.autograd.backward(network(torch.rand(BATCH, 3, 32, 32)).mean())
    ray.train.report({"first": time.time()})


def main() -> None:
    """Print when the first update was made, in seconds since the epoch."""
    import hard_ray.orchestration.driver  # noqa: F401  (the same imports)

    with quiet_ray(3), tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            step,
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(storage_path=folder, name="bare"),
        )
        result = trainer.fit()
    assert result.metrics is not None
    print(f'{{"first": {result.metrics["first"]}}}')


if __name__ == "__main__":
    main()
