"""Builds the parts of one training in a Ray Train worker, and trains."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hard_ray.config.augmentor import has_prior
from hard_ray.config.data import describe
from hard_ray.config.run import RunConfig, asks_tokens, embeds, training_data
from hard_ray.config.validation import Suite
from hard_ray.data.generated_set import generated_for
from hard_ray.data.index import ImageIndex, SplitName
from hard_ray.data.schedule import JointSchedule, Schedule, train_schedule
from hard_ray.data.sources.build import cache_of
from hard_ray.distillation.assembly import (
    batch_sizes,
    build_learner,
    build_updater,
    distance_of,
    student_precision,
    views_learned,
)
from hard_ray.distillation.bad_images import SharedBadImages
from hard_ray.distillation.checkpoints import CheckpointStore, Counters, Weights
from hard_ray.distillation.controller import Controller
from hard_ray.distillation.loop import Rhythm, Run, Status, StopRequest
from hard_ray.distillation.optimisers import build_average, build_optimizer, build_scheduler
from hard_ray.distillation.phases import Learner
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import TeacherPool, check_identity
from hard_ray.errors import AgreedError, DivergedError
from hard_ray.evaluation import corruptions
from hard_ray.evaluation.cache import LARGEST, EvaluationCache
from hard_ray.evaluation.corruptions import sample_of
from hard_ray.evaluation.suites import check_suites
from hard_ray.evaluation.validator import Evaluator
from hard_ray.export.timm_folder import TrainingFacts, export_network, timm_view
from hard_ray.files import cache_folder, room_wanted, write_json
from hard_ray.maths.metrics import Counts, EmbeddingCounts, SuiteResult
from hard_ray.maths.noise import seed_of
from hard_ray.maths.tokens import AnswerLayout
from hard_ray.networks.compilation import Compilation, compile_model, forget_graphs
from hard_ray.networks.embedding import build_projected
from hard_ray.networks.network import ImageSpec, Network, build_student, image_spec
from hard_ray.networks.precision import Precision, prepare_kernels, widen
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.run.first_rank import FirstRank
from hard_ray.orchestration.run.plan import RunPlan
from hard_ray.orchestration.stream import Pipeline
from hard_ray.ranks import Ranks
from hard_ray.runs.bad_images import BadImages
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.scores import measure_of

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Builder:
    """Builds the parts of one training on one rank, and trains."""

    plan: RunPlan
    index: ImageIndex
    ranks: Ranks
    device: torch.device
    data: DataShare
    stop: Path
    """A file whose presence asks for a checkpoint and the end."""
    pool: TeacherPool | None
    teacher_identity: str | None = None
    """Identity of the teacher that a new training must have; None: of whichever answers first."""
    on_progress: Callable[[], None] = lambda: None
    """Called after an evaluation was logged, and after a checkpoint was written."""

    @property
    def config(self) -> RunConfig:
        """The run's configuration, resolved for this machine."""
        return self.plan.config

    @property
    def images(self) -> ImageSpec:
        """Size, channels and classes of the images."""
        return image_spec(self.config.data, self.index.classes)

    def train(self) -> Status:
        """Train to the end; after a non-finite loss, go back to the newest checkpoint.

        Raises DivergedError if this happened more than `runtime.max_divergences` times without a new checkpoint, and
        RunFolderError if the disk is full.
        """
        tries, newest = 0, None
        while True:
            try:
                with room_wanted():
                    return self._train()
            except DivergedError as error:
                there = CheckpointStore(RunFolder(self.plan.folder).checkpoints, self.config.checkpoints.keep).list()
                tries, newest = (tries + 1 if there[-1:] == newest else 1), there[-1:]
                most = self.config.runtime.max_divergences
                if tries > most:
                    again = f"; it went back to {newest[0].name if newest else 'the beginning'} {most} times"
                    raise DivergedError(f"{error}{again if most else ''}") from None
                logger.warning("%s; going back to the newest checkpoint", error)

    def _train(self) -> Status:
        """Train from the newest checkpoint, evaluate, export, and write the outcome."""
        config, folder = self.config, RunFolder(self.plan.folder)
        runtime = config.runtime
        prepare_kernels(runtime.threads, deterministic=runtime.deterministic, tf32=runtime.tf32)
        check_suites(config.validation.at_the_end)
        pipeline = self._pipeline()
        learner, ema = self._learner()
        rhythm = self._rhythm(self._updates_per_epoch(pipeline.schedule))
        weights = self._weights(learner, ema)
        checkpoints = CheckpointStore(folder.checkpoints, config.checkpoints.keep, self.on_progress)
        counters = checkpoints.restore(weights, say=logger.warning) or Counters()
        self._refuse_other_checkpoints(counters.step)
        if self.pool is not None:
            expected = counters.teacher_identity or self.teacher_identity
            counters.teacher_identity = check_identity(self.pool, expected)
        updater = self._updater(learner, pipeline.schedule)
        evaluator = self._evaluator(pipeline, "val", config.validation.suites, updater.precision, learner.network)
        network: nn.Module = ema.module if ema is not None else learner.network
        run = Run(
            folder=folder,
            stop=StopRequest(self.stop),
            rhythm=rhythm,
            updater=updater,
            controller=Controller(
                config.controller,
                learned=learner.augmentor_optimizer is not None,
                warmup=config.controller.warmup(rhythm.total, has_prior=has_prior(config.augmentor)),
                state=counters.controller,
            ),
            counters=counters,
            weights=weights,
            checkpoints=checkpoints,
            batches=pipeline.train_batches,
            evaluate=lambda: evaluator.evaluate(network)[0],
            ranks=self.ranks,
            observer=self._first_rank(network, learner, pipeline, counters),
            batch_size=config.optim.batch_size,
            ahead=config.runtime.teacher.prefetch if self.pool is not None else 1,
            bad_images=SharedBadImages(
                BadImages.allowed_by(config.data, len(self.index.labels)), self.ranks, folder.bad_images
            ),
            scheduler=build_scheduler(learner.optimizer, config.optim, total=rhythm.total, per_epoch=rhythm.per_epoch),
            ema=ema,
            report=self._report,
        )
        evaluator.on_bad = run.bad_images.note
        status = run.train()
        if status is Status.FINISHED:
            self._finish(run, pipeline, network)
        return status

    def _refuse_other_checkpoints(self, step: int) -> None:
        """Raise an AgreedError unless all ranks, each of which reads the checkpoints itself, found the same one."""
        steps = self.ranks.gather(step)
        if len(set(steps)) > 1:
            found = ", ".join(str(each) for each in sorted(set(steps)))
            raise AgreedError(
                f"student workers found different newest checkpoints in {self.plan.folder} (of updates {found}); every "
                "node has to see the same run folder: look at the storage that holds it, and resume"
            )

    def _pipeline(self) -> Pipeline:
        config, ranks = self.config, self.ranks
        schedule = train_schedule(
            self.index,
            config.data,
            batch_size=config.optim.batch_size,
            seed=config.seed,
            rank=ranks.rank,
            world_size=ranks.size,
        )
        share = DataShare(self.data.cpus / ranks.size, self.data.object_store_bytes / ranks.size)
        generated = generated_for(config.augmentor, self.index, cache_of(config.runtime))
        data, block_bytes = training_data(config), config.runtime.data_block_mb * 2**20
        return Pipeline(self.index, data, schedule, share, block_bytes, generated)

    def _learner(self) -> tuple[Learner, ModelEmaV3 | None]:
        config = self.config
        precision = self._precision()
        torch.manual_seed(seed_of("student weights", config.seed))
        network = self._student()
        network = network.to(self.device).to(memory_format=precision.memory_format).train()
        optimizer = build_optimizer(network, config.optim)  # first: it may leave layers out, whose gradients DDP awaits
        self._compile(network, precision)
        student: nn.Module = network
        if self.ranks.size > 1:
            student = DistributedDataParallel(network, device_ids=[self.device] if self.device.type == "cuda" else None)
        torch.manual_seed(seed_of("augmentor weights", config.seed))
        learner = build_learner(config, network, optimizer, device=self.device, student=student)
        average = build_average(network, config.optim)
        if average is not None and network.compilation is not None:  # a copy of a compiled model is not compiled
            average.module.compilation = compile_model(
                average.module.model, network.compilation.mode, sizes=batch_sizes(config), name="the averaged student"
            )
        return learner, average

    def _student(self) -> Network:
        """The student with an output for each class, or projected to the dimension of the teacher's embedding."""
        config, images = self.config, self.images
        if not embeds(config):
            return build_student(config.student, images)
        assert self.pool is not None
        layout = AnswerLayout.from_identity(self.pool.identity()) if asks_tokens(config) else None
        dimension = self._values() if layout is None else layout.dimension
        return build_projected(config.student, images, dimension, layout=layout)

    def _values(self) -> int:
        """The number of values in the teacher's answer to an image, from that to a black one."""
        assert self.pool is not None
        shape = (1, self.images.in_chans, self.images.img_size, self.images.img_size)
        return int(self.pool.logits(np.zeros(shape, np.uint8)).result().shape[1])

    def _compile(self, network: Network, precision: Precision) -> None:
        """Compile the student if `runtime.compile` says so and every rank can; the first rank says why if one cannot.

        The attempt is a forward and a backward pass of zeros, before the network is wrapped for several ranks.
        """
        config, mode = self.config, self.config.runtime.compile_mode
        if mode is None:
            return
        count = -(-batch_sizes(config)[0] // config.optim.accumulate) * views_learned(config)

        def attempt() -> None:
            images = torch.zeros((count, config.data.in_chans, *2 * (config.data.img_size,)), device=self.device)
            with precision.autocast():
                logits = widen(network(images.contiguous(memory_format=precision.memory_format)))
            learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
            torch.autograd.grad(logits.sum(), learned, allow_unused=True)

        problem = network.compile_for(mode, sizes=batch_sizes(config), name="the student", attempt=attempt)
        problems = [text for text in self.ranks.gather(problem or "") if text]
        if problems:
            network.stay_eager()
            if self.ranks.is_first:
                logger.warning("runtime.compile: the student runs without torch.compile (%s)", problems[0])
        elif self.ranks.size > 1:
            forget_graphs()  # a graph made for several ranks hands its gradients over while it goes on

    def _weights(self, learner: Learner, ema: ModelEmaV3 | None) -> Weights:
        network = learner.network
        assert isinstance(network, Network)
        modules: dict[str, nn.Module] = {"student": network.model}
        optimizers = {"student": learner.optimizer}
        if ema is not None:
            modules["ema"] = ema.module.model
        if learner.augmentor is not None:
            modules["augmentor"] = learner.augmentor
        if learner.augmentor_optimizer is not None:
            optimizers["augmentor"] = learner.augmentor_optimizer
        return Weights(modules, optimizers, learner.loss_scale)

    def _updater(self, learner: Learner, schedule: Schedule | JointSchedule) -> Updater:
        share = schedule.local_batch * self.ranks.size / self.config.optim.batch_size
        return build_updater(self.config, learner, self.pool, device=self.device, ranks=self.ranks, share=share)

    def _precision(self) -> Precision:
        return student_precision(self.config, self.device)

    def _first_rank(self, network: nn.Module, learner: Learner, pipeline: Pipeline, counters: Counters) -> FirstRank:
        return FirstRank(
            folder=RunFolder(self.plan.folder),
            config=self.config,
            index=self.index,
            images=self.images,
            network=network,
            augmentor=learner.augmentor,
            pool=self.pool,
            pipeline=pipeline,
            precision=self._precision(),
            facts=lambda: self.training_facts(counters),
        )

    def _updates_per_epoch(self, schedule: Schedule | JointSchedule) -> int:
        """Updates per epoch of the run: a control that leaves images without labels out makes as many as the others."""
        if self.plan.role == "control":
            return len(self.index.rows("train")) // self.config.optim.batch_size
        return schedule.batches_per_epoch

    def _rhythm(self, per_epoch: int) -> Rhythm:
        config = self.config
        return Rhythm(
            total=config.optim.total_updates(per_epoch),
            per_epoch=per_epoch,
            log_every=config.tracking.log_every,
            validate_every=max(1, round(config.validation.every * per_epoch)),
            checkpoint_every=max(1, round(config.checkpoints.every * per_epoch)),
        )

    def _evaluator(
        self, pipeline: Pipeline, split: SplitName, suites: Sequence[Suite], precision: Precision, network: nn.Module
    ) -> Evaluator:
        config, validation = self.config, self.config.validation
        distance = distance_of(config.objective, network)
        choose = functools.partial(sample_of, self.index.rows(split), seed=config.data.split_seed)
        return Evaluator(
            functools.partial(pipeline.eval_batches, split, validation.batch_size),
            suites,
            img_size=config.data.img_size,
            pool=self.pool,
            precision=precision,
            ranks=self.ranks,
            sample=choose(validation.changed_images),
            slow_sample=choose(validation.corruption_images),
            attack_sample=choose(validation.attack_images),
            severities=validation.corruption_severities,
            attack=validation.attack,
            counts=functools.partial(EmbeddingCounts, distance) if embeds(config) else Counts,
            cache=self._cache(suites, split),
        )

    def _cache(self, suites: Sequence[Suite], split: SplitName) -> EvaluationCache | None:
        """Cache of this evaluation for later runs, unless it would be too large."""
        data, images = self.config.data, len(self.index.rows(split))
        slow = min(images, self.config.validation.corruption_images or images)
        made = {"corruptions": len(corruptions.NAMES), "extra_corruptions": len(corruptions.EXTRA_NAMES)}
        kinds = sum(count for suite, count in made.items() if suite in suites)
        pixels = slow * kinds * len(self.config.validation.corruption_severities)
        outputs = self._values() if embeds(self.config) else len(self.index.classes)
        size = pixels * data.in_chans * data.img_size**2 + images * len(suites) * 4 * outputs
        return EvaluationCache(cache_folder() / "evaluations") if size <= LARGEST else None

    def _report(self, metrics: dict[str, Any]) -> None:
        import ray.train

        self.on_progress()
        ray.train.report(metrics)

    def _finish(self, run: Run, pipeline: Pipeline, network: nn.Module) -> None:
        split = self.index.final_split
        evaluator = self._evaluator(pipeline, split, self.config.validation.at_the_end, run.updater.precision, network)
        evaluator.on_bad = run.bad_images.note
        student, teacher = evaluator.evaluate(network)
        run.bad_images.merge()
        if not self.ranks.is_first:
            return
        folder, counters = run.folder, run.counters
        assert isinstance(network, Network)
        export_network(network, folder.student, images=self.images, facts=self.training_facts(counters))
        run.log_final(student, split=split)
        write_json(folder.evaluation, {"split": split, "suites": _to_json(student), "teacher": _to_json(teacher)})
        images, compilation = counters.step * self.config.optim.batch_size, self._compilation(run)
        outcome = {
            "status": str(Status.FINISHED),
            "steps": {"student": counters.student_steps, "augmentor": counters.augmentor_steps},
            "switches": run.controller.state.switches,
            "seconds": run.updater.clock.seconds,
            "images_per_s": images / max(run.updater.clock.seconds["total"], 1e-9),
            "teacher_identity": counters.teacher_identity,
            f"best_{measure_of(_to_json(student))}": counters.best_score,
            "bad_images": len(run.bad_images.known.names),
        }
        if compilation is not None:
            outcome["compiled"] = compilation.facts()
            logger.info("torch.compile made %(graphs)d graphs of the student, %(repeated)d again", outcome["compiled"])
        write_json(folder.outcome, outcome)

    def _compilation(self, run: Run) -> Compilation | None:
        student = run.updater.learner.network
        return student.compilation if isinstance(student, Network) else None

    def training_facts(self, counters: Counters) -> TrainingFacts:
        """Facts about the training, for the model card."""
        config = self.config
        return TrainingFacts(
            data=describe(config.data),
            training_images=len(self.index.rows("train")),
            teacher="none" if config.objective.kind == "cross_entropy" else config.teacher.model,
            objective=config.objective.kind,
            augmentor=config.augmentor.kind,
            updates=counters.student_steps,
            view=timm_view(config.data),
            has_labels=self.index.has_labels,
        )


def _to_json(results: dict[str, SuiteResult]) -> dict[str, Any]:
    return {suite: result.to_json() for suite, result in results.items()}
