"""The Python API, on which the command line is built.

Every function raises a HardrayError for what the user can fix, such as a folder without a run; its message says how.

from hard_ray.api import distill, load_config

result = distill(load_config(preset="digits"), "runs/digits")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hard_ray.config.loader import load_config
from hard_ray.config.run import RunConfig
from hard_ray.config.space import Search, load_space
from hard_ray.config.teacher_training import load_teacher_config
from hard_ray.storage.address import local_path

__all__ = [
    "compare",
    "distill",
    "evaluate",
    "export",
    "fit_head",
    "gallery",
    "generate",
    "import_teacher",
    "index",
    "load_config",
    "load_space",
    "load_teacher_config",
    "predict",
    "probe",
    "recommend",
    "report",
    "resume",
    "resume_recommend",
    "resume_tune",
    "score_augmentations",
    "sync",
    "train_autoencoder",
    "train_teacher",
    "tune",
]

if TYPE_CHECKING:
    from hard_ray.export.predict import Prediction
    from hard_ray.export.student import Exported
    from hard_ray.orchestration.recommend.driver import Recommendation
    from hard_ray.orchestration.run.driver import RunResult
    from hard_ray.orchestration.run.reporter import Reporter
    from hard_ray.orchestration.search.driver import SearchResult
    from hard_ray.preparation.head_folder import HeadResult
    from hard_ray.preparation.import_teacher import ImportedTeacher
    from hard_ray.reports.comparison.page import WrittenComparison


def distill(config: RunConfig, output: str | Path, *, reporter: Reporter | None = None) -> RunResult:
    """Train a student by distillation.

    Args:
        config: the settings of the run; see `load_config`.
        output: the run's folder, or a URL such as s3://bucket/runs/birds, which must be new.
        reporter: a callback for progress.
    """
    from hard_ray.orchestration.run import driver

    return driver.distill(config, Path(output), reporter)


def resume(output: str | Path, *, reporter: Reporter | None = None) -> RunResult:
    """Continue a run, in a folder or at a URL, from its newest checkpoint."""
    from hard_ray.orchestration.run import driver

    return driver.resume(Path(output), reporter)


def tune(search: Search | str, output: str | Path, *, say: Callable[[str], None] = lambda _: None) -> SearchResult:
    """Search for the best settings, with trials by Ray Tune that share one teacher pool.

    Args:
        search: the result of `load_space`, or a space's file or name.
        output: the search's folder, or a URL such as s3://bucket/searches/birds, which must be new.
        say: a callback for lines about progress.
    """
    checked = load_space(search) if isinstance(search, str) else search
    from hard_ray.orchestration.search import driver as orchestration

    return orchestration.tune_space(checked, Path(output), say)


def resume_tune(
    output: str | Path, *, search: Search | str | None = None, say: Callable[[str], None] = lambda _: None
) -> SearchResult:
    """Continue a search: trials that have ended are kept, the others continue from their checkpoints.

    Args:
        output: the search's folder or URL.
        search: the search as it began, perhaps with more trials; None: as the folder holds it.
        say: a callback for lines about progress.
    """
    given = load_space(search) if isinstance(search, str) else search
    from hard_ray.orchestration.search import driver as orchestration

    return orchestration.resume(Path(output), say, search=given)


def recommend(
    config: RunConfig,
    output: str | Path,
    *,
    budget_s: float,
    suites: Sequence[str] | None = None,
    images: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Recommendation:
    """Find out by short trainings which augmentor, strength and temperature to take for a configuration.

    Args:
        config: what is to be trained; its objective and augmentor are among the candidates.
        output: the recommendation's folder or URL, which must be new.
        budget_s: seconds for all of it, but for the training of a teacher without weights.
        suites: suites of the validation split, whose mean top-1, or agreement without labels, decides; None: clean,
            shifts, rotations, corruptions.
        images: most images of the validation split that students are measured on; None: 2000.
        say: a callback for lines about progress.

    Returns:
        The record with its `conclusion`, and the paths of the page and of the recommended configuration.
    """
    from hard_ray.config.recommend import recommend_settings
    from hard_ray.orchestration.recommend import driver

    settings = recommend_settings(budget_s=budget_s, suites=suites, images=images)
    return driver.recommend(config, settings, Path(output), say)


def resume_recommend(output: str | Path, *, say: Callable[[str], None] = lambda _: None) -> Recommendation:
    """Continue a recommendation within its budget: finished trainings and measurements are kept."""
    from hard_ray.orchestration.recommend import driver

    return driver.resume(Path(output), say)


def sync(output: str | Path, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Send to MLflow the part of a run or a search that was not sent while it went on, and end it there."""
    from hard_ray.runs import sync as after

    after.sync(Path(output), say)


