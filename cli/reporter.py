"""What the command line prints while a run goes on, and at its end."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from hard_ray.config.run import RunConfig
    from hard_ray.networks.importing import ImportedTeacher
    from hard_ray.orchestration.plan import RunPlan

LINE_EVERY_S = 5.0


class ConsoleReporter:
    """A line for each evaluation, and one every few seconds in between."""

    def __init__(self, console: Console) -> None:
        """Print to `console`."""
        self.console = console
        self._offsets: dict[Path, int] = {}
        self._printed = 0.0
        self._started = time.monotonic()
        self._announced: set[str] = set()

    def say(self, text: str) -> None:
        """A sentence."""
        self.console.print(escape(text), highlight=False, soft_wrap=True)

    def watch(self, plans: Iterable[RunPlan]) -> None:
        """Print what the trainings logged since the last look."""
        for plan in plans:
            latest = None
            for point in self._new_points(plan.folder / "metrics.jsonl"):
                if point["kind"] == "val":
                    self._line(plan, point)
                elif point["kind"] == "train":
                    latest = point
            if latest is not None and time.monotonic() - self._printed > LINE_EVERY_S:
                self._line(plan, latest)

    def close(self) -> None:
        """Nothing is left open."""

    def _line(self, plan: RunPlan, point: dict[str, Any]) -> None:
        self._printed = time.monotonic()
        elapsed = time.monotonic() - self._started
        head = f"[dim]{elapsed:5.0f}s[/dim]  {escape(plan.name):<16} update {point['step']:>6}"
        parts = _validation(point) if point["kind"] == "val" else _training(point)
        self.console.print(f"{head}  {'  '.join(parts)}", highlight=False, soft_wrap=True)

    def _new_points(self, path: Path) -> Iterable[dict[str, Any]]:
        if not path.exists():
            return
        size, offset = path.stat().st_size, self._offsets.get(path, 0)
        with path.open("rb") as stream:
            stream.seek(offset if offset <= size else 0)  # a resume may have cut the file
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self._offsets[path] = stream.tell()
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


def _training(point: dict[str, Any]) -> list[str]:
    names = {"train/loss": "loss", "train/kd_loss": "kd", "train/disagreement": "disagreement", "train/top1": "top1"}
    parts = [f"{short} {point[name]:.3g}" for name, short in names.items() if name in point]
    return [*parts, f"{point['throughput/images_per_s']:,.0f} images/s"]


def _validation(point: dict[str, Any]) -> list[str]:
    tops = {name: value for name, value in point.items() if name.startswith("val") and name.endswith("top1")}
    return [f"[bold]{name.removesuffix('/top1')} {value:.1f} %[/bold]" for name, value in tops.items()]


def result_table(summary: dict[str, Any], config: RunConfig, *, learner: str | None = None) -> Table:
    """Teacher, controls and student on each suite; `learner` is another name for the last."""
    from hard_ray.report import rows

    header, body = rows(summary, config)
    body[-1][0] = learner or body[-1][0]
    table = Table(title=f"top-1 on the {summary['split']} split, %", title_justify="left", title_style="bold")
    for position, name in enumerate(header):
        table.add_column(name, justify="right" if position else "left")
    for row in body:
        table.add_row(*row, style="bold" if row is body[-1] else None)
    return table


def autoencoder_lines(result: dict[str, Any], folder: Path) -> list[str]:
    """How a training of an autoencoder ended."""
    seconds = result["seconds"]["training"]
    return [
        f"[bold]{result['psnr']:.2f} dB[/bold] on {result['images']:,} validation images  "
        f"{result['parameters']:,} parameters, trained for {seconds:.0f} s",
        f"picture  {escape(str(folder / 'reconstructions.png'))}",
        f"use it   augmentor.kind=vae augmentor.autoencoder.model={escape(str(folder))}",
    ]


def score_table(result: dict[str, Any]) -> Table:
    """Augmentations by T. stddev, the lowest first, and which differences from it are noise."""
    table = Table(title="T. stddev, x 1000, with standard errors", title_justify="left", title_style="bold")
    table.add_column("augmentation")
    table.add_column("T. stddev", justify="right")
    table.add_column("above the lowest", justify="right")
    table.add_column("")
    for place, (name, score) in enumerate(result["scores"].items()):
        value, behind = (
            f"{1000 * score[key]:.3f} ± {1000 * score[error]:.3f}"
            for key, error in (("t_stddev", "standard_error"), ("behind", "behind_error"))
        )
        verdict = "within noise" if place and score["is_tied"] else ""
        table.add_row(escape(name), value, behind if place else "", verdict)
    return table


def score_lines(result: dict[str, Any], folder: Path) -> list[str]:
    """What stands in the table, and where it is."""
    images = 2 * result["iterations"] * result["batch_size"]
    lines = [
        f"over {result['groups']} groups of {images:,} images; the lower, the better to learn from. Within noise: no "
        "further from the lowest than two standard errors of the difference, on the same batches"
    ]
    if "correlation" in result:
        lines.append(f"Pearson correlation with the test losses: {result['correlation']['pearson']:.3f}")
        lines.append(f"picture  {escape(str(folder / 'correlation.png'))}")
    return [*lines, f"picture  {escape(str(folder / 'scores.png'))}", f"scores   {escape(str(folder / 'scores.json'))}"]


def generation_lines(manifest: dict[str, Any], folder: Path, given: Sequence[str]) -> list[str]:
    """How a generation ended, and how to train with it; `given` describes the configuration."""
    settings, top1 = manifest["settings"], manifest["top1"]
    lines = [
        f"[bold]{manifest['images']:,} images[/bold] in {len(manifest['shards'])} shards",
        f"distance {manifest['distance']:.4f} on average before the second discretisation "
        f"({settings['norm']}, at most {settings['eps']:g})",
        f"teacher  {top1['clean']:.1f} % right on clean images, {top1['reconstructed']:.1f} % on reconstructed ones, "
        f"{top1['generated']:.1f} % on generated ones",
        f"set      {escape(str(folder))}",
        f"picture  {escape(str(folder / 'gallery.png'))}",
    ]
    if manifest["bad_images"]:
        lines.append(
            f"left out {len(manifest['bad_images'])} unreadable images: {escape(str(folder / 'bad_images.txt'))}"
        )
    if manifest["split"] == "train":
        training = ["objective.kind=dad", "augmentor.kind=generated", f"augmentor.path={folder}"]
        lines.append(f"train    {escape(shlex.join(['hardray', 'distill', *given, *training]))}")
    return lines


def teacher_lines(made: ImportedTeacher, folder: Path) -> list[str]:
    """What was imported, and the commands that use it."""
    network, images = made.network, made.images
    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    data = f"--data YOUR_IMAGES data.img_size={images.img_size}" + (" data.in_chans=1" if images.in_chans == 1 else "")
    name = network.architecture
    return [
        f"[bold]{escape(name)}[/bold]  {parameters:,} parameters  {len(images.classes)} classes  "
        f"mean {_numbers(network.contract.mean)}  std {_numbers(network.contract.std)}",
        f"folder   {escape(str(folder))}",
        *_names_line(made),
        "",
        "fine-tune it on your images first:",
        f"  hardray train-teacher {data} --model {escape(name)} teacher.checkpoint={escape(str(folder))} "
        "--output runs/teacher",
        "and then teach with it:",
        f"  hardray distill {data} teacher.model={escape(name)} teacher.checkpoint=runs/teacher/student "
        "student.model=STUDENT",
        "or teach with it as it is:",
        f"  hardray distill {data} teacher.model={escape(name)} teacher.checkpoint={escape(str(folder))} "
        "student.model=STUDENT",
    ]


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _names_line(made: ImportedTeacher) -> list[str]:
    if made.names is not None:
        return [f"classes  {escape(', '.join(made.names[:10]))}{', ...' if len(made.names) > 10 else ''}"]
    return [
        "[yellow]classes  not named: as a teacher its outputs are taken to be in the order of your classes; give "
        "--classes to have that checked[/yellow]"
    ]
