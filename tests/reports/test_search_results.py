"""What a search leaves in its folder."""

from pathlib import Path

import pytest
import yaml

from hard_ray.config.loader import load_config
from hard_ray.config.space import Search, load_space
from hard_ray.errors import RunFolderError
from hard_ray.files import read_json
from hard_ray.orchestration.search.ray_tune import goals
from hard_ray.reports.search.results import draw_plots, forget_lost, leader_board, markdown, read_ledger, write_results
from hard_ray.runs.search_folder import SearchFolder
from hard_ray.runs.trials import Ledger, TrialStatus

SPACE = """
base: {preset: digits, overrides: {optim.steps: 70}}
parameters:
  augmentor.strength: {uniform: [0, 1]}
  optim.sched: {choice: [cosine, constant]}
"""
TRIALS = {
    "a": ({"augmentor.strength": 0.2, "optim.sched": "cosine"}, 80.0),
    "b": ({"augmentor.strength": 0.9, "optim.sched": "constant"}, 85.0),
    "c": ({"augmentor.strength": 0.5, "optim.sched": "cosine"}, 82.0),
    "d": ({"augmentor.strength": 0.6, "optim.sched": "constant"}, 84.0),
}


@pytest.fixture
def search(tmp_path: Path) -> Search:
    path = tmp_path / "mine.yaml"
    path.write_text(SPACE)
    return load_space(str(path))


def ledger_of(search: Search) -> Ledger:
    ledger = Ledger(goals(search.space))
    for name, (config, top1) in TRIALS.items():
        ledger.begin(name, config, now=0.0)
        ledger.report(name, {"val/top1": top1, "val/loss": 100 - top1, "epoch": 3, "step": 60})
        ledger.end(name, TrialStatus.FINISHED, now=5.0)
    ledger.begin("e", {"augmentor.strength": 0.1, "optim.sched": "cosine"})
    ledger.end("e", TrialStatus.FAILED, "no GPU\nin this machine")
    return ledger


def test_the_best_configuration_is_the_base_with_the_best_settings(search: Search, tmp_path: Path):
    folder = SearchFolder(tmp_path)
    write_results(folder, search, ledger_of(search), status="finished", identity="abc", seconds=9.0)
    best = load_config([folder.best_config])
    assert best == search.with_values(TRIALS["b"][0])
    assert (best.augmentor.strength, best.optim.sched, best.optim.steps) == (0.9, "constant", 70)
    assert best.experiment.controls == ("labels_only", "kd")  # trials leave them out, the base has them
    head = folder.best_config.read_text().splitlines()[:2]
    assert head[0] == "# The best of a search in mine: trial b, val/top1 85."
    assert head[1] == "# augmentor.strength=0.9, optim.sched=constant"


def test_results_say_everything_of_every_trial_and_go_on_from_there(search: Search, tmp_path: Path):
    folder, ledger = SearchFolder(tmp_path), ledger_of(search)
    write_results(folder, search, ledger, status="running", identity="abc", seconds=9.0)
    results = read_json(folder.results)
    assert (results["best"], results["pareto"], results["status"]) == ("b", None, "running")
    assert results["metrics"] == {"val/top1": "max"}
    assert set(results["trials"][0]) == {"id", "config", "status", "metrics", "seconds", "reason"}
    assert results["trials"][4]["reason"] == "no GPU\nin this machine"
    again, before = read_ledger(folder, ledger.goals)
    assert again.to_json() == ledger.to_json()
    assert (before["teacher_identity"], before["seconds"]) == ("abc", 9.0)
    assert read_ledger(SearchFolder(tmp_path / "new"), ledger.goals)[0].trials == {}
    for damaged in ("{", "[]", '{"trials": [{"odd": 1}]}'):
        folder.results.write_text(damaged)
        with pytest.raises(RunFolderError, match=r"results.json cannot be read \(.*\); put a copy of it back"):
            read_ledger(folder, ledger.goals)


def test_the_leader_board_has_the_best_on_top_and_failures_at_the_bottom(search: Search):
    board = leader_board(ledger_of(search), search.space)
    assert board["columns"][:4] == ["trial", "val/top1", "augmentor.strength", "optim.sched"]
    assert [row[0] for row in board["data"]] == ["b", "d", "c", "a", "e"]
    assert board["data"][0] == ["b", 85.0, 0.9, "constant", 3, "finished", 5.0, ""]
    assert board["data"][-1][1:2] + board["data"][-1][-3::2] == [None, "failed", "no GPU"]
    table = markdown(ledger_of(search), search.space).splitlines()
    assert table[2] == "| b | 85 | 0.9 | constant | 3 | finished | 5 |  |"


def test_a_trade_off_names_every_trial_that_none_beats(search: Search, tmp_path: Path):
    several = search.space.model_copy(update={"metric": ("val/top1", "val/loss"), "scheduler": "none"})
    two = Search(several, search.base, search.source)
    ledger = Ledger(goals(several), ledger_of(search).trials.values())
    ledger.trials["a"].metrics["val/loss"] = 1.0
    results = write_results(SearchFolder(tmp_path), two, ledger, status="finished", identity=None, seconds=0.0)
    assert results["pareto"] == ["b", "a"]
    draw_plots(SearchFolder(tmp_path), ledger, several)
    assert "pareto.png" in {path.name for path in SearchFolder(tmp_path).plots}


def test_figures_are_drawn_of_what_there_is(search: Search, tmp_path: Path):
    folder = SearchFolder(tmp_path)
    assert draw_plots(folder, Ledger(goals(search.space)), search.space) == {"val/top1": {}}
    assert folder.plots == []
    shares = draw_plots(folder, ledger_of(search), search.space)["val/top1"]
    assert set(shares) == {"augmentor.strength", "optim.sched"}
    assert {path.name for path in folder.plots} == {"history.png", "importance.png", "parallel.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.plots)


def test_trials_that_tune_forgot_are_no_longer_running(search: Search):
    ledger = ledger_of(search)
    ledger.begin("f", {})
    forget_lost(ledger)
    assert ledger.running == []
    assert "another trial took its place" in ledger.trials["f"].reason


def test_a_saved_space_loads_from_its_folder(search: Search, tmp_path: Path):
    from hard_ray.config.safe_yaml import dump_yaml
    from hard_ray.config.space import Base

    folder = SearchFolder(tmp_path)
    folder.base.write_text(dump_yaml(search.base))
    folder.config.write_text(dump_yaml(search.space.model_copy(update={"base": Base(config=Path("base.yaml"))})))
    again = load_space(str(folder.config))
    assert again.base == search.base
    assert again.space.parameters == search.space.parameters
    assert yaml.safe_load(folder.config.read_text())["base"]["config"] == "base.yaml"
