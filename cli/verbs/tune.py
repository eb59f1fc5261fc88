"""`hardray tune`: searches settings, or prints the plan of a search."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from hard_ray.errors import command_line

from ..dry_run import tried_lines
from ..mlflow_line import mlflow_line
from ..options import Continue, DryRun, Overrides, Teacher, given_output, path_or_url, shorthands, shown
from ..tables import print_table
from ..terminal import console, print_heading, print_lines, print_pairs, say, usage_error

if TYPE_CHECKING:
    from hard_ray.config.space import Search
    from hard_ray.orchestration.search.driver import SearchResult


def tune(
    overrides: Overrides = None,
    space: Annotated[
        str | None, typer.Option(help="YAML file, its URL, or the name of a shipped space such as digits.yaml.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder, or a URL such as s3://BUCKET/NAME; by default runs/tune-SPACE-TIME.", parser=path_or_url
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Resume the search in this folder or at this URL; --space may have more trials than it began with.",
            parser=path_or_url,
        ),
    ] = None,
    teacher: Teacher = None,
    data: Annotated[Path | None, typer.Option(help="Short for data.path=...", parser=path_or_url)] = None,
    dry_run: DryRun = False,
    continues: Continue = False,
) -> None:
    """Search the settings of a distillation.

    Trials share one teacher pool. KEY=VALUE overrides apply to the space's base configuration.
    """
    from hard_ray import api
    from hard_ray.config.run import without_extras
    from hard_ray.config.space import load_space, space_names

    if resume is not None and (output or dry_run or continues or (space is None and (overrides or teacher or data))):
        raise usage_error(
            "--resume takes the space from the folder; give nothing else, or --space with the options it began with"
        )
    if resume is not None and space is None:
        _print_result(api.resume_tune(resume, say=say))
        return
    if space is None:
        raise usage_error(f"give --space FILE, or one of the shipped spaces: {', '.join(space_names())}")
    # `data.kind` is set in the space's base configuration
    search = load_space(space, [*shorthands(teacher=teacher, data=data), *(overrides or [])])
    if resume is not None:
        _print_result(api.resume_tune(resume, search=search, say=say))
        return
    if dry_run:
        where = [] if output is None else [("output", planned_output(output, continues=continues))]
        print_pairs([*plan_lines(search), *where, mlflow_line(search.base.tracking, output)])
        print_pairs(tried_lines(without_extras(search.base)))
        return
    stamped = Path("runs") / f"tune-{search.name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = given_output(output, continues=continues) or stamped
    print_heading("tune", shown(folder))
    if continues and _holds_search(folder):
        _print_result(api.resume_tune(folder, search=search, say=say))
    else:
        _print_result(api.tune(search, folder, say=say))


def _holds_search(output: Path) -> bool:
    from hard_ray.runs.search_folder import holds_search

    return holds_search(output)


def planned_output(output: Path, *, continues: bool) -> str:
    """Where a search would go; RunFolderError: there is one already, and it is not to be continued."""
    from hard_ray.runs.place import check_new_output
    from hard_ray.runs.search_folder import SEARCH, holds_search

    if continues and holds_search(output):
        return f"{shown(output)}, which holds a search that goes on"
    check_new_output(output, SEARCH)
    return f"{shown(output)}, each trial in trials/ID below it"


def plan_lines(search: Search) -> list[tuple[str, str]]:
    """The plan, as pairs of a heading and a text."""
    from hard_ray.orchestration.cluster.demand import amounts, demand

    space, base, runtime = search.space, search.base, search.base.runtime
    concurrency = min(space.concurrency, space.count)
    needed = demand(runtime, trials=concurrency)
    return [
        ("space", search.source),
        ("base", f"{base.teacher.model} teaches {base.student.model} on {base.data.kind}, {base.objective.kind}"),
        *(("parameter", f"{key}: {drawn}") for key, drawn in space.parameters.items()),
        ("search", _search(search)),
        ("metric", ", ".join(f"{name} ({mode})" for name, mode in zip(space.metrics, space.modes, strict=True))),
        ("scheduler", _scheduler(search)),
        ("trials", f"{space.count}, {concurrency} at a time, {_length(search)} each"),
        ("a trial", _trial(search)),
        ("teacher", _pool(search)),
        ("Ray Data", f"{amounts(needed.parts['Ray Data'])}, shared by the running trials"),
        ("cluster", f"needs {amounts(needed.total)} in all{_gpu_note(search)}"),
    ]


def _search(search: Search) -> str:
    names = {"optuna": "Optuna, TPE", "random": "at random", "grid": "every combination"}
    return f"{names[search.space.search]}, seed {search.space.seed}"


def _scheduler(search: Search) -> str:
    space = search.space
    stops = ", ".join(f"{name} {value:g}" for name, value in space.stop.items())
    ends = f"; a trial ends at {stops}" if stops else ""
    if space.scheduler == "none":
        return f"none: every trial runs to its end{ends}"
    return (
        f"{space.scheduler}: {space.grace_epochs} epochs for every trial, then one in {space.reduction_factor} goes on"
        f"{ends}"
    )


def _length(search: Search) -> str:
    optim = search.base.optim
    return f"{optim.steps:,} updates" if optim.steps is not None else f"{optim.epochs:g} epochs"


def _trial(search: Search) -> str:
    from hard_ray.orchestration.cluster.demand import TRIAL_CPUS, amounts

    runtime = search.base.runtime
    workers = f"{runtime.num_workers} student worker{'s' if runtime.num_workers > 1 else ''}"
    each = {"CPU": runtime.cpus_per_worker, "GPU": runtime.gpus_per_worker or 0.0}
    return f"{workers} of {amounts(each)}; its driver {TRIAL_CPUS:g} CPU"


def _pool(search: Search) -> str:
    from hard_ray.orchestration.cluster.demand import amounts

    config, pool = search.base.teacher, search.base.runtime.teacher
    note = "" if config.has_weights else "; without weights: trained once, before the trials"
    if pool.placement == "colocated":
        return f"{config.model}, a copy in every student worker{note}"
    each = {"CPU": pool.num_cpus, "GPU": pool.num_gpus or 0.0}
    replicas = f"{pool.replicas} replica{'s' if pool.replicas > 1 else ''} of {amounts(each)}"
    return f"{config.model}, one pool for all trials: {replicas}{note}"


def _gpu_note(search: Search) -> str:
    if search.base.runtime.gpus_per_worker is not None:
        return ""
    return "; where it has GPUs, one more for every worker and replica, or a shared one"


def _print_result(result: SearchResult) -> None:
    console.print()
    print_board(console, result.board, result.results)
    print_lines(result_lines(result))


def print_board(to: Console, board: dict[str, list[Any]], results: dict[str, Any]) -> None:
    """Print the leader board; the best trial is bold, or with several metrics the Pareto-optimal ones."""
    from hard_ray.reports.search.results import cell

    metrics = ", ".join(f"{name} ({mode})" for name, mode in results["metrics"].items())
    columns = board["columns"][:-1]  # the reason of a failure is printed below the table
    rows = [[cell(value) for value in row[: len(columns)]] for row in board["data"]]
    chosen = results["pareto"] or [results["best"]]
    bold = [place for place, row in enumerate(board["data"]) if row[0] in chosen]
    print_table(to, f"trials by {metrics}", columns, rows, bold=bold, left=("status",))


def result_lines(result: SearchResult) -> list[str]:
    """Lines below the table: failures, the settings that mattered, and where the files are."""
    from hard_ray.storage.mirror import shown_path

    lines = [
        f"[yellow]trial {escape(trial['id'])} failed: {escape(trial['reason'])}[/yellow]"
        for trial in result.results["trials"]
        if trial["status"] == "failed"
    ]
    for metric, shares in result.importance.items():
        if shares:
            said = ", ".join(f"{key} {100 * share:.0f} %" for key, share in shares.items())
            lines.append(f"matters  {escape(said)} of the variance of {escape(metric)}")
    folder = result.folder
    lines.append(f"search   {escape(shown_path(folder))}")
    lines.append(f"best     {escape(command_line('distill', '-c', shown_path(folder / 'best.yaml')))}")
    if result.tracking_problem is not None:
        problem, command = escape(result.tracking_problem), escape(command_line("sync", shown_path(folder)))
        lines.append(f"[yellow]MLflow lacks a part of the search ({problem}); send it with: {command}[/yellow]")
    return lines
