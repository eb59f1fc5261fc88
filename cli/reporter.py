"""Lines about a run on the console: its progress, and its results at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from hard_ray.errors import command_line

from .tables import print_table
from .terminal import console, print_lines, say

if TYPE_CHECKING:
    from hard_ray.config.run import RunConfig
    from hard_ray.orchestration.run.driver import RunResult
    from hard_ray.orchestration.run.plan import RunPlan
    from hard_ray.runs.log import LogTail

LINE_EVERY_S = 5.0


class ConsoleReporter:
    """Prints a line for each evaluation, and one every few seconds in between."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._tails: dict[Path, LogTail] = {}
        self._evaluations: set[tuple[Path, int, float]] = set()
        self._printed = 0.0
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Print a sentence."""
        self._print(escape(text))

    def _print(self, text: str) -> None:
        print_lines([text], self.console)

    def watch(self, plans: Iterable[RunPlan]) -> None:
        """Print the points that the trainings have logged since the last call."""
        from hard_ray.runs.folder import RunFolder
        from hard_ray.runs.log import LogTail

        for plan in plans:
            latest = None
            tail = self._tails.setdefault(plan.folder, LogTail())
            for point in tail.read(RunFolder(plan.folder).metrics):
                if point["kind"] == "val" and self._is_new(plan, point):
                    self._line(plan, point)
                elif point["kind"] == "note" and self._is_new(plan, point):
                    self.say(f"{plan.name}: {point['text']}")
                elif point["kind"] == "train":
                    latest = point
            tail.advance()
            if latest is not None and time.monotonic() - self._printed > LINE_EVERY_S:
                self._line(plan, latest)

    def close(self) -> None:
        """Do nothing: no file stays open between two calls of `watch`."""

    def _line(self, plan: RunPlan, point: dict[str, Any]) -> None:
        self._printed = time.monotonic()
        elapsed = time.monotonic() - self._started
        head = f"[dim]{elapsed:5.0f}s[/dim]  {escape(plan.name):<16} update {point['step']:>6}"
        parts = _validation(point) if point["kind"] == "val" else _training(point)
        self._print(f"{head}  {'  '.join(parts)}")

    def _is_new(self, plan: RunPlan, point: dict[str, Any]) -> bool:
        """Whether this evaluation is to be printed: a log that a resume cut is read again from its start."""
        key = (plan.folder, point["step"], point["time"])
        is_new = key not in self._evaluations
        self._evaluations.add(key)
        return is_new


def _training(point: dict[str, Any]) -> list[str]:
    names = {"train/loss": "loss", "train/kd_loss": "kd", "train/disagreement": "disagreement"}
    names |= {"train/top1": "top1", "train/agreement": "agreement"}
    parts = [f"{short} {point[name]:.3g}" for name, short in names.items() if name in point]
    return [*parts, f"{point['throughput/images_per_s']:,.0f} images/s"]


def _validation(point: dict[str, Any]) -> list[str]:
    from hard_ray.runs.scores import logged_measure, logged_scores, short

    what = {"top1": ""}.get(measure := logged_measure([point]), f" {short(measure)}")
    names = logged_scores([point]).values()
    return [f"[bold]{name.removesuffix(f'/{measure}')}{what} {point[name]:.1f} %[/bold]" for name in names]


def print_results(summary: dict[str, Any], config: RunConfig, *, role: str | None = None) -> None:
    """Print the scores of teacher, controls and student on each suite; `role` renames the last row."""
    from hard_ray.runs.summary import heading, models_table

    header, body = models_table(summary["models"], config)
    body[-1][0] = role or body[-1][0]
    print_table(console, f"{heading(summary)} on the {summary['split']} split, %", header, body, bold=(len(body) - 1,))


def run_to_end(start: Callable[[ConsoleReporter], RunResult], *, role: str | None = None) -> RunResult:
    """Make a run by `start`, which calls the reporter, and print its progress, results and files."""
    from hard_ray.runs.folder import RunFolder
    from hard_ray.storage.mirror import shown_path

    result = start(ConsoleReporter(console))
    console.print()
    print_results(result.summary, result.config, role=role)
    say(f"run      {shown_path(result.folder)}")
    pictures = RunFolder(result.folder).pictures
    if pictures:
        say(f"gallery  {pictures[-1]}")
    if result.tracking_problem is not None:
        problem, command = escape(result.tracking_problem), escape(command_line("sync", result.folder))
        print_lines([f"[yellow]MLflow lacks a part of the run ({problem}); send it with: {command}[/yellow]"])
    elif result.tracking_uri is not None:
        say(f"MLflow   {command_line('ui', '--runs', result.folder.parent)}")
    return result
