"""The importance of a search's settings, by Optuna's fANOVA (Hutter et al. 2014)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hard_ray.config.distribution import Choice, Distribution, LogRandInt, LogUniform, QUniform, RandInt, Uniform
from hard_ray.runs.trials import Goal, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

logger = logging.getLogger(__name__)

FEWEST_TRIALS = 4
"""With fewer trials, a forest of regression trees is meaningless."""


def importance(trials: Sequence[Trial], parameters: Mapping[str, Distribution], goal: Goal) -> dict[str, float]:
    """The share of the goal's variance that each setting explains, the largest first; empty: it is unknown."""
    values = [trial.metrics[goal.metric] for trial in trials]
    varied = [key for key in parameters if len({str(trial.config[key]) for trial in trials}) > 1]
    if len(trials) < FEWEST_TRIALS or len(set(values)) < 2 or not varied:
        return {}
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if goal.mode == "max" else "minimize")
    known = {key: optuna_distribution(parameters[key]) for key in varied}
    study.add_trials(
        optuna.trial.create_trial(
            params={key: trial.config[key] for key in varied}, distributions=known, value=trial.metrics[goal.metric]
        )
        for trial in trials
    )
    try:
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (RuntimeError, ValueError) as error:  # no tree of the forest found a split
        logger.debug("no importance: %s", error)
        return {}
    return {key: float(share) for key, share in found.items()}


def optuna_distribution(drawn: Distribution) -> BaseDistribution:
    """The same distribution as an object of Optuna."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match drawn:
        case Uniform(uniform=(low, high)):
            return FloatDistribution(low, high)
        case LogUniform(loguniform=(low, high)):
            return FloatDistribution(low, high, log=True)
        case QUniform(quniform=(low, high, step)):
            return FloatDistribution(low, high, step=step)
        case RandInt(randint=(low, high)):
            return IntDistribution(low, high)
        case LogRandInt(lograndint=(low, high)):
            return IntDistribution(low, high, log=True)
        case Choice(choice=values):
            return CategoricalDistribution(values)
