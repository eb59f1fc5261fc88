"""`hardray evaluate`: a Ray Data job for each suite; tasks make images, actors hold the networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray.data
import torch
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError
from torch import Tensor

from hard_ray.config.data import describe
from hard_ray.config.evaluation import EvaluationConfig
from hard_ray.config.loader import absolute
from hard_ray.config.networks import NetworkConfig, TeacherConfig
from hard_ray.config.run import RunConfig
from hard_ray.data.account_text import say_account
from hard_ray.data.checked_shard import digest_of
from hard_ray.data.index import ImageIndex
from hard_ray.data.views import eval_view_settings
from hard_ray.distillation.teacher_cache import teacher_spec, trained_teacher
from hard_ray.errors import DataError, HardrayError, ModelError, RunFolderError, StoppedError, TeacherError
from hard_ray.evaluation.corruptions import package_version
from hard_ray.evaluation.plan import SuitePlan, check_judged, plan_suite
from hard_ray.evaluation.results import evaluation_numbers
from hard_ray.evaluation.suites import check_suites
from hard_ray.export.target import Target
from hard_ray.files import is_vacant, make_folder, read_json, write_json
from hard_ray.maths.metrics import Counts
from hard_ray.networks.network import build_student, image_spec
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.cluster.resources import Cluster, data_shares
from hard_ray.orchestration.evaluate.actors import EvaluationActor, NetworksSpec, make_views
from hard_ray.orchestration.extras import extra
from hard_ray.orchestration.network_actors import Actors, networks_only
from hard_ray.orchestration.progress import ProgressLine
from hard_ray.orchestration.shipped import Shipped
from hard_ray.orchestration.stream import configure_ray_data
from hard_ray.preparation.answers import answered_index
from hard_ray.reports.evaluation_plots import draw_evaluation
from hard_ray.reports.figures import save_png
from hard_ray.runs.bad_images import BadImages
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.place import occupied
from hard_ray.runs.scores import measure_of, short
from hard_ray.runs.summary import versions
from hard_ray.runs.tracking import log_evaluation

IMAGENET_C_SIZE = 224


def evaluate(
    target: Target,
    evaluation: EvaluationConfig,
    output: Path,
    *,
    with_teacher: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure a model on the suites that `output` lacks, and write results and plots; return `evaluation.json`.

    Suites in `output` with the same settings are not measured again. The teacher is measured too if it has weights,
    unless `with_teacher` is False.

    Raises:
        HardrayError: a mistake that the message explains.
        StoppedError: Ctrl-C; the same command continues.
    """
    config = absolute(target.config)
    check_suites([name for name in evaluation.suites if name != "adversarial"])
    index = answered_index(config.data, config.teacher, config.runtime)
    check_judged(evaluation, index, config.data, with_teacher=with_teacher)
    say_account(index, say)
    if target.labelled is not None:
        _check_answers(target, index)
    split = evaluation.split or index.final_split
    folder = RunFolder(output.expanduser().resolve())
    if not folder.evaluation.exists() and not is_vacant(folder.path):
        raise occupied(folder.path, "evaluation")
    plans = {
        name: plan_suite(
            name, evaluation, index, config.data, split=split, block_bytes=config.runtime.data_block_mb * 2**20
        )
        for name in evaluation.names
    }
    make_folder(folder.path)
    with folder.locked(), networks_only(config, folder.path, say) as (config, cluster):
        teacher = _teacher(target, config, index, say) if with_teacher else None
        actors = Actors.of(config.runtime, cluster)
        networks = _networks(target.model, config, index, teacher, evaluation.batch_size, actors.threads)
        result = Evaluation(config, evaluation, index, split, folder, networks, cluster, actors, say).run(plans)
    if target.run is not None and not target.is_outcome:
        say("MLflow keeps the run's own numbers: these are not of its finished student on its data")
    elif target.run is not None and config.tracking.enabled:
        problem = log_evaluation(target.run, config, folder.path)
        if problem is not None:
            say(f"MLflow did not get the results ({problem}); they are saved, and the same command logs them again")
    return result


def _check_answers(target: Target, index: ImageIndex) -> None:
    """Raise a ModelError unless a model's outputs are the classes of the labelled images that were named for it."""
    try:
        build_student(target.model, image_spec(target.config.data, index.classes))
    except ModelError as error:
        raise ModelError(
            f"--labelled {target.labelled}: {error}; or measure its features, whatever its outputs are, with `hardray "
            "probe`"
        ) from None


