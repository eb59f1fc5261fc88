"""`hardray train-autoencoder`: the loop runs in this process, Ray Data streams the images."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hard_ray.config.autoencoder_training import AutoencoderRun, NetworkTraining, PatchTraining
from hard_ray.config.layers import dotted_values
from hard_ray.config.loader import absolute, read_begun
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.data.account_text import say_account
from hard_ray.data.augment import check_augment
from hard_ray.data.batch import Batch
from hard_ray.data.index import spread_places
from hard_ray.data.schedule import train_schedule
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.checkpoints import CheckpointStore
from hard_ray.distillation.loop import Status
from hard_ray.errors import DataError, RunFolderError, StoppedError
from hard_ray.files import beginning, is_vacant, read_json, write_json, write_text
from hard_ray.maths.noise import seed_of
from hard_ray.networks.autoencoders.base import LATENTS_FILE, Autoencoder, write_latents
from hard_ray.networks.autoencoders.diffusers_models import DiffusersAutoencoder, new_autoencoder
from hard_ray.networks.autoencoders.patches import PatchAutoencoder
from hard_ray.networks.autoencoders.principal import DIRECTIONS_FILE, IMAGES, fit_principal
from hard_ray.networks.network import build_teacher, image_spec
from hard_ray.networks.precision import DTYPES, Precision, prepare_kernels, to_pixels
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.cluster.hardware import probe
from hard_ray.orchestration.cluster.resources import data_shares
from hard_ray.orchestration.extras import extra
from hard_ray.orchestration.run.signals import stop_on_signal
from hard_ray.orchestration.stream import Pipeline, await_streams
from hard_ray.preparation.answers import answered_index
from hard_ray.preparation.autoencoder import (
    AutoencoderLoop,
    Features,
    Quality,
    build_objective,
    reconstruction_quality,
)
from hard_ray.preparation.folders import AutoencoderFolder
from hard_ray.preparation.patches import fit_patches
from hard_ray.reports.figures import save_png
from hard_ray.reports.gallery import draw_reconstructions
from hard_ray.runs.bad_images import BadImages
from hard_ray.runs.log import MetricsLog
from hard_ray.runs.place import occupied
from hard_ray.storage.mirror import shown_path

PICTURES = 8
EVAL_BATCH = 256


def train_autoencoder(
    run: AutoencoderRun, output: Path, *, runtime: RuntimeConfig, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Train or continue the autoencoder in `output`; return `result.json`: validation `psnr`, sizes and times.

    A folder continues only with the settings that it began with; `build_autoencoder` and diffusers load it once it is
    finished. `runtime` gives Ray's address and the size of its blocks.

    Raises:
        HardrayError: a mistake that the message explains.
        StoppedError: Ctrl-C; the same call continues.
    """
    folder = AutoencoderFolder(output.expanduser().resolve())
    check_output(folder)
    check_augment(run.data)
    index = build_index(run.data) if run.teacher is None else answered_index(run.data, run.teacher)
    say_account(index, say)
    batch_size = 1 if isinstance(run.training, PatchTraining) else run.training.batch_size
    schedule = train_schedule(index, run.data, batch_size=batch_size, seed=run.seed)
    with folder.locked():
        run = _settle(absolute(run), folder)
        folder.run.stop_request.unlink(missing_ok=True)
        teacher = runtime.teacher.model_copy(update={"placement": "colocated"})
        # The cluster is Ray Data's: the loop runs in this process and there is no teacher.
        alone = runtime.model_copy(update={"num_workers": 1, "cpus_per_worker": 1.0, "teacher": teacher})
        with connected(alone, namespace=f"hardray-{folder.path.name}-{os.getpid()}", say=say) as cluster:
            share = data_shares(alone, cluster)
            pipeline = Pipeline(index, run.data, schedule, share, alone.data_block_mb * 2**20)
            try:
                return Trainer(run, folder, pipeline, say).run()
            finally:
                await_streams()


