"""`hardray generate`: a Ray Data job whose actors make whole shards and ask the teacher pool."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hard_ray.config.generation import GenerationConfig
from hard_ray.config.loader import absolute
from hard_ray.config.run import RunConfig, refuse_embedding
from hard_ray.data.account_text import say_account
from hard_ray.data.checked_shard import ShardHeader, digest_of, shard_name
from hard_ray.data.generated_set import open_generated
from hard_ray.data.generated_shard import verify_shard
from hard_ray.data.index import ImageIndex, Rows, spread_places
from hard_ray.data.pictures import EvalPictures
from hard_ray.data.views import eval_view_settings
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherSpec
from hard_ray.distillation.teacher_cache import teacher_spec, trained_teacher
from hard_ray.errors import DataError, suggestion
from hard_ray.files import beginning, is_vacant, read_json, write_json
from hard_ray.networks.autoencoders.base import Autoencoder
from hard_ray.networks.autoencoders.build import build_autoencoder
from hard_ray.networks.precision import to_pixels
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.cluster.resources import Cluster, resolve_runtime
from hard_ray.orchestration.extras import extra
from hard_ray.orchestration.generate.actors import MakerPlan, ShardMaker, coder_precision
from hard_ray.orchestration.pool.client import PoolAddress
from hard_ray.orchestration.pool.server import start_pool
from hard_ray.orchestration.shard_job import ShardJob
from hard_ray.orchestration.stream import await_streams
from hard_ray.preparation.answers import answered_index
from hard_ray.preparation.folders import SetFolder
from hard_ray.preparation.generation import FORMAT, AttackStatistics, Dad
from hard_ray.reports.figures import save_png
from hard_ray.reports.gallery import draw_generated
from hard_ray.runs.place import occupied
from hard_ray.runs.snapshots import Guesses
from hard_ray.runs.summary import versions
from hard_ray.storage.mirror import Mirror, shown_path

PICTURES = 8
KERNELS = ("threads", "amp_dtype", "channels_last")
TEACHER_KERNELS = ("threads", "dtype")


def generate(
    config: RunConfig,
    generation: GenerationConfig,
    output: Path,
    say: Callable[[str], None] = lambda _: None,
    *,
    mirror: Mirror | None = None,
) -> dict[str, Any]:
    """Make or continue the generated set in `output`; return the content of `manifest.json`.

    `config` gives `data`, `teacher`, `runtime` and `seed`. Shards in `output` are verified and not made again. `mirror`
    is the URL that `output` is a working copy of.

    Raises:
        HardrayError: a mistake that the message explains.
        StoppedError: Ctrl-C; the same call continues.
    """
    folder = SetFolder(output.expanduser().resolve())
    check_output(folder)
    config, generation = absolute(config), absolute(generation)
    refuse_embedding(config, "images are generated against a teacher's class")
    index = answered_index(config.data, config.teacher, config.runtime)
    say_account(index, say)
    if generation.split not in index.splits:
        known = suggestion(generation.split, list(index.splits))
        raise DataError(f"the data has no {generation.split} split; {known}")
    coder = build_autoencoder(generation.autoencoder, config.data.in_chans)
    if coder.codebook is None:
        say(
            f"{generation.autoencoder.model} has no codebook, so that images are reconstructed and not discretised; "
            "DAD's autoencoder has one (`hardray train-autoencoder --kind vq`)"
        )
    with folder.locked():
        begun = _read_begun(folder)
        job = None
        if begun:
            config = with_kernels_of(begun, config)
            job = prepare(config, generation, index, folder, coder)
            if job.is_complete(begun):
                say(f"{shown_path(folder.path)} is complete, with these settings: nothing is left to do")
                return begun
        namespace = f"hardray-{folder.path.name}-{os.getpid()}"
        with connected(config.runtime, namespace=namespace, say=say) as cluster:
            config = resolve_runtime(config, cluster)
            job = job or prepare(config, generation, index, folder, coder)
            job.config, job.mirror = config, mirror
            return job.run(cluster, namespace, say)


def check_output(folder: SetFolder) -> None:
    """Raise a RunFolderError if the folder holds something other than a set."""
    path = folder.path
    if path.is_dir() and (folder.manifest.exists() or folder.shards()):
        return
    if not is_vacant(path):
        raise occupied(path, "generated set")


def _read_begun(folder: SetFolder) -> dict[str, Any]:
    """Read the manifest of an earlier start, empty if there is none; raises DataError if it is damaged."""
    if not folder.manifest.exists():
        return {}
    try:
        begun: dict[str, Any] = read_json(folder.manifest)
        kernels = begun["kernels"]
        is_whole = (
            kernels.keys() >= set(KERNELS)
            and kernels["teacher"].keys() >= set(TEACHER_KERNELS)
            and isinstance(begun["settings_digest"], str)
            and all(isinstance(shard["file"], str) for shard in begun["shards"])
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise DataError(f"{folder.manifest}: cannot be read; delete this file and give the same command")
    return begun


def with_kernels_of(begun: dict[str, Any], config: RunConfig) -> RunConfig:
    """Keep the machine-dependent settings that a set was begun with, unless the user sets them."""
    runtime, kept = config.runtime, begun["kernels"]
    teacher = {key: kept["teacher"][key] for key in TEACHER_KERNELS if getattr(runtime.teacher, key) is None}
    own = {key: kept[key] for key in KERNELS if getattr(runtime, key) is None}
    runtime = runtime.model_copy(update={**own, "teacher": runtime.teacher.model_copy(update=teacher)})
    return config.model_copy(update={"runtime": runtime})


def prepare(
    config: RunConfig, generation: GenerationConfig, index: ImageIndex, folder: SetFolder, coder: Autoencoder
) -> Generation:
    """Load the teacher and collect everything that decides the set; the kernels in `config` are resolved.

    Raises TeacherError if the teacher has no weights, and ModelError if they cannot be used.
    """
    spec = teacher_spec(config, trained_teacher(config, index), index)
    teacher = FrozenNetwork.build(spec)
    settings = {
        "format": FORMAT,
        "data_fingerprint": index.fingerprint(),
        "view": eval_view_settings(config.data),
        "teacher": teacher.identity(),
        "autoencoder": coder.identity(),
        **generation.model_dump(mode="json", exclude={"autoencoder"}),
        "seed": config.seed,
    }
    return Generation(config, index, folder, settings, generation, coder, spec, teacher)


@dataclass(slots=True)
class Generation(ShardJob[MakerPlan]):
    """One start of a generation."""

    actor = ShardMaker

    folder: SetFolder
    generation: GenerationConfig
    coder: Autoencoder
    spec: TeacherSpec
    teacher: FrozenNetwork

    @property
    def rows(self) -> Rows:
        """The rows of the split."""
        return self.index.rows(self.generation.split)

    @property
    def shard_size(self) -> int:
        """Images per shard."""
        return self.generation.shard_size

    def is_complete(self, manifest: dict[str, Any]) -> bool:
        """Whether the folder holds a finished set of these settings with all its files."""
        return (
            bool(manifest.get("complete"))
            and manifest["settings_digest"] == digest_of(self.settings)
            and all((self.folder.path / shard["file"]).is_file() for shard in manifest["shards"])
            and self.folder.picture.is_file()
        )

    def run(self, cluster: Cluster, namespace: str, say: Callable[[str], None]) -> dict[str, Any]:
        """Make the missing shards and finish the set.

        Raises DataError if a shard in the folder is not of the set or too many images are unreadable, StoppedError at
        Ctrl-C.
        """
        self.say = say
        done = self._verified()
        with beginning(self.folder.path):
            write_json(self.folder.manifest, self._manifest(done, complete=False))
        if self.config.runtime.threads is not None:
            torch.set_num_threads(self.config.runtime.threads)
        if len(done) < len(self.spans):
            self._make_missing(done, cluster, namespace)
        if not sum(header.rows for header in done.values()):
            raise DataError(f"no image of the {self.generation.split} split can be read: {self._bad(done).first}")
        manifest = self._manifest(done, complete=True)
        if self._bad(done).names:
            self._bad(done).write(self.folder.run.bad_images)
        write_json(self.folder.manifest, manifest)
        with extra("the picture", self.say):
            self._draw(manifest)
        return manifest

    def _verify(self, path: Path, number: int) -> ShardHeader:
        return verify_shard(path, number, self.settings)

    def _make_missing(self, done: dict[int, ShardHeader], cluster: Cluster, namespace: str) -> None:
        runtime, pool = self.config.runtime, None
        if runtime.teacher.placement != "colocated":
            pool = start_pool(self.spec, runtime, namespace=namespace, say=self.say)
        try:
            error = self._survive(pool.address if pool else None, done, cluster)
        finally:
            if pool is not None:
                pool.stop()
            await_streams()
        if error is not None:
            raise error
        if self.mirror is not None:
            self.mirror.pull()

    def _plan(self, done: Mapping[int, ShardHeader], pool: PoolAddress | None) -> MakerPlan:
        return MakerPlan(
            config=self.generation,
            seed=self.config.seed,
            in_chans=self.config.data.in_chans,
            threads=self.config.runtime.threads,
            to=self.shards_go_to,
            settings=self.settings,
            missing=tuple((number, span) for number, span in enumerate(self.spans) if number not in done),
            coder_identity=self.settings["autoencoder"],
            teacher=self.spec,
            teacher_identity=self.settings["teacher"],
            pool=pool,
        )

    def _manifest(self, done: dict[int, ShardHeader], *, complete: bool) -> dict[str, Any]:
        generation, runtime = self.generation, self.config.runtime
        headers = [done[number] for number in sorted(done)] if complete else []
        score = sum((AttackStatistics.of(header.score) for header in headers), AttackStatistics())
        return {
            "complete": complete,
            "format": FORMAT,
            "method": generation.method,
            "split": generation.split,
            "view": self.settings["view"],
            "data_fingerprint": self.settings["data_fingerprint"],
            "teacher": {"model": self.config.teacher.model, "identity": self.settings["teacher"]},
            "autoencoder": {"model": generation.autoencoder.model, "identity": self.settings["autoencoder"]},
            "settings": generation.model_dump(mode="json", exclude={"method", "split", "autoencoder"}),
            "settings_digest": digest_of(self.settings),
            "seed": self.config.seed,
            "kernels": {
                **{key: getattr(runtime, key) for key in KERNELS},
                "teacher": {key: getattr(runtime.teacher, key) for key in TEACHER_KERNELS},
            },
            "images": sum(header.rows for header in headers),
            **score.means(),
            "bad_images": sorted(self._bad(done).names) if complete else [],
            "versions": versions(),
            "shards": [
                {"file": shard_name(h.shard), "first": h.first, "last": h.last, "rows": h.rows, "sha256": h.sha256}
                for h in headers
            ],
        }

    def _draw(self, manifest: dict[str, Any]) -> None:
        """Draw a few images at every stage; they are spread over the split, so of several classes."""
        data, index, made = self.config.data, self.index, open_generated(self.folder.path, self.index)
        rows = index.rows(self.generation.split)
        rows = rows[made.place[rows] >= 0]
        rows = rows[spread_places(len(rows), PICTURES)]
        columns = EvalPictures(index.reader, index.labels, data, rows, made)(np.arange(len(rows)))
        precision, pool = coder_precision(), LocalPool(self.teacher)
        method = Dad(self.coder.to(precision.device), pool, self.generation, self.config.seed, precision)
        stages = {
            "original": columns["image"],
            "reconstructed": to_pixels(method.discretised(columns["image"])),
            "generated": columns["generated"],
        }
        shown = {name: (pixels, Guesses.of(self.teacher.logits(pixels))) for name, pixels in stages.items()}
        heading = f"{self.generation.method}: {_effect(manifest)}"
        save_png(draw_generated(shown, columns["label"], index.classes, heading=heading), self.folder.picture)


def _effect(manifest: dict[str, Any]) -> str:
    """What the teacher says of the images at each stage, for the heading of the picture."""
    names = {"top1": "the teacher's top-1", "agreement": "the teacher keeps its answer"}
    said = [
        f"{name} on {manifest['images']:,} images: "
        + ", ".join(f"{stage} {value:.1f} %" for stage, value in manifest[key].items())
        for key, name in names.items()
        if key in manifest
    ]
    return "; ".join(said)
