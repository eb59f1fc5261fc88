"""The Python API: what the command line calls.

from hard_ray.api import distill, load_config

result = distill(load_config(preset="digits"), "runs/digits")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hard_ray.config.loader import load_config
from hard_ray.config.run import RunConfig
from hard_ray.config.space import Search, load_space

__all__ = [
    "distill",
    "gallery",
    "generate",
    "import_teacher",
    "load_config",
    "load_space",
    "report",
    "resume",
    "resume_tune",
    "score_augmentations",
    "sync",
    "train_autoencoder",
    "tune",
]

if TYPE_CHECKING:
    from hard_ray.networks.importing import ImportedTeacher
    from hard_ray.orchestration.driver import Reporter, RunResult
    from hard_ray.orchestration.tune import SearchResult


def distill(config: RunConfig, output: str | Path, *, reporter: Reporter | None = None) -> RunResult:
    """Train a student by distillation.

    Args:
        config: what to do; see `load_config`.
        output: the run's folder, which must be new.
        reporter: hears of progress.

    Raises:
        HardrayError: something the user can mend; its text says what to do.
    """
    from hard_ray.orchestration import driver

    return driver.distill(config, Path(output), reporter)


def resume(output: str | Path, *, reporter: Reporter | None = None) -> RunResult:
    """Continue a run from its newest checkpoint.

    Raises:
        HardrayError: there is no run in the folder, or something else the user can mend.
    """
    from hard_ray.orchestration import driver

    return driver.resume(Path(output), reporter)


def tune(search: Search | str, output: str | Path, *, say: Callable[[str], None] = lambda _: None) -> SearchResult:
    """Search settings: trials by Ray Tune, which share one teacher pool.

    Args:
        search: see `load_space`; or a space's file or name.
        output: the search's folder, which must be new.
        say: hears of progress.

    Raises:
        HardrayError: something the user can mend; its text says what to do.
    """
    checked = load_space(search) if isinstance(search, str) else search
    from hard_ray.orchestration import tune as orchestration

    return orchestration.tune_space(checked, Path(output), say)


def resume_tune(output: str | Path, *, say: Callable[[str], None] = lambda _: None) -> SearchResult:
    """Go on with a search: trials that have ended are kept, the others go on from their checkpoints.

    Raises:
        HardrayError: there is no search in the folder, or something else the user can mend.
    """
    from hard_ray.orchestration import tune as orchestration

    return orchestration.resume(Path(output), say)


def sync(output: str | Path, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Send to MLflow what a run could not send while it was going on.

    Raises:
        HardrayError: there is no run in the folder, or the server does not answer.
    """
    from hard_ray.orchestration import after

    after.sync(Path(output), say)


def gallery(output: str | Path, *, to: str | Path | None = None) -> list[Path]:
    """Draw a run's pictures from its folder alone.

    Args:
        output: the run's folder; the run may still be going on.
        to: the folder for the pictures, by default the run's gallery.

    Returns:
        The PNG files: the newest pictures, the same images through training, what the augmentor draws.

    Raises:
        HardrayError: there is no run in the folder, or it kept no pictures.
    """
    from hard_ray import pictures

    return pictures.write_pictures(Path(output), None if to is None else Path(to))


def report(output: str | Path, *, to: str | Path | None = None) -> Path:
    """Write a run's page: one HTML file that needs nothing beside it.

    Args:
        output: the run's folder; the run may still be going on.
        to: the file, by default `report.html` in the folder.

    Raises:
        HardrayError: there is no run in the folder, or a file of it is damaged.
    """
    from hard_ray import page

    return page.write_page(Path(output), None if to is None else Path(to))