def check_output(folder: AutoencoderFolder) -> None:
    """Raise a RunFolderError if the folder holds a finished autoencoder, or something else."""
    path = folder.path
    if folder.result.exists():
        raise RunFolderError(
            f"{path} holds a finished autoencoder ({read_json(folder.result)['psnr']:.2f} dB); use it as it is, "
            "or choose another --output"
        )
    if not folder.training.exists() and not is_vacant(path):
        raise occupied(path, "autoencoder of hardray's")


def _settle(run: AutoencoderRun, folder: AutoencoderFolder) -> AutoencoderRun:
    """Resolve the settings that depend on the machine, or take them from a folder that was begun with the others."""
    if not folder.training.exists():
        run = _resolve(run)
        with beginning(folder.path):
            write_text(folder.training, dump_yaml(run))
        return run
    begun = read_begun(AutoencoderRun, folder.training)
    machine = ("threads", "amp_dtype", "channels_last")
    kept = {key: getattr(begun, key) for key in machine if getattr(run, key) is None}
    run = run.model_copy(update=kept)
    if run != begun:
        raise RunFolderError(
            f"{folder.path} was begun with other settings: {'; '.join(_differences(begun, run))}; give the same "
            "ones to continue it, or choose another --output"
        )
    return begun


def _differences(begun: AutoencoderRun, run: AutoencoderRun) -> list[str]:
    before, now = dotted_values(begun.model_dump(mode="json")), dotted_values(run.model_dump(mode="json"))
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return [f"{key} was {before.get(key)}, now {now.get(key)}" for key in keys[:5]]


def _resolve(run: AutoencoderRun) -> AutoencoderRun:
    """Choose precision, memory layout and threads for this machine, where the loop runs; Ray Data gets a core."""
    hardware = probe()
    on_gpu = bool(hardware.gpus)
    fast = hardware.fast_dtype(on_gpu=on_gpu)
    dtype = run.amp_dtype or ("float32" if fast == "float16" else fast)  # the loop scales no losses
    last = run.channels_last if run.channels_last is not None else hardware.prefers_channels_last(dtype, on_gpu=on_gpu)
    return run.model_copy(
        update={"amp_dtype": dtype, "channels_last": last, "threads": run.threads or max(1, hardware.cores - 1)}
    )


