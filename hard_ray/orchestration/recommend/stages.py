"""The stages of a recommendation: the teacher's robustness, scores, and rungs of pilots; each is done once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hard_ray.config.recommend import (
    DRAWN,
    KD,
    RecommendRun,
    as_pilot,
    changed,
    drawn,
    fixed_candidates,
    references,
    scored,
    variants,
)
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.scoring import PICK_NAME
from hard_ray.data.schedule import train_schedule
from hard_ray.errors import HardrayError, RunFolderError
from hard_ray.files import write_text
from hard_ray.networks.network import build_student, image_spec
from hard_ray.orchestration.recommend.measure import (
    HeldOutIndex,
    Measurement,
    corruption_seconds,
    precision_here,
    student_of,
)
from hard_ray.orchestration.recommend.pilots import Say, Trainer, costs_of, update_seconds
from hard_ray.orchestration.recommend.record import Record
from hard_ray.orchestration.recommend.scores import Scores
from hard_ray.preparation.recommend_folder import RecommendFolder
from hard_ray.preparation.recommend_gains import Answers, gains, labelled, read_answers, score, write_answers
from hard_ray.preparation.recommend_plan import RIPE_SHARE, Costs, Halving, needed, next_updates, plan_halving, shown
from hard_ray.preparation.recommend_verdict import Tried, Verdict, judge
from hard_ray.runs.scores import MEASURES, measure_of
from hard_ray.runs.scores import scores as scores_of

PROBE = 20
"""Student updates of the pilots whose time is measured."""
SCORE_SHARE, CORRUPTION_SHARE = 0.15, 0.1
"""Most of the budget for T. stddev, and for the corruption of images."""
RESERVE_SHARE = 0.05
"""Share of the budget for what a rung takes longer than the one before it did, and for the page."""
FEWEST_CORRUPTED = 50
BY_PAPER = (PICK_NAME, "cutmix", "mixup")
"""The lowest T. stddev in arXiv 2012.02909, where there is no time to score."""
SEEDS = 3
"""Most trainings of the best and of plain KD with different seeds."""

Configs = dict[str, RunConfig]


def corrupted_images(
    config: RunConfig, settings: RecommendRun, index: HeldOutIndex, record: Record, say: Say
) -> int | None:
    """Images that get corruptions: as many as a share of the budget makes, and always as in an earlier start."""
    if "corrupted_images" not in record.values:
        most = min(len(index.rows("val")), config.validation.corruption_images or settings.images)
        seconds = corruption_seconds(config, index, settings.suites)
        fits = most if not seconds else int(CORRUPTION_SHARE * settings.budget_s / seconds)
        images = min(most, max(FEWEST_CORRUPTED, fits))
        if images < most:
            text = f"corruptions of {most - images:,} of {most:,} images: one takes {seconds:.2f} s"
            record.skip(text)
            say(f"corruptions are measured on {images:,} images")
        record.write(corrupted_images=images)
    found: int = record.values["corrupted_images"]
    return found


@dataclass(slots=True)
class Stages:
    """Everything that the stages share."""

    config: RunConfig
    """Resolved for the cluster; asks a teacher."""
    own: RunConfig
    """As the user gave it."""
    settings: RecommendRun
    index: HeldOutIndex
    folder: RecommendFolder
    record: Record
    trainer: Trainer
    measurement: Measurement
    scores: Scores
    say: Say

    @property
    def left(self) -> float:
        """Seconds of the budget that are left to plan with."""
        return (1.0 - RESERVE_SHARE) * self.settings.budget_s - self.record.spent

    @property
    def total(self) -> int:
        """Student updates of the whole training that the pilots stand for."""
        config = self.config
        schedule = train_schedule(self.index, config.data, batch_size=config.optim.batch_size, seed=config.seed)
        return config.optim.total_updates(schedule.batches_per_epoch)

    def run(self) -> None:
        """Go through the stages that are not done, and write the recommended configuration."""
        teacher = self.look_at_teacher()
        configs = {**references(self.config), **self.candidates()}
        self.probe(configs)
        best = self.halve(configs)
        self.beyond(configs, best)
        verdict = judge(self.trainings(best), best=best, teacher=teacher, tried=self.tried(configs))
        self.record.write(conclusion=verdict.to_json())
        write_text(self.folder.recommended, self.recommended_text(configs, verdict))

    # 1. What there is to hand on.

    def look_at_teacher(self) -> Answers:
        """Measure the teacher, and beside it the student as it begins."""
        path = self.folder.teacher_answers
        if "teacher" in self.record.values:
            return self._read(path)
        images = image_spec(self.config.data, self.index.classes)
        self.say(f"teacher: measured on {len(self.index.rows('val')):,} held-out images")
        student = build_student(self.config.student, images).to(precision_here(self.config).device)
        begins, teacher = self.measurement.of(student)
        write_answers(path, teacher)
        self.record.write(teacher=self._facts(teacher), begins=self._facts(begins))
        if labelled(teacher):
            self.say(f"teacher: {_means_text(self.record.values['teacher'])}")
        else:
            self.say(f"student as it begins: {_means_text(self.record.values['begins'])}")
        return teacher

    def _facts(self, answers: Answers) -> dict[str, Any]:
        suites = {suite: found.metrics() for suite, found in answers.items()}
        images = {suite: len(found.ids) for suite, found in answers.items()}
        return {
            "score": score(answers),
            "suites": suites,
            "by": self.measurement.by_condition(answers),
            "images": images,
        }

    # 2. T. stddev, and with it the candidates.

    def candidates(self) -> Configs:
        """The candidates by name: those that come first are the last to be left out for lack of time."""
        record = self.record
        if "scores" not in record.values:
            made = self.scores.made(min(SCORE_SHARE * self.settings.budget_s, self.left))
            if made is None:
                record.skip(
                    f"T. stddev: the teacher is too slow; {', '.join(BY_PAPER)} are taken, as in arXiv 2012.02909"
                )
            record.write(scores=made)
        made = record.values["scores"]
        ranked = BY_PAPER if made is None else [name for name in made["scores"] if name != "identity"]
        augmentors = scored(self.config).augmentors
        random = [(name, drawn(self.config, augmentors[name])) for name in ranked[:DRAWN]]
        fixed = list(fixed_candidates(self.config).items())
        return dict([*random[:1], *fixed, *random[1:]])

    # 3. The time of the first updates.

    def probe(self, configs: Configs) -> None:
        """Train every pilot for a few updates, to know what it costs."""
        if "costs" in self.record.values:
            return
        self.trainer.forget(self.folder.rung("probe"))  # its time counts, so it is made anew
        self._rung("probe", configs, min(PROBE, self.total), self.config.seed, measured=[KD])

    # 4. Successive halving.

    def halve(self, configs: Configs) -> str | None:
        """Train rungs of fewer and fewer candidates for more and more updates; the name of the best one."""
        plan = self._plan(configs)
        current = [name for name in plan.candidates if not self._has_failed("probe", name)]
        best, before = None, 0
        for number, (count, updates) in enumerate(zip(plan.counts, plan.updates, strict=True), start=1):
            current = current[:count]
            names, name = [*plan.references, *current], f"rung-{number}"
            length = updates
            if number > 1:
                length = next_updates(self.costs, plan, number - 1, current, seconds=self.left, total=self.total)
            if length <= before and name not in self.record.values["rungs"]:
                self.record.skip(f"rung {number}, {updates:,} updates of {', '.join(names)}")
                break
            entry = self._rung(name, {each: configs[each] for each in names}, length, self.config.seed)
            current = [each for each in entry["order"] if each in current]
            best, before = next(iter(current), None), entry["updates"]
            self.record.values["last_rung"] = name
        self._name_hasty(plan)
        return best

    def _name_hasty(self, plan: Halving) -> None:
        """Name the candidates that were left after so few updates that a harder view cannot have paid yet."""
        rungs = [entry for name, entry in self.record.values["rungs"].items() if name.startswith("rung-")]
        for entry, following in itertools.pairwise(rungs):
            behind = [name for name in entry["order"] if name in plan.candidates and name not in following["names"]]
            if behind and entry["updates"] < RIPE_SHARE * self.total:
                self.record.skip(
                    f"more than {entry['updates']:,} of {self.total:,} updates of {', '.join(behind)}, behind by then: "
                    "a harder view pays later"
                )

    def _plan(self, configs: Configs) -> Halving:
        """The plan, as it was made first; HardrayError: the budget is too small for two pilots."""
        values = self.record.values
        if "plan" not in values:
            kept = [*references(self.config)]
            candidates = [name for name in configs if name not in kept]
            plan = plan_halving(self.costs, kept, candidates, seconds=self.left, total=self.total)
            if plan is None:
                least = self.record.spent + needed(self.costs, KD, candidates[0], total=self.total)
                wanted = least / (1.0 - RESERVE_SHARE)
                raise HardrayError(
                    f"a budget of {shown(self.settings.budget_s)} is too small for plain KD and one candidate: "
                    f"{shown(self.record.spent)} are spent on scores and measurements, and the shortest pilots need "
                    f"{shown(wanted)} in all; give --budget {wanted / 50 + 0.1:.1f}m or more, and another --output"
                )
            self.record.write(plan=asdict(plan))
            for name in plan.left_out:
                self.record.skip(f"a pilot of {name}")
            for line in plan_text(plan, self.costs):
                self.say(line)
        found = values["plan"]
        return Halving(**{key: tuple(part) for key, part in found.items()})

    # 5. Other seeds, strengths and temperatures of the best one.

    def beyond(self, configs: Configs, best: str | None) -> None:
        """Train what fits into the rest of the budget."""
        last = self.record.values["rungs"][self.record.values["last_rung"]]
        pair = [KD] if best is None else [KD, best]
        self._seed(1, configs, pair, last["updates"])
        if "variants" not in self.record.values["rungs"]:
            made = self.trainings(best)
            is_better = best is not None and gains(made[best], made[KD]).score.is_clear
            self._variants(configs, pair[-1] if is_better else KD, last["updates"])
        else:
            self._variants(configs, self.record.values["rungs"]["variants"]["of"], last["updates"])
        for number in range(2, SEEDS):
            self._seed(number, configs, pair, last["updates"])

    def _seed(self, number: int, configs: Configs, names: Sequence[str], updates: int) -> None:
        rung, seconds = f"seed-{number + 1}", self.costs.seconds(names, updates)
        if len(names) < 2:
            return
        if rung not in self.record.values["rungs"] and seconds > self.left:
            self.record.skip(f"seed {number + 1} of {' and '.join(names)}, about {shown(seconds)}")
            return
        self._rung(rung, {name: configs[name] for name in names}, updates, self.config.seed + number)

    def _variants(self, configs: Configs, name: str, updates: int) -> None:
        """Pilots of one student with other strengths and temperatures, one changed at a time."""
        wanted, rungs = variants(configs[name]), self.record.values["rungs"]
        costs = Costs(self.costs.session_s, self.costs.pilot_s, dict.fromkeys(wanted, self.costs.update_s[name]))
        fitting = [*wanted]
        if "variants" in rungs:
            fitting = rungs["variants"]["names"]
        while fitting and "variants" not in rungs and costs.seconds(fitting, updates) > self.left:
            self.record.skip(f"{fitting.pop()} of {name}")
        if fitting:
            made = {each: changed(configs[name], wanted[each]) for each in fitting}
            self._rung("variants", made, updates, self.config.seed, of=name)

    def tried(self, configs: Configs) -> Tried | None:
        """The other values that were tried, with their answers; None: there was no time for any."""
        entry = self.record.values["rungs"].get("variants")
        if entry is None:
            return None
        wanted = variants(configs[entry["of"]])
        answers = {each: self._read(self.folder.answers("variants", each)) for each in entry["order"]}
        return Tried(entry["of"], {each: wanted[each] for each in entry["order"]}, answers)

    # Rungs.

    @property
    def costs(self) -> Costs:
        """What pilots cost, as it was measured last."""
        return Costs(**self.record.values["costs"])

    def _has_failed(self, rung: str, name: str) -> bool:
        return name in self.record.values["rungs"][rung]["diverged"]

    def _rung(
        self,
        name: str,
        configs: Configs,
        updates: int,
        seed: int,
        *,
        measured: Sequence[str] | None = None,
        of: str | None = None,
    ) -> dict[str, Any]:
        """Train pilots in one session and measure them, unless it was done before; the record's entry.

        `measured`: the pilots that are measured; None: all. `of`: the pilot of which these have other values.
        """
        rungs = self.record.values["rungs"]
        entry: dict[str, Any] = rungs.setdefault(
            name, {"updates": updates, "seed": seed, "names": [*configs], "of": of}
        )
        if "order" in entry:
            return entry
        is_new = not self.folder.rung(name).path.exists()
        self.record.write()
        self.say(f"{name}: {entry['updates']:,} updates, seed {seed}: {', '.join(configs)}")
        pilots = {
            each: as_pilot(config, updates=entry["updates"], total=self.total, seed=entry["seed"])
            for each, config in configs.items()
        }
        began = time.time()
        diverged = self.trainer.train(self.folder.rung(name), pilots, entry["updates"])
        if KD in diverged:
            raise HardrayError(f"plain KD, which everything is compared with, has no finite loss: {diverged[KD]}")
        trained, ended = [each for each in configs if each not in diverged], time.time()
        wanted = [each for each in trained if measured is None or each in measured]
        for each in wanted:
            self._measure(name, each)
        entry |= {"diverged": diverged, "pilots": self._pilots(name, wanted)}
        entry["order"] = sorted(entry["pilots"], key=lambda each: -entry["pilots"][each]["score"])
        if is_new and trained:
            seconds = (time.time() - ended) / len(wanted)
            self._learn_costs(costs_of(self.folder.rung(name), trained, began=began, ended=ended, measured_s=seconds))
        self.record.write()
        for each in entry["order"]:
            self.say(f"{name} {each}: {_means_text(entry['pilots'][each])}")
        return entry

    def _learn_costs(self, costs: Costs) -> None:
        """Replace what was known by what was measured last; a pilot that was not in it keeps its time."""
        before = self.record.values.get("costs", {"update_s": {}})
        self.record.values["costs"] = {
            **asdict(costs),
            "update_s": {**before["update_s"], **costs.update_s},
        }

    def _measure(self, rung: str, name: str) -> None:
        path = self.folder.answers(rung, name)
        if not path.exists():
            images = image_spec(self.config.data, self.index.classes)
            answers, _ = self.measurement.of(student_of(self.folder.pilot(rung, name), self.config, images))
            write_answers(path, answers)

    def _pilots(self, rung: str, names: Sequence[str]) -> dict[str, Any]:
        """The numbers of measured pilots, and their gains over plain KD of the same rung."""
        answers = {name: self._read(self.folder.answers(rung, name)) for name in names}
        found = {name: self._facts(each) for name, each in answers.items()}
        for name in names:
            found[name]["update_s"] = update_seconds(self.folder.pilot(rung, name))
        for name, each in answers.items():
            if KD in answers and name != KD:
                found[name]["gain"] = gains([each], [answers[KD]]).to_json()
        return found

    def trainings(self, best: str | None) -> dict[str, list[Answers]]:
        """Answers of the references and the best candidate in the longest rung, and with other seeds."""
        values = self.record.values
        pair = [KD] if best is None else [KD, best]
        rungs = [values["last_rung"], *(name for name in values["rungs"] if name.startswith("seed-"))]
        rungs = [name for name in rungs if {*pair} <= {*values["rungs"][name].get("order", ())}]
        others = [name for name in values["plan"]["references"] if name in values["rungs"][rungs[0]]["order"]]
        made = {**dict.fromkeys(others, rungs[:1]), **dict.fromkeys(pair, rungs)}
        return {name: [self._read(self.folder.answers(rung, name)) for rung in found] for name, found in made.items()}

    def _read(self, path: Any) -> Answers:
        try:
            return read_answers(path)
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path} cannot be read ({error}); remove the folder, and begin anew") from None

    def recommended_text(self, configs: Configs, verdict: Verdict) -> str:
        """The recommended configuration, as a file that `hardray distill -c` takes."""
        own = configs[verdict.name].model_copy(
            update={"experiment": self.own.experiment, "validation": self.own.validation, "runtime": self.own.runtime}
        )
        head = "".join(f"# {sentence}\n" for sentence in [*verdict.sentences, *verdict.warnings])
        return head + dump_yaml(changed(own, verdict.values))


def plan_text(plan: Halving, costs: Costs) -> list[str]:
    """The plan, a line for each rung."""
    lines = []
    for number, (count, updates) in enumerate(zip(plan.counts, plan.updates, strict=True), start=1):
        who = ", ".join(plan.candidates) if number == 1 else f"the best {count}" if count > 1 else "the best one"
        each = max(costs.update_s[name] for name in plan.candidates[:count])
        seconds = costs.session_s + (len(plan.references) + count) * (costs.pilot_s + updates * each)
        lines.append(
            f"plan: rung {number}: {updates:,} updates of {', '.join(plan.references)} and {who}, at most "
            f"{shown(seconds)}"
        )
    return lines


def _means_text(facts: Mapping[str, Any]) -> str:
    by = ", ".join(f"{suite} {found:.1f}" for suite, found in scores_of(facts["suites"]).items())
    return f"{MEASURES[measure_of(facts['suites'])]} {by}, mean {facts['score']:.1f} %"
