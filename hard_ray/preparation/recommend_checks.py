"""Checks of a recommendation before a cluster starts: every candidate, the first updates, and the budget."""

from __future__ import annotations

from dataclasses import dataclass

from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.loader import absolute
from hard_ray.config.recommend import DRAWN, KD, RecommendRun, fixed_candidates, references, scored, with_teacher
from hard_ray.config.run import RunConfig, refuse_embedding
from hard_ray.config.scoring import DEFAULT_AUGMENTORS
from hard_ray.data.index import ImageIndex
from hard_ray.data.schedule import train_schedule
from hard_ray.errors import HardrayError
from hard_ray.evaluation.suites import check_suites
from hard_ray.networks.network import Network
from hard_ray.preparation.checks import examine
from hard_ray.preparation.recommend_plan import Costs, needed, plan_halving, shown
from hard_ray.preparation.trial import try_run


def check(config: RunConfig, settings: RecommendRun) -> tuple[ImageIndex, Network, Network]:
    """Check data, networks and every candidate; HardrayError: one of them cannot be used."""
    refuse_embedding(config, "a recommendation compares accuracies")
    asked = with_teacher(absolute(config))
    check_suites(settings.suites)
    found = examine(asked)
    candidates = [made.augmentor for made in fixed_candidates(asked).values()]
    for augmentor in [*candidates, *scored(asked).augmentors.values()]:
        build_augmentor(augmentor, in_chans=config.data.in_chans, img_size=config.data.img_size)
    return found


SPENT_SHARE = 0.3
"""Share of the budget that scores and measurements take, for an estimate."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The first updates in this process, and what they say of the time of pilots."""

    lines: list[str]
    costs: Costs
    """Of updates alone, at this machine's speed."""
    total: int
    """Student updates of the whole training."""
    references: int
    """Pilots of `costs` that are in every rung; they come first."""

    def estimate(self, settings: RecommendRun) -> str:
        """The rungs that a budget allows at this speed, before starts and measurements are known."""
        names = [*self.costs.update_s]
        seconds = (1 - SPENT_SHARE) * settings.budget_s
        plan = plan_halving(
            self.costs, names[: self.references], names[self.references :], seconds=seconds, total=self.total
        )
        each = f"{1000 * max(self.costs.update_s.values()):.0f} ms an update at this machine's speed"
        if plan is None:
            return f"{each}: too slow for two pilots"
        rungs = " and ".join(f"{updates:,}" for updates in plan.updates)
        return f"{each}: rungs of at most {rungs} updates; starts, measurements and scores come off"


def try_pilots(
    config: RunConfig, settings: RecommendRun, index: ImageIndex, student: Network, teacher: Network
) -> Tried:
    """Make the first updates of the configuration; HardrayError: they fail, or two pilots are beyond the budget.

    Both networks are changed.
    """
    refuse_embedding(config, "a recommendation compares accuracies")
    asked = with_teacher(absolute(config))
    trial, lines = try_run(asked, index, student, teacher)
    size = asked.optim.batch_size
    schedule = train_schedule(index, asked.data, batch_size=size, seed=asked.seed)
    total = asked.optim.total_updates(schedule.batches_per_epoch)
    update_s = size * (trial.student_s / asked.runtime.num_workers + trial.teacher_s / asked.runtime.teacher.replicas)
    names = [*references(asked), *fixed_candidates(asked), *DEFAULT_AUGMENTORS[:DRAWN]]
    costs = Costs(0.0, 0.0, dict.fromkeys(names, update_s))
    least = needed(costs, KD, names[-1], total=total)
    if least > settings.budget_s:
        raise HardrayError(
            f"a budget of {shown(settings.budget_s)} is too small: an update takes about {update_s:.2f} s here, the "
            f"shortest pilots of plain KD and one candidate {shown(least)}, before any start and measurement; give "
            f"--budget {3 * least / 60 + 1:.0f}m or more"
        )
    return Tried(lines, costs, total, len(references(asked)))