@dataclass(slots=True)
class Trainer:
    """One start of a training."""

    settings: AutoencoderRun
    folder: AutoencoderFolder
    pipeline: Pipeline
    say: Callable[[str], None]

    def run(self) -> dict[str, Any]:
        """Train from the newest checkpoint, and finish the folder; raises StoppedError if a stop was asked for."""
        training = self.settings.training
        prepare_kernels(self.settings.threads or 1)
        precision = self._precision()
        if isinstance(training, PatchTraining):
            return self._fit(training, precision)
        return self._train(training, precision)

    def _fit(self, training: PatchTraining, precision: Precision) -> dict[str, Any]:
        """Fit components to training images, which takes seconds and has no checkpoint."""
        began = time.perf_counter()
        images = list(self._images("train", training.images, Precision(torch.device("cpu"))))
        if not images:
            raise DataError("none of the training images that it looks at can be read; repair the data")
        coder = fit_patches(torch.cat(images), training, seed=self.settings.seed).to(precision.device)
        return self._finish(coder.eval(), precision, time.perf_counter() - began)

    def _train(self, training: NetworkTraining, precision: Precision) -> dict[str, Any]:
        settings, folder = self.settings, self.folder.run
        coder = self._coder(training, precision)
        index, data = self.pipeline.index, settings.data
        loop = AutoencoderLoop(
            objective=build_objective(coder, training, self._features(training, precision)).to(precision.device),
            config=training,
            seed=settings.seed,
            precision=precision,
            batches=self.pipeline.train_batches,
            checkpoints=CheckpointStore(folder.checkpoints),
            log=MetricsLog(folder.metrics),
            stop=folder.stop_request.exists,
            say=self.say,
            bad_images=BadImages.allowed_by(data, len(index.labels)),
        )
        if loop.progress.step:
            self.say(f"continues after update {loop.progress.step}")
        with stop_on_signal(folder, self.say):
            if loop.train() is Status.STOPPED:
                raise StoppedError(f"stopped, with a checkpoint; the same command continues {shown_path(folder.path)}")
            return self._finish(coder.eval(), precision, loop.progress.seconds["total"])

    def _precision(self) -> Precision:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return Precision(device, DTYPES[self.settings.amp_dtype or "float32"], bool(self.settings.channels_last))

    def _coder(self, training: NetworkTraining, precision: Precision) -> DiffusersAutoencoder:
        data = self.settings.data
        torch.manual_seed(seed_of("autoencoder weights", self.settings.seed))
        coder = new_autoencoder(training, in_chans=data.in_chans, img_size=data.img_size)
        return coder.to(precision.device).to(memory_format=precision.memory_format)

    def _features(self, training: NetworkTraining, precision: Precision) -> Features | None:
        """The features of the perceptual loss, of the frozen teacher; None without that loss."""
        data, teacher = self.settings.data, self.settings.teacher
        if teacher is None or training.perceptual == 0:
            return None
        network = build_teacher(teacher, image_spec(data, self.pipeline.index.classes))
        return network.to(precision.device).to(memory_format=precision.memory_format).features

    def _finish(
        self, coder: DiffusersAutoencoder | PatchAutoencoder, precision: Precision, seconds: float
    ) -> dict[str, Any]:
        """Measure, export and draw; `result.json` comes last."""
        precision = Precision(precision.device)
        began = time.perf_counter()
        quality = reconstruction_quality(coder, self.pipeline.eval_batches("val", EVAL_BATCH), precision)
        path = self.folder.path
        coder.save(path)
        write_latents(path / LATENTS_FILE, mean=quality.latent_mean, std=quality.latent_std)
        with torch.inference_mode():
            latents = torch.cat([coder.encode(images).cpu() for images in self._images("val", IMAGES, precision)])
        fit_principal(latents).save(path / DIRECTIONS_FILE)
        with extra("the picture", self.say):
            self._draw(coder, precision, quality)
        result = {
            "psnr": round(quality.psnr, 3),
            "images": quality.images,
            "parameters": sum(parameter.numel() for parameter in coder.parameters()),
            "seconds": {"training": round(seconds, 1), "measuring": round(time.perf_counter() - began, 1)},
        }
        write_json(self.folder.result, result)
        return result

    def _images(self, split: str, count: int, precision: Precision) -> Iterator[Tensor]:
        """Batches of images of a split, in the evaluation view."""
        for batch in self._spread(split, count, EVAL_BATCH):
            if len(batch):
                yield precision.images(batch.images)

    def _draw(self, coder: Autoencoder, precision: Precision, quality: Quality) -> None:
        (batch,) = self._spread("val", PICTURES, PICTURES)
        if not len(batch):
            raise DataError("none of the images that it shows can be read")
        with torch.inference_mode():
            decoded = coder.reconstruct(precision.images(batch.images)).clamp(0, 1)
        heading = f"{self.settings.training.kind}: {quality.psnr:.2f} dB on {quality.images:,} validation images"
        save_png(draw_reconstructions(batch.images, to_pixels(decoded), heading=heading), self.folder.picture)

    def _spread(self, split: str, count: int, batch_size: int) -> Iterator[Batch]:
        """Batches of a few images that are spread over a whole split, so of several classes."""
        index = self.pipeline.index
        rows = index.rows(split)
        few = rows[spread_places(len(rows), count)]
        name = f"{count} of {split}"  # the pipeline's object store knows splits by name
        some = replace(self.pipeline, index=replace(index, splits={**index.splits, name: few}))
        return some.eval_batches(name, batch_size)
