"""Running a search by Ray Tune: a space as Tune's domains, and Tune's events as calls of a listener."""

from __future__ import annotations

import math
import operator
import os
import sys
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, SearchAlgorithm, Searcher, SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from ray.tune.stopper import NoopStopper
from typing_extensions import override

from hard_ray.config.distribution import Choice, Distribution, LogRandInt, LogUniform, QUniform, RandInt, Uniform
from hard_ray.config.space import SpaceConfig
from hard_ray.data.index import ImageIndex
from hard_ray.files import read_json, write_json
from hard_ray.orchestration.cluster.demand import TRIAL_CPUS
from hard_ray.orchestration.search.listener import TrialListener
from hard_ray.orchestration.search.trial import TrialActor, plain
from hard_ray.runs.trials import Goal

TUNE_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the search's own handler lets trials write a checkpoint first
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folders are the record
    "TUNE_GLOBAL_CHECKPOINT_S": "5",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class Events(tune.Callback):
    """Tune's events as calls of a listener."""

    def __init__(self, listener: TrialListener) -> None:
        self.listener = listener

    @override
    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.listener.began(trial.trial_id, {key: plain(value) for key, value in trial.config.items()})

    @override
    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        self.listener.evaluated(trial.trial_id, result)

    @override
    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.listener.ended(trial.trial_id)

    @override
    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        path = trial.error_file
        text = Path(path).read_text(encoding="utf-8", errors="replace") if path and Path(path).is_file() else ""
        self.listener.failed(trial.trial_id, next(reversed(text.strip().splitlines()), ""))

    @override
    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        self.listener.tick()


class Ends(tune.Stopper):
    """When a trial, and when the whole search, ends early."""

    def __init__(self, listener: TrialListener) -> None:
        self.listener = listener

    @override
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.listener.reached(trial_id, result)

    @override
    def stop_all(self) -> bool:
        return self.listener.is_hopeless()

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return NoopStopper, ()  # Tune saves its stopper; a resumed search has its own


def run_trials(
    space: SpaceConfig, order: bytes, index: ImageIndex, path: Path, listener: TrialListener, *, epochs: float
) -> None:
    """Run a new search, or resume the one whose state Tune saved.

    `order` is a pickled `TrialOrder`, `path` the folder of Tune's files in the search's, and `epochs` the length of a
    trial that runs to its end.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in TUNE_SETTINGS.items()})
    keep_keys_here()
    single = space.metrics[0] if len(space.metrics) == 1 else None
    tune.run(
        tune.with_resources(tune.with_parameters(TrialActor, order=order, index=index), {"CPU": TRIAL_CPUS}),
        name=path.name,
        storage_path=str(path.parent),
        resume_config=tune.ResumeConfig() if forget_stopper(path) else None,
        config={key: domain(drawn, grid=space.search == "grid") for key, drawn in space.parameters.items()},
        metric=single,
        mode=space.modes[0] if single else None,
        search_alg=searcher(space),
        scheduler=scheduler(space, epochs),
        num_samples=1 if space.search == "grid" else space.count,
        trial_dirname_creator=_name_of,
        callbacks=[Events(listener)],
        stop=Ends(listener),
        verbose=0,
        raise_on_failed_trial=False,
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the run folders have them
    )


def keep_keys_here() -> None:
    """Keep Tune from sending the driver's keys with each trial: Ray writes what it sends to its logs.

    Every node has its own credentials.
    """
    sent: set[str] = class_cache.ENV_VARS_TO_PROPAGATE
    sent.difference_update([name for name in sent if name.startswith("AWS_")])


def forget_stopper(path: Path) -> bool:
    """Remove the stopper from the state that Tune saved, and return whether there is a state.

    Tune would put the saved stopper in the place of this search's, which has the listener.
    """
    states = sorted(path.glob("experiment_state-*.json"))
    if states:
        state = read_json(states[-1])  # Tune reads the newest
        state["runner_data"].pop("_stopper", None)
        write_json(states[-1], state)
    return bool(states)


_name_of = operator.attrgetter("trial_id")
"""The name of a trial's folder. Tune saves this function; one of hardray would be found by its module's path."""

sys.modules.setdefault("hard_ray.orchestration.tuner", sys.modules[__name__])
"""Searches of hardray 0.1 saved `_name_of` by this path."""


def domain(drawn: Distribution, *, grid: bool) -> Any:
    """A distribution as a domain of Tune; a grid takes every choice."""
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


def searcher(space: SpaceConfig) -> SearchAlgorithm:
    """The algorithm that chooses settings."""
    if space.search != "optuna":
        return GrowingDraws(space.count, max_concurrent=space.concurrency, random_state=space.seed)
    several = len(space.metrics) > 1  # Tune sets a single one
    metrics, modes = list[str](space.metrics), list[str](space.modes)
    optuna = OptunaSearch(metric=metrics if several else None, mode=modes if several else None, seed=space.seed)
    limited = ConcurrencyLimiter(optuna, max_concurrent=space.concurrency)
    return GrowingSearch(limited, space.count)


class GrowingSearch(SearchGenerator):
    """A search whose restored state has as many trials as wanted now, instead of those that were wanted then."""

    def __init__(self, searcher: Searcher, count: int) -> None:
        super().__init__(searcher)
        self._count = count

    @override
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if self._count > self._total_samples:
            self._total_samples, self._finished = self._count, False


class GrowingDraws(BasicVariantGenerator):
    """Draws or a grid whose restored state has as many trials as wanted now; more draws continue the same stream."""

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(**options)
        self._count = count

    @override
    def set_state(self, state: dict[str, Any]) -> None:
        count = self._count
        super().set_state(state)  # type: ignore[no-untyped-call]
        self._count, more = count, count - self._total_samples
        if more > 0:
            (draws,) = self._iterators  # of the search's one experiment
            draws.num_samples += more
            draws.num_samples_left += more
            self._total_samples, self._finished = count, False


def scheduler(space: SpaceConfig, epochs: float) -> TrialScheduler | None:
    """The scheduler that ends trials early, or None."""
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
    """The metrics to optimise, each with its direction."""
    return tuple(Goal(metric, mode) for metric, mode in zip(space.metrics, space.modes, strict=True))