def gallery(output: str | Path, *, to: str | Path | None = None) -> list[Path]:
    """Draw a run's pictures from its folder alone.

    Args:
        output: the run's folder or URL; the run need not have ended.
        to: the folder of the pictures, by default the run's gallery.

    Returns:
        The PNG files: the newest pictures, the same images through training, the augmentor's distribution.
    """
    from hard_ray.reports.run import pictures
    from hard_ray.runs.place import read_place

    with read_place(output, writes=to is None) as folder:
        return pictures.write_pictures(Path(folder), None if to is None else local_path(to))


def report(output: str | Path, *, to: str | Path | None = None) -> Path:
    """Write a run's page: one self-contained HTML file.

    Args:
        output: the run's folder or URL; the run need not have ended.
        to: the file, by default `report.html` in the folder.
    """
    from hard_ray.reports.run import page
    from hard_ray.runs.place import read_place

    with read_place(output, writes=to is None) as folder:
        return page.write_page(Path(folder), None if to is None else local_path(to))


def compare(runs: Sequence[str | Path], *, to: str | Path | None = None) -> WrittenComparison:
    """Compare runs from their folders alone, and write a page and its numbers.

    Args:
        runs: at least two folders or URLs of runs, or of controls such as `RUN/controls/kd`; runs need not have ended.
        to: the HTML file, by default `compare.html` beside the runs, or in the working folder if one is at a URL; a
            JSON file of the same name has the numbers.

    Returns:
        The paths of both files, and the comparison: runs grouped over seeds, the configuration keys in which the groups
        differ, t-tests of every pair of groups, and reasons why numbers are not comparable.
    """
    import contextlib

    from hard_ray.reports.comparison import page as comparison_page
    from hard_ray.runs.place import read_place
    from hard_ray.storage.address import is_url

    if to is None and any(map(is_url, runs)):
        to = "compare.html"
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(read_place(run))) for run in runs]
        return comparison_page.write_comparison(folders, None if to is None else local_path(to))


def train_teacher(config: RunConfig, output: str | Path, *, reporter: Reporter | None = None) -> RunResult:
    """Train or fine-tune the teacher of a configuration on its data, by `teacher.recipe`.

    A teacher without weights becomes the one that `distill` would train and cache. One with weights, given by
    `teacher.pretrained`, `teacher.checkpoint` or its source, is fine-tuned; it gets a new class head if its own is for
    other classes. `resume` and `report` take the folder, and `teacher.checkpoint` takes the `student` in it.

    Args:
        config: gives `data`, `teacher`, `validate`, `runtime`, ...; `load_teacher_config` chooses
            a recipe for fine-tuning if the teacher has weights.
        output: the run's folder or URL, which must be new.
        reporter: a callback for progress.
    """
    from hard_ray.orchestration.run import driver

    return driver.train_teacher(config, Path(output), reporter)