def train_autoencoder(
    config: RunConfig, training: dict[str, Any], output: str | Path, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Train a small autoencoder on the images of a configuration, or continue the one in `output`.

    Args:
        config: gives `data`, `seed` and `runtime`.
        training: `kind`, "kl" or "vq", and its settings; see `hard_ray.config.autoencoder_training`.
        output: the autoencoder's folder.
        say: hears of progress.

    Returns:
        `psnr` on the validation split, `images` in it, `parameters` and `seconds`.

    Raises:
        HardrayError: something the user can mend; its text says what to do.
    """
    from hard_ray.config.autoencoder_training import autoencoder_run
    from hard_ray.orchestration import autoencoder

    run = autoencoder_run(config, training)
    return autoencoder.train_autoencoder(run, Path(output), runtime=config.runtime, say=say)


def score_augmentations(
    config: RunConfig,
    output: str | Path,
    *,
    augmentors: Mapping[str, dict[str, Any]] | None = None,
    groups: int = 80,
    batch_size: int = 64,
    per: Literal["batch", "image"] = "batch",
    losses: str | Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Score augmentations for distillation by the teacher alone: T. stddev, the lower the better.

    Args:
        config: gives `data`, `teacher`, `seed` and `runtime`.
        output: the folder of the scores; an unfinished one goes on, and one that knows other augmentors keeps them.
        augmentors: settings by name, such as {"strong": {"kind": "rand_augment", "magnitude": 15}}; None: all kinds
            that learn nothing, with their default settings.
        groups: groups that the standard deviation is taken over.
        batch_size: images per batch; a group is 5 batches and their augmentations.
        per: one draw for a batch or one for each image, where an augmentor's settings do not say.
        losses: a JSON file of students' test losses by augmentor, to correlate with the scores.
        say: hears of progress.

    Returns:
        `scores` by augmentor, the best first: `t_stddev`, `standard_error`, `behind` the best, `behind_error`.

    Raises:
        HardrayError: something the user can mend; its text says what to do.
    """
    from hard_ray.config.scoring import DEFAULT_AUGMENTORS, read_augmentors, score_run
    from hard_ray.orchestration import score
    from hard_ray.scoring import read_losses

    chosen = read_augmentors(DEFAULT_AUGMENTORS) if augmentors is None else augmentors
    run = score_run(config, chosen, groups=groups, batch_size=batch_size, per=per)
    known = None if losses is None else read_losses(Path(losses), run.augmentors)
    return score.score_augmentations(config, run, Path(output), losses=known, say=say)


def generate(
    config: RunConfig, options: dict[str, Any], output: str | Path, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Make a set of adversarial images to train with, or go on with the one in `output`.

    Args:
        config: gives `data`, `teacher`, `runtime` and `seed`.
        options: `autoencoder`, and what else differs from `hard_ray.config.generation.GenerationConfig`'s defaults.
        output: the set's folder, for `augmentor.kind=generated`.
        say: hears of progress.

    Returns:
        What `manifest.json` holds: `images`, the mean `distance`, the teacher's `top1`, `shards`, ...

    Raises:
        HardrayError: something the user can mend; its text says what to do.
    """
    from hard_ray.config.generation import generation_settings

    generation = generation_settings(options)
    from hard_ray.orchestration import generate as orchestration

    return orchestration.generate(config, generation, Path(output), say)


def import_teacher(
    checkpoint: str | Path,
    output: str | Path,
    *,
    model: str,
    classes: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    img_size: int | None = None,
    renames: Sequence[str] = (),
) -> ImportedTeacher:
    """Make a teacher in timm's layout of a checkpoint that is not timm's.

    Args:
        checkpoint: a safetensors file, or a torch file that is read without unpickling objects.
        output: the folder, which must be new; `teacher.checkpoint` takes it.
        model: the architecture, a timm name.
        classes: a text file with the names of the classes in the order of the outputs, one a line.
        mean: subtracted per channel, of images in [0, 1]; None: the architecture's own.
        std: divided by per channel; None: the architecture's own.
        img_size: input size in pixels; None: the architecture's own.
        renames: `OLD=NEW` with a regular expression OLD, applied to every key, one after the other.

    Raises:
        HardrayError: something the user can mend; its text says what to do.
    """
    from hard_ray.networks import importing

    config = importing.network_config(model, mean=mean, std=std, img_size=img_size)
    names = None if classes is None else Path(classes)
    return importing.import_teacher(Path(checkpoint), config, Path(output), classes=names, renames=renames)