def _teacher(target: Target, config: RunConfig, index: ImageIndex, say: Callable[[str], None]) -> TeacherConfig | None:
    own = target.run.part("teacher") if target.run is not None else None
    if own is not None and own.is_finished and not config.teacher.has_weights:
        return config.teacher.model_copy(update={"checkpoint": own.student})
    try:
        return trained_teacher(config, index)
    except TeacherError:
        say(f"teacher {config.teacher.model} has no weights: the model is measured without one beside it")
        return None


def _networks(
    model: NetworkConfig,
    config: RunConfig,
    index: ImageIndex,
    teacher: TeacherConfig | None,
    batch_size: int,
    threads: int | None,
) -> NetworksSpec:
    runtime = config.runtime
    beside = None if teacher is None else replace(teacher_spec(config, teacher, index), threads=threads)
    return NetworksSpec(
        student=model,
        images=image_spec(config.data, index.classes),
        dtype=runtime.amp_dtype or "float32",
        channels_last=bool(runtime.channels_last),
        threads=threads,
        teacher=beside,
        batch_size=batch_size,
        deterministic=runtime.deterministic,
        tf32=runtime.tf32,
    )


@dataclass(slots=True)
class Evaluation:
    """One start of `hardray evaluate`: measures suites and writes `evaluation.json`."""

    config: RunConfig
    settings: EvaluationConfig
    index: ImageIndex
    split: str
    folder: RunFolder
    networks: NetworksSpec
    cluster: Cluster
    actors: Actors
    say: Callable[[str], None]
    bad: BadImages = field(init=False)

    def __post_init__(self) -> None:
        self.bad = BadImages.allowed_by(self.config.data, len(self.index.labels))

    def run(self, plans: Mapping[str, SuitePlan]) -> dict[str, Any]:
        """Measure the suites that are missing, and write each as soon as it is measured."""
        identities = self._identities()
        self.say(f"{self.networks.student.model} on {describe(self.config.data)}, {self.split} split")
        result = self._begun(identities)
        for name, plan in plans.items():
            digest = self._digest(name)
            if result["measured"].get(name, {}).get("digest") == digest:
                self.say(f"{name}: measured before, with the same settings")
                continue
            student, teacher, seconds = self._measure(plan)
            result["suites"][name] = student
            if teacher:
                result["teacher"][name] = teacher
            result["measured"][name] = {"digest": digest, "images": plan.images, "seconds": round(seconds, 3)}
            write_json(self.folder.evaluation, result)
        self._finish(result)
        return result

    def _identities(self) -> dict[str, str]:
        """Identities of the networks, which are loaded here for that alone: the actors load their own."""
        networks = self.networks.build()
        teacher = {} if networks.teacher is None else {"teacher": networks.teacher.identity()}
        return {"student": networks.student.identity(), **teacher}

    def _begun(self, identities: dict[str, str]) -> dict[str, Any]:
        """Read the results of an earlier start; raises RunFolderError if they are of other networks or data."""
        head = {
            "split": self.split,
            "data": {"what": describe(self.config.data), "fingerprint": self.index.fingerprint()},
            "networks": identities,
        }
        empty: dict[str, Any] = {"suites": {}, "teacher": {}, "measured": {}, "versions": versions()}
        try:
            found = read_json(self.folder.evaluation, {})
            same = all(found.get(key) == value for key, value in head.items())
        except (ValueError, AttributeError):
            raise RunFolderError(f"{self.folder.evaluation} cannot be read; delete it, and measure again") from None
        if found and not same:
            raise RunFolderError(
                f"{self.folder.evaluation} is of another model, teacher, split or data; choose another --output, or "
                "delete it"
            )
        return {**head, **(found or empty)}

    def _digest(self, name: str) -> str:
        """Hash everything but networks and data that decides a suite's numbers."""
        evaluation = self.settings
        settings: dict[str, Any] = {"suite": name, "view": eval_view_settings(self.config.data)}
        if name != "clean" and name in evaluation.suites:
            settings |= {"images": evaluation.images, "split_seed": self.config.data.split_seed}
        if name in ("corruptions", "extra_corruptions"):
            settings |= {"severities": evaluation.severities, "package": package_version()}
        if name == "adversarial":
            settings["attack"] = evaluation.attack.model_dump(mode="json")
        if name in evaluation.published:
            settings["folder"] = str(evaluation.published[name].expanduser().resolve())
        return digest_of(settings)[:16]

    def _measure(self, plan: SuitePlan) -> tuple[dict[str, Any], dict[str, Any], float]:
        """Measure one suite; return the student's numbers, the teacher's, and the seconds it took."""
        progress = ProgressLine(self.say)
        students, teachers = self._counts(plan, progress)
        if lost := [each for each, counts in zip(plan.conditions, students, strict=True) if not counts.values[0]]:
            what = (
                "its images" if len(lost) == len(plan.conditions) else f"its images {lost[0].name} {lost[0].severity}"
            )
            raise DataError(
                f"{plan.suite}: none of {what} can be read, first {self.bad.first}; repair them, or leave the suite out"
            )
        has_mce = plan.suite == "imagenet-c" and self.config.data.img_size == IMAGENET_C_SIZE
        with_teacher = self.networks.teacher is not None
        found = evaluation_numbers(plan.conditions, students, teachers if with_teacher else None, has_mce=has_mce)
        speed = f", {progress.images_per_s:,.0f} images/s" if progress.images_per_s else ""
        measure = measure_of({plan.suite: found[0]})
        self.say(f"{plan.suite}: {short(measure)} {found[0][measure]:.2f} % of {progress.done:,} images{speed}")
        return *found, time.monotonic() - progress.started

    def _counts(self, plan: SuitePlan, progress: ProgressLine) -> tuple[list[Counts], list[Counts]]:
        """Sum the counts of student and teacher, by condition; raises DataError if too many images are unreadable."""
        students, teachers = ([Counts() for _ in plan.conditions] for _ in range(2))
        try:
            for rows in self._dataset(plan).iter_batches(batch_size=None, prefetch_batches=0):
                for row, number in enumerate(rows["condition"].tolist()):
                    students[number].values += _tensor(rows["student"][row])
                    teachers[number].values += _tensor(rows["teacher"][row])
                    _report(plan, progress, int(rows["student"][row][0]))
                self.bad.add(name for names in map(str, rows["bad"]) if names for name in names.split("\n"))
        except KeyboardInterrupt:
            raise StoppedError(f"stopped in {plan.suite}; {self._continuation()}") from None
        except RayError as failure:
            reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
            raise HardrayError(f"{plan.suite}: this command failed: {reason}; {self._continuation()}") from failure
        return students, teachers

    def _continuation(self) -> str:
        """How the evaluation goes on, for messages; they promise results only if there are any."""
        measured = read_json(self.folder.evaluation, {}).get("measured", {})
        if not measured:
            return "no suite is finished, so the same command begins anew"
        return f"{', '.join(measured)} is in {self.folder.evaluation}, and the same command continues"

    def _dataset(self, plan: SuitePlan) -> ray.data.Dataset:
        """Stream counts: tasks read, decode and change images, actors evaluate the networks."""
        runtime, actors, pieces = self.config.runtime, self.actors, len(plan.pieces())
        left = data_shares(runtime, self.cluster)
        configure_ray_data(
            DataShare(left.cpus + runtime.num_workers * runtime.cpus_per_worker, left.object_store_bytes)
        )
        views = ray.data.range(pieces, override_num_blocks=pieces).map_batches(
            cast(Any, make_views),
            batch_size=None,
            fn_args=(Shipped.put(plan),),
            scheduling_strategy="SPREAD",  # other than the actors', so that Ray Data does not fuse the two
        )
        return views.map_batches(
            EvaluationActor,
            fn_constructor_args=(self.networks, plan.conditions),
            batch_size=None,
            zero_copy_batch=True,
            compute=ActorPoolStrategy(size=min(actors.number, pieces)),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus,
        )

    def _finish(self, result: dict[str, Any]) -> None:
        if self.bad.names:
            self.bad.write(self.folder.bad_images)
        write_json(self.folder.evaluation, result)
        with extra("the plots", self.say):
            for name, figure in draw_evaluation(result).items():
                save_png(figure, self.folder.path / f"{name}.png")


def _report(plan: SuitePlan, progress: ProgressLine, images: int) -> None:
    progress.add(images)
    if progress.is_due and progress.images_per_s:
        left = (plan.images - progress.done) / progress.images_per_s
        progress.say(f"{plan.suite}: {progress.done:,} of {plan.images:,} images  about {left:.0f} s left")


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))  # a copy: Ray's arrays are read-only