def train_autoencoder(
    config: RunConfig, training: dict[str, Any], output: str | Path, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Train a small autoencoder on the images of a configuration, or continue the one in `output`.

    Args:
        config: gives `data`, `seed` and `runtime`.
        training: `kind`, "kl", "vq" or "patch", and its settings; see `hard_ray.config.autoencoder_training`.
        output: the autoencoder's folder or URL.
        say: a callback for lines about progress.

    Returns:
        `psnr` on the validation split, `images` in it, `parameters` and `seconds`.
    """
    from hard_ray.config.autoencoder_training import autoencoder_run
    from hard_ray.orchestration import train_autoencoder as autoencoder
    from hard_ray.runs.place import kept_place

    run = autoencoder_run(config, training)
    with kept_place(Path(output), say) as place:
        return autoencoder.train_autoencoder(run, place.folder, runtime=config.runtime, say=say)


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
        output: the folder or URL of the scores; unfinished scoring in it continues, and scores of other augmentors are
            kept.
        augmentors: settings by name, such as {"strong": {"kind": "rand_augment", "magnitude": 15}}; None: the kinds of
            `hard_ray.config.scoring.DEFAULT_AUGMENTORS`, with their default settings.
        groups: number of groups for the standard deviation.
        batch_size: images per batch; a group is 5 batches and their augmentations.
        per: one draw for a batch or one for each image, unless an augmentor's settings say.
        losses: a JSON file of students' test losses by augmentor, to correlate with the scores.
        say: a callback for lines about progress.

    Returns:
        `scores` by augmentor, the best first: `t_stddev`, `standard_error`, `behind` the best, `behind_error`.
    """
    from hard_ray.config.scoring import DEFAULT_AUGMENTORS, read_augmentors, score_run
    from hard_ray.orchestration import score_augmentations as score
    from hard_ray.preparation.scoring import read_losses
    from hard_ray.runs.place import kept_place

    chosen = read_augmentors(DEFAULT_AUGMENTORS) if augmentors is None else augmentors
    run = score_run(config, chosen, groups=groups, batch_size=batch_size, per=per)
    known = None if losses is None else read_losses(Path(losses), run.augmentors)
    with kept_place(Path(output), say) as place:
        return score.score_augmentations(config, run, place.folder, losses=known, say=say)


def generate(
    config: RunConfig, options: dict[str, Any], output: str | Path, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Generate a set of adversarial training images, or continue the one in `output`.

    Args:
        config: gives `data`, `teacher`, `runtime` and `seed`.
        options: `autoencoder`, and differences from the defaults of `hard_ray.config.generation.GenerationConfig`.
        output: the set's folder or URL, for `augmentor.kind=generated`.
        say: a callback for lines about progress.

    Returns:
        The content of `manifest.json`: `images`, the mean `distance`, the teacher's `top1`, `shards`, ...
    """
    from hard_ray.config.generation import generation_settings

    generation = generation_settings(options)
    from hard_ray.orchestration.generate import job as orchestration
    from hard_ray.runs.place import kept_place

    with kept_place(Path(output), say) as place:
        return orchestration.generate(config, generation, place.folder, say, mirror=place.mirror)


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
    """Convert a checkpoint that is not timm's to a teacher in timm's layout.

    Args:
        checkpoint: a safetensors file, or a torch file that is read without unpickling objects.
        output: the folder, which must be new; `teacher.checkpoint` takes it.
        model: the architecture, a timm name.
        classes: a text file with the names of the classes in the order of the outputs, one per line.
        mean: subtracted per channel, of images in [0, 1]; None: the architecture's own.
        std: divided by per channel; None: the architecture's own.
        img_size: input size in pixels; None: the architecture's own.
        renames: `OLD=NEW` with a regular expression OLD, applied to every key in this order.
    """
    from hard_ray.preparation import import_teacher as importing

    config = importing.network_config(model, mean=mean, std=std, img_size=img_size)
    names = None if classes is None else Path(classes)
    return importing.import_teacher(Path(checkpoint), config, local_path(output), classes=names, renames=renames)


def fit_head(
    config: RunConfig, options: dict[str, Any], output: str | Path, *, say: Callable[[str], None] = lambda _: None
) -> HeadResult:
    """Put a class head on a frozen tower, which then teaches as `teacher.model=local-dir:OUTPUT`.

    Args:
        config: `teacher` is the tower; a probe and prototypes also take `data` and `runtime`.
        options: `kind` ("probe", "prototypes" or "zero-shot") and its settings; see `hard_ray.config.heads`.
        output: the teacher's folder or URL; features in it are kept, and an unfinished computation continues.
        say: a callback for lines about progress.

    Returns:
        The folder, the names of the outputs, notes, and `facts`: `top1` by split of a probe, `temperature`, ...
    """
    from hard_ray.config.heads import head_settings

    head = head_settings(options)
    from hard_ray.orchestration import fit_head as orchestration
    from hard_ray.runs.place import kept_place

    with kept_place(Path(output), say) as place:
        return orchestration.fit_head(config, head, place.folder, mirror=place.mirror, say=say)


def probe(
    model: str | Path,
    output: str | Path | None = None,
    *,
    config: RunConfig | None = None,
    overrides: Sequence[str] = (),
    options: dict[str, Any] | None = None,
    best: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure what a model's features are worth on labelled images: k nearest neighbours and a linear probe.

    Args:
        model: a run's folder or URL, a folder in timm's layout, or a timm model name.
        output: the folder or URL of features and results, by default `probe` in the run's folder or `runs/probe-MODEL`.
        config: gives `data` and `runtime`; None: the run's own.
        overrides: `dotted.key=value` texts that change the run's own configuration.
        options: differences from the defaults of `hard_ray.config.heads.NeighbourConfig`.
        best: the run's best student on the validation split instead of its last.
        say: a callback for lines about progress.

    Returns:
        The content of `probe.json`: `top1` of `knn` and `linear` by split, in percent, and how they were measured.
    """
    from hard_ray.config.heads import NeighbourConfig
    from hard_ray.config.loader import from_options
    from hard_ray.export.target import target_of

    settings = from_options(NeighbourConfig, options or {})
    from hard_ray.orchestration import probe as orchestration
    from hard_ray.runs.place import kept_place, read_place
    from hard_ray.storage.address import Remote, is_url

    if output is None and is_url(model):
        output = str(Remote.parse(model) / "probe")
    with read_place(model) as found:
        target = target_of(str(found), config, overrides, best=best)
        with kept_place(orchestration.default_output(target) if output is None else Path(output), say) as place:
            return orchestration.probe(target, settings, place.folder, mirror=place.mirror, say=say)


def index(config: RunConfig, *, say: Callable[[str], None] = lambda _: None) -> list[tuple[str, str]]:
    """Make the index of a data set, which later starts only compare with the listing of its files.

    Args:
        config: gives `data`, and in `runtime.address` the cluster whose tasks read the shards.
        say: a callback for lines about progress.

    Returns:
        What was found, as pairs of a heading and a line: files, splits, classes, sizes, and what was left out and why.
    """
    from hard_ray.orchestration import index as orchestration

    return orchestration.index(config, say=say)


def evaluate(
    model: str | Path,
    output: str | Path | None = None,
    *,
    config: RunConfig | None = None,
    overrides: Sequence[str] = (),
    options: dict[str, Any] | None = None,
    best: bool = False,
    labelled: str | None = None,
    with_teacher: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure how accurate, how robust and how well calibrated a model is.

    Args:
        model: a run's folder or URL, a folder in timm's layout, or a timm model name.
        output: the folder or URL of the results, by default `evaluation` in the run's folder; suites in it with the
            same settings are not measured again.
        config: gives `data`, `teacher` and `runtime`; None: the run's own.
        overrides: `dotted.key=value` texts that change the run's own configuration.
        options: differences from the defaults of `hard_ray.config.evaluation.EvaluationConfig`.
        best: the run's best student on the validation split instead of its last.
        labelled: KIND=PATH of labelled images, for a run whose own have no labels; its outputs are the classes.
        with_teacher: whether the teacher, if there is one, is measured too.
        say: a callback for lines about progress.

    Returns:
        The content of `evaluation.json`: `suites` by name with `top1`, `ece`, `agreement`, `by` condition and severity.
        Where images have no labels, `top1` and `ece` are left out, and `by` holds the agreement with the teacher.
    """
    from hard_ray.config.evaluation import evaluation_settings

    evaluation = evaluation_settings(options or {})
    from hard_ray.export.target import target_of
    from hard_ray.orchestration.evaluate import job as orchestration
    from hard_ray.runs.place import kept_place, read_place

    with read_place(model, writes=output is None) as found:
        target = target_of(str(found), config, overrides, best=best, labelled=labelled)
        with kept_place(target.default_output if output is None else Path(output), say) as place:
            result = orchestration.evaluate(target, evaluation, place.folder, with_teacher=with_teacher, say=say)
    return {**result, "folder": str(place.folder)}


def export(
    run: str | Path, to: str | Path, *, best: bool = False, onnx: bool = False, torch_export: bool = False
) -> Exported:
    """Export a student: a folder in timm's layout, and a model card with its measurements.

    Args:
        run: a run's folder or URL, or a folder in timm's layout.
        to: the folder, which must be new or an earlier export; it is replaced in one step.
        best: of a run the best on the validation split, instead of the last.
        onnx: whether `model.onnx` is written; needs the extra `onnx`.
        torch_export: whether `model.pt2` is written.

    Returns:
        The folder, and the largest differences between the files' logits and the network's on real images. A file that
        differs from the network is an error, and nothing is written.
    """
    from hard_ray.export import student as exporting
    from hard_ray.runs.place import read_place

    with read_place(run) as folder:
        return exporting.export(Path(folder), local_path(to), best=best, onnx=onnx, torch_export=torch_export)


def predict(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    best: bool = False,
    batch_size: int = 64,
    threads: int | None = None,
) -> Iterator[Prediction]:
    """Classify image files with a model.

    Args:
        model: a run's folder or URL, a folder in timm's layout such as an export, or a timm name.
        images: files, and folders, which stand for every image below them.
        top: number of classes named for each image.
        best: of a run the best on the validation split, instead of the last.
        batch_size: images that are read and classified together.
        threads: threads of PyTorch's kernels, in the whole process; None: unchanged.

    Returns:
        One prediction for each image in order, made lazily; that of an unreadable image has a `problem`.
    """
    import torch

    from hard_ray.export.named_model import no_classes
    from hard_ray.export.predict import predictions
    from hard_ray.export.saved_model import open_model
    from hard_ray.runs.place import read_place

    if threads is not None:
        torch.set_num_threads(threads)
    with read_place(model) as place:
        saved = open_model(str(place), best=best)
    if not saved.has_classes:
        raise no_classes(str(model), saved.source)
    return predictions(saved, [Path(image) for image in images], top=top, batch_size=batch_size)
