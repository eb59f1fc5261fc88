"""A space in Ray Tune's words, and Tune's events as calls."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from hard_ray.config.distribution import Choice, Distribution, LogRandInt, LogUniform, QUniform, RandInt, Uniform
from hard_ray.config.space import SpaceConfig
from hard_ray.data.index import ImageIndex
from hard_ray.orchestration.cluster.demand import TRIAL_CPUS
from hard_ray.orchestration.search.trial import TrialActor, plain
from hard_ray.runs.trials import Goal

TUNE_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the search's own handler lets trials write a checkpoint first
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folders are the record
    "TUNE_GLOBAL_CHECKPOINT_S": "5",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class Listener(Protocol):
    """Hears of trials, in the search's driver."""

    def began(self, name: str, config: dict[str, Any]) -> None:
        """A trial starts or goes on."""
        ...

    def heard(self, name: str, result: Mapping[str, Any]) -> None:
        """A trial was evaluated."""
        ...

    def ended(self, name: str) -> None:
        """A trial ended by itself, or was ended early."""
        ...

    def failed(self, name: str, error: str) -> None:
        """A trial failed."""
        ...

    def tick(self) -> None:
        """Called several times a second."""
        ...

    def reached(self, name: str, result: Mapping[str, Any]) -> bool:
        """Whether the trial ends here."""
        ...

    def is_hopeless(self) -> bool:
        """Whether the search ends here."""
        ...


LISTENERS: list[Listener] = []
"""The last one is told: Tune pickles what it calls, and a resumed search calls what the first one pickled."""


class Events(tune.Callback):
    """Tune's events, passed on to the listener of this process."""

    @property
    def listener(self) -> Listener:
        """The search that is under way."""
        return LISTENERS[-1]

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Passed on."""
        self.listener.began(trial.trial_id, {key: plain(value) for key, value in trial.config.items()})

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Passed on."""
        self.listener.heard(trial.trial_id, result)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Passed on."""
        self.listener.ended(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Passed on, with what the trial's process left."""
        path = trial.error_file
        text = Path(path).read_text(encoding="utf-8", errors="replace") if path and Path(path).is_file() else ""
        self.listener.failed(trial.trial_id, next(reversed(text.strip().splitlines()), ""))

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Passed on."""
        self.listener.tick()


class Ends(tune.Stopper):
    """When a trial, and when the whole search, ends early."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial ends here."""
        return LISTENERS[-1].reached(trial_id, result)

    def stop_all(self) -> bool:
        """Whether the search ends here."""
        return LISTENERS[-1].is_hopeless()


def build_tuner(space: SpaceConfig, order: bytes, index: ImageIndex, path: Path, *, epochs: float) -> tune.Tuner:
    """A new search, or one that goes on where Tune's files say.

    Args:
        space: what is searched.
        order: a pickled `TrialOrder`.
        index: the data.
        path: the folder of Tune's files, in the search's.
        epochs: length of a trial that runs to its end.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in TUNE_SETTINGS.items()})
    trainable = tune.with_resources(tune.with_parameters(TrialActor, told=order, index=index), {"CPU": TRIAL_CPUS})
    domains = {key: domain(drawn, grid=space.search == "grid") for key, drawn in space.parameters.items()}
    if tune.Tuner.can_restore(str(path)):
        return tune.Tuner.restore(
            str(path), trainable=trainable, resume_unfinished=True, resume_errored=False, param_space=domains
        )
    single = space.metrics[0] if len(space.metrics) == 1 else None
    return tune.Tuner(
        trainable,
        param_space=domains,
        tune_config=tune.TuneConfig(
            metric=single,
            mode=space.modes[0] if single else None,
            search_alg=searcher(space),
            scheduler=scheduler(space, epochs),
            num_samples=1 if space.search == "grid" else space.count,
            max_concurrent_trials=space.concurrency,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name=path.name,
            storage_path=str(path.parent),
            callbacks=[Events()],
            stop=Ends(),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=False),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the run folders have them
        ),
    )


def _name_of(trial: TuneTrial) -> str:
    return str(trial.trial_id)


def domain(drawn: Distribution, *, grid: bool) -> Any:
    """A distribution in Tune's words; a grid takes every choice."""
    match drawn:
        case Uniform(uniform=(low, high)):
            return tune.uniform(low, high)
        case LogUniform(loguniform=(low, high)):
            return tune.loguniform(low, high)
        case QUniform(quniform=(low, high, step)):
            return tune.quniform(low, high, step)
        case RandInt(randint=(low, high)):
            return tune.randint(low, high + 1)  # Tune leaves the upper end out
        case LogRandInt(lograndint=(low, high)):
            return tune.lograndint(low, high + 1)
        case Choice(choice=values):
            return tune.grid_search(list(values)) if grid else tune.choice(list(values))


def searcher(space: SpaceConfig) -> SearchAlgorithm | Searcher:
    """How settings are chosen."""
    if space.search != "optuna":
        return BasicVariantGenerator(max_concurrent=space.concurrency, random_state=space.seed)
    if len(space.metrics) == 1:
        return OptunaSearch(seed=space.seed)
    return OptunaSearch(metric=list(space.metrics), mode=list(space.modes), seed=space.seed)


def scheduler(space: SpaceConfig, epochs: float) -> TrialScheduler | None:
    """What ends trials early; None: nothing does."""
    if space.scheduler != "asha":
        return None
    longest = math.ceil(space.stop.get("epoch", epochs))
    return ASHAScheduler(
        time_attr="epoch",
        grace_period=space.grace_epochs,
        max_t=max(space.grace_epochs + 1, longest),
        reduction_factor=space.reduction_factor,
        stop_last_trials=False,
    )


def goals(space: SpaceConfig) -> tuple[Goal, ...]:
    """What is optimised."""
    return tuple(Goal(metric, mode) for metric, mode in zip(space.metrics, space.modes, strict=True))
