"""A minimal Ray Train job: the imports of hardray's worker and one update of a student."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import ray.train
from ray.train.torch import TorchTrainer

from benchmarks.work import quiet_ray


def step(told: dict[str, str]) -> None:
    """Run the worker."""
    import torch

    import hard_ray.orchestration.run.builder  # noqa: F401  (the same imports)
    from benchmarks.work import BATCH, SPEC, STUDENT
    from hard_ray.config.networks import StudentConfig
    from hard_ray.networks.network import build_student

    network = build_student(StudentConfig(model=STUDENT), SPEC).train()
    torch.autograd.backward(network(torch.rand(BATCH, 3, 32, 32)).mean())
    Path(told["note"]).write_text(str(time.time()), encoding="utf-8")
    ray.train.report({})


def main() -> None:
    """Print the time of the first update, in seconds since the epoch."""
    import hard_ray.orchestration.run.driver  # noqa: F401  (the same imports)

    with quiet_ray(3), tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            step,
            train_loop_config={"note": f"{folder}/first"},
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(storage_path=folder, name="bare"),
        )
        trainer.fit()
        first = Path(folder, "first").read_text(encoding="utf-8")
    print(f'{{"first": {first}}}')


if __name__ == "__main__":
    main()
