"""The results in a search's folder: all trials, the best configuration, a table and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hard_ray.config.layers import Layer
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.space import Search, SpaceConfig
from hard_ray.errors import RunFolderError, readable
from hard_ray.files import read_json, write_json, write_text
from hard_ray.reports.figures import save_png
from hard_ray.reports.search.importance import importance
from hard_ray.reports.search.plots import draw_history, draw_importance, draw_parallel, draw_pareto
from hard_ray.runs.markdown import markdown_table
from hard_ray.runs.search_folder import SearchFolder
from hard_ray.runs.summary import versions
from hard_ray.runs.trials import Goal, Ledger, Trial, TrialStatus


def write_results(
    folder: SearchFolder, search: Search, ledger: Ledger, *, status: str, identity: str | None, seconds: float
) -> dict[str, Any]:
    """Write `results.json`, which is returned, and of evaluated trials `best.yaml` and `leader_board.json`."""
    best = ledger.best
    results = {
        "status": status,
        "space": search.name,
        "metrics": {goal.metric: goal.mode for goal in ledger.goals},
        "best": best.id if best else None,
        "pareto": [trial.id for trial in ledger.front] if len(ledger.goals) > 1 else None,
        "seconds": seconds,
        "teacher_identity": identity,
        "versions": versions(),
        "trials": ledger.to_json(),
    }
    write_json(folder.results, results)
    if best is not None:
        write_text(folder.best_config, best_text(search, best))
        write_json(folder.leader_board, leader_board(ledger, search.space))
    return results


def best_text(search: Search, best: Trial) -> str:
    """The base configuration with a trial's settings, as a file that `hardray distill -c` takes."""
    measured = ", ".join(f"{name} {value:.4g}" for name, value in best.metrics.items() if name in search.space.metrics)
    settings = ", ".join(f"{key}={value}" for key, value in best.config.items())
    head = f"# The best of a search in {search.name}: trial {best.id}, {measured}.\n# {settings}\n"
    return head + dump_yaml(search.with_values(best.config))


def leader_board(ledger: Ledger, space: SpaceConfig) -> dict[str, list[Any]]:
    """The trials as a table, the best on top, those without a result at the bottom."""
    ranked = ledger.ranked
    rest = [trial for trial in ledger.trials.values() if trial not in ranked]
    metrics = [goal.metric for goal in ledger.goals]
    columns = ["trial", *metrics, *space.parameters, "epoch", "status", "seconds", "reason"]
    rows = [
        [
            trial.id,
            *(trial.metrics.get(name) for name in metrics),
            *(trial.config.get(key) for key in space.parameters),
            trial.metrics.get("epoch"),
            str(trial.status),
            round(trial.seconds, 1),
            (trial.reason or "").partition("\n")[0],
        ]
        for trial in [*ranked, *rest]
    ]
    return {"columns": columns, "data": rows}


def markdown(ledger: Ledger, space: SpaceConfig) -> str:
    """The leader board as Markdown, for the page of the MLflow run."""
    board = leader_board(ledger, space)
    return markdown_table(board["columns"], [[cell(value) for value in row] for row in board["data"]])


def cell(value: Any) -> str:
    """A value of the leader board as text; None is empty."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_plots(folder: SearchFolder, ledger: Ledger, space: SpaceConfig) -> dict[str, dict[str, float]]:
    """Draw the figures for which there are enough trials; gives the importance of each setting by metric."""
    ranked = ledger.ranked
    shares = {goal.metric: importance(ranked, space.parameters, goal) for goal in ledger.goals}
    if not ranked:
        return shares
    first = ledger.goals[0]
    save_png(draw_history(list(ledger.trials.values()), first), folder.path / "history.png")
    save_png(draw_parallel(ranked, space.parameters, first), folder.path / "parallel.png")
    if any(shares.values()):
        save_png(draw_importance(shares), folder.path / "importance.png")
    if len(ledger.goals) == 2:
        save_png(draw_pareto(ranked, ledger.front, ledger.goals), folder.path / "pareto.png")
    return shares


def read_ledger(folder: SearchFolder, goals: Sequence[Goal]) -> tuple[Ledger, Mapping[str, Any]]:
    """The trials of earlier starts, and the values of `results.json`; RunFolderError: the file is damaged."""
    try:
        results: Layer = read_json(folder.results, {})
        return Ledger.read(goals, results.get("trials", [])), results
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunFolderError(f"{folder.results} cannot be read ({readable(error)}); put a copy of it back") from None


def forget_lost(ledger: Ledger) -> None:
    """End the trials that a killed search began and Ray Tune did not record; call it after the search."""
    for trial in ledger.running:
        ledger.end(trial.id, TrialStatus.FAILED, "the search was killed as it began; another trial took its place")
