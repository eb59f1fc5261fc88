"""The logic of a search, with a runner of trials in this process in place of Ray."""

from __future__ import annotations

import functools
import json
import pickle
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils.serialization import TuneFunctionEncoder

from hard_ray.config.run import RunConfig, without_extras
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.space import Search, load_space
from hard_ray.data.sources.build import build_index
from hard_ray.errors import HardrayError, RunFolderError, StoppedError
from hard_ray.files import read_json, write_json
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.run.reporter import Reporter
from hard_ray.orchestration.search import ray_tune
from hard_ray.orchestration.search.driver import SearchDriver, resume, tune_space
from hard_ray.orchestration.search.left_groups import LeftGroups
from hard_ray.orchestration.search.listener import TrialListener
from hard_ray.orchestration.search.ray_tune import Ends, domain, forget_stopper, keep_keys_here, scheduler, searcher
from hard_ray.orchestration.search.trial import (
    Runner,
    TrialFailedError,
    TrialOrder,
    TrialRun,
    evaluation,
    state_of,
)
from hard_ray.runs.log import MetricsLog
from hard_ray.runs.place import Place
from hard_ray.runs.search_folder import SearchFolder, TrialFolder
from hard_ray.runs.trials import TrialStatus
from tests.support.helpers import run_here, tiny_config

SPACE = """
base: {config: base.yaml}
parameters:
  optim.lr: {loguniform: [0.01, 0.1]}
  optim.batch_size: {choice: [32, 64]}
trials: 5
"""


def make_search(folder: Path, text: str = SPACE, *overrides: str) -> Search:
    (folder / "base.yaml").write_text(dump_yaml(tiny_config("validate.every=0.25", *overrides)))
    (folder / "mine.yaml").write_text(text)
    return load_space(str(folder / "mine.yaml"))


def in_process(config: RunConfig, folder: TrialFolder, reporter: Reporter, place: Place) -> None:
    """Run a trial here, with a local teacher, as its run on Ray would."""
    folder.config.write_text(dump_yaml(config))
    run_here(config, folder.path)
    reporter.close()


def make_trial(folder: Path, runner: Runner = in_process, url: str | None = None, **values: object) -> TrialRun:
    base = without_extras(tiny_config("validate.every=0.25"))
    order = TrialOrder(base, "mine.yaml", folder, None, None, None, DataShare(1, 1e8), url)
    return TrialRun(order, "t0", {"optim.lr": 0.02, **values}, build_index(base.data), runner)


# -------------------------------------------------------------------------- a trial


def test_a_trial_reports_each_evaluation_and_the_last_comes_with_its_end(tmp_path: Path):
    trial = make_trial(tmp_path)
    results = []
    while not results or not results[-1].get("done"):
        results.append(trial.next())
    assert [set(result) >= {"val/top1", "val/loss", "step", "epoch"} for result in results] == [True] * len(results)
    assert [result["step"] for result in results] == sorted(result["step"] for result in results)
    assert len(results) >= 2
    assert not any(result.get("done") for result in results[:-1])
    assert trial.folder.is_finished
    assert not [key for result in results for key in result if key.startswith(("test/", "ood/"))]


def test_the_epoch_of_an_evaluation_is_counted_in_updates():
    point = {"kind": "val", "step": 79, "student_step": 70, "epoch": 1.975, "time": 0.0, "val/top1": 50, "lr": 1}
    assert evaluation(point, 40) == {"val/top1": 50.0, "step": 79, "epoch": 1, "student_step": 70}


def test_a_trials_settings_lie_above_the_base_and_stay_after_a_resume(tmp_path: Path):
    trial = make_trial(tmp_path, **{"optim.batch_size": 16})
    config = trial._config()
    assert (config.optim.lr, config.optim.batch_size, config.experiment.controls) == (0.02, 16, ())
    trial.folder.path.mkdir(parents=True)
    trial.folder.config.write_text(dump_yaml(config))
    assert make_trial(tmp_path, **{"optim.batch_size": 64})._config().optim.batch_size == 16


def test_controls_and_final_suites_are_left_out_of_trials():
    config = tiny_config("experiment.controls=[kd]", "validate.final=[shifts]")
    left = without_extras(config)
    assert (left.experiment.controls, left.validation.final) == ((), ())
    assert left.optim == config.optim


@pytest.mark.parametrize(
    ("error", "reason"), [(HardrayError("no GPU"), "no GPU"), (ValueError("bad shape"), "ValueError: bad shape")]
)
def test_a_trial_that_fails_says_why(tmp_path: Path, error: Exception, reason: str):
    def fail(*_: object) -> None:
        raise error

    trial = make_trial(tmp_path, fail)
    with pytest.raises(TrialFailedError, match=reason):
        trial.next()
    assert state_of(trial.folder) == ("failed", reason)


def test_settings_that_cannot_be_used_together_fail_the_trial_alone(tmp_path: Path):
    trial = make_trial(tmp_path, **{"optim.batch_size": -1})
    with pytest.raises(TrialFailedError, match=r"optim\.batch_size"):
        trial.next()


def until_asked_to_stop(config, folder: TrialFolder, reporter, place) -> None:
    """A run of one evaluation that then waits for a request to stop."""
    point = {"kind": "val", "step": 3, "student_step": 3, "epoch": 0, "time": 0.0, "val/top1": 50.0}
    MetricsLog(folder.metrics).append(point)
    while not folder.stop_request.exists():
        reporter.watch(())
        time.sleep(0.01)
    raise StoppedError("stopped, with a checkpoint")


def test_a_trial_that_is_ended_early_is_asked_to_write_a_checkpoint(tmp_path: Path):
    trial = make_trial(tmp_path, until_asked_to_stop)
    assert trial.next()["val/top1"] == 50.0
    assert trial.stop(patience_s=20)
    assert trial.folder.stop_request.exists()


def test_a_trial_rests_when_the_search_is_asked_to_stop(tmp_path: Path):
    trial = make_trial(tmp_path, until_asked_to_stop)
    trial.next()
    trial.search.stop_request.touch()
    waiting = threading.Thread(target=trial.next, daemon=True)
    waiting.start()
    end = time.monotonic() + 20
    while state_of(trial.folder)[0] != "resting" and time.monotonic() < end:
        time.sleep(0.01)
    assert state_of(trial.folder) == ("resting", None)
    assert waiting.is_alive()
    trial.search.stop_request.unlink()
    waiting.join(20)
    assert not waiting.is_alive()


# ------------------------------------------------------------------------- a search


class NoGroups(LeftGroups):
    """Of a process without Ray, which asking for its groups would start."""

    def sweep(self) -> list[str]:
        return []


class FakeTune:
    """Drives a listener as Tune would: trials one after the other, by a table of what each does."""

    def __init__(self, driver: SearchDriver) -> None:
        left, changed = NoGroups([], "none"), functools.partial(driver.changed, None)
        self.listener = TrialListener(driver.search.space, driver.folder, driver.ledger, left, driver.say, changed)
        self.folder = driver.folder

    def run(self, name: str, *evaluations: dict[str, float], error: str | None = None, ends: bool = True) -> bool:
        """A trial; whether the search goes on after it."""
        self.listener.began(name, {"optim.lr": 0.02, "optim.batch_size": 32})
        for result in evaluations:
            self.listener.evaluated(name, {**result, "training_iteration": 1, "trial_id": name})
            if self.listener.reached(name, result):
                break
        else:
            if error is None and ends:
                self.folder.trial(name).path.mkdir(parents=True, exist_ok=True)
                write_json(self.folder.trial(name).outcome, {"status": "finished"})
        if error is None:
            self.listener.ended(name)
        else:
            self.listener.failed(name, error)
        return not self.listener.is_hopeless()


def make_driver(folder: Path, text: str = SPACE) -> tuple[SearchDriver, list[str]]:
    search, said = make_search(folder, text), []
    return SearchDriver(search, build_index(search.base.data), SearchFolder(folder / "s"), said.append), said


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir()
    return tmp_path


def test_a_search_writes_down_how_each_trial_ended(place: Path):
    driver, said = make_driver(place, SPACE + "stop: {epoch: 3}\n")
    fake = FakeTune(driver)
    assert fake.run("a", {"val/top1": 50.0, "epoch": 1}, {"val/top1": 60.0, "epoch": 2})
    assert fake.run("b", {"val/top1": 70.0, "epoch": 3}, {"val/top1": 99.0, "epoch": 4})
    assert fake.run("c", {"val/top1": 10.0, "epoch": 1}, ends=False)
    assert fake.run("d", error="the last line of a traceback")
    trials = driver.ledger.trials
    assert [str(trial.status) for trial in trials.values()] == ["finished", "stopped", "stopped", "failed"]
    assert trials["a"].metrics == {"val/top1": 60.0, "epoch": 2}
    assert trials["b"].reason == "epoch reached 3, at epoch 3"
    assert trials["c"].reason == "behind others, at epoch 1"
    assert trials["d"].reason == "the last line of a traceback"
    assert driver.ledger.best.id == "b"
    assert read_json(driver.folder.results)["best"] == "b"
    assert "trial 1/5 (a) starts: optim.lr=0.02 optim.batch_size=32" in said
    assert "trial 2/5 (b) stopped: epoch reached 3, at epoch 3  val/top1 70" in said


def test_a_falling_metric_stops_a_trial_when_it_is_low_enough(place: Path):
    driver, _ = make_driver(place, SPACE + "metric: val/loss\nstop: {val/loss: 0.5}\n")
    listener = FakeTune(driver).listener
    assert not listener.reached("a", {"val/loss": 0.6})
    assert listener.reached("a", {"val/loss": 0.5})


def test_the_reason_is_what_the_trials_process_said(place: Path):
    driver, _ = make_driver(place)
    folder = driver.folder.trial("a")
    folder.path.mkdir(parents=True)
    write_json(folder.note, {"state": "failed", "reason": "no GPU"})
    FakeTune(driver).run("a", error="RuntimeError: something of Ray's")
    assert driver.ledger.trials["a"].reason == "no GPU"


def test_one_trial_that_fails_ends_nothing_and_three_alike_end_the_search(place: Path):
    driver, _ = make_driver(place)
    fake = FakeTune(driver)
    assert fake.run("a", error="no GPU")
    assert fake.run("b", error="no GPU")
    assert not fake.run("c", error="no GPU")
    with pytest.raises(HardrayError, match="the first trials all failed the same way, so the search ended: no GPU"):
        driver._judge(fake.listener)


def test_a_search_without_any_result_says_why(place: Path):
    driver, _ = make_driver(place)
    fake = FakeTune(driver)
    fake.run("a", error="no GPU")
    fake.run("b", error="out of memory")
    with pytest.raises(HardrayError, match="no trial was evaluated: .*(no GPU|out of memory)"):
        driver._judge(fake.listener)


def test_a_resumed_search_knows_the_trials_before(place: Path):
    driver, _ = make_driver(place)
    FakeTune(driver).run("a", {"val/top1": 60.0, "epoch": 2})
    driver.ledger.begin("b", {"optim.lr": 0.03, "optim.batch_size": 64})
    driver._write("stopped")
    again, _ = make_driver(place)
    assert [(trial.id, trial.status) for trial in again.ledger.trials.values()] == [
        ("a", TrialStatus.FINISHED),
        ("b", TrialStatus.RUNNING),
    ]
    FakeTune(again).run("b", {"val/top1": 65.0, "epoch": 2})
    assert again.ledger.best.id == "b"


def test_a_search_that_was_asked_to_stop_waits_until_trials_rest(place: Path, monkeypatch: pytest.MonkeyPatch):
    raised = []
    monkeypatch.setattr("signal.raise_signal", raised.append)
    driver, _ = make_driver(place)
    listener = FakeTune(driver).listener
    listener.began("a", {"optim.lr": 0.02, "optim.batch_size": 32})
    listener.tick()
    driver.folder.stop_request.touch()
    listener.tick()
    assert not listener.interrupted
    folder = driver.folder.trial("a")
    folder.path.mkdir(parents=True)
    write_json(folder.note, {"state": "resting"})
    listener.tick()
    listener.tick()
    assert listener.interrupted
    assert len(raised) == 1
    assert not driver.folder.stop_request.exists()
    listener.ended("a")  # Tune ends its process; the trial goes on after a resume
    assert driver.ledger.trials["a"].status is TrialStatus.RUNNING
    with pytest.raises(StoppedError, match="continue with `hardray tune --resume"):
        driver._judge(listener)


def test_a_folder_that_holds_a_search_is_not_overwritten(place: Path):
    search = make_search(place)
    folder = SearchFolder(place / "s")
    folder.config.write_text("base: {}")
    with pytest.raises(RunFolderError, match="holds a search already; continue it with `hardray tune --resume"):
        tune_space(search, folder.path)
    with pytest.raises(RunFolderError, match="holds no search"):
        resume(place)


# ---------------------------------------------------------------------- Tune's words


def test_distributions_stay_within_their_ends_in_tunes_words(tmp_path: Path):
    text = """
base: {preset: digits}
parameters:
  augmentor.strength: {uniform: [0.25, 0.5]}
  optim.lr: {loguniform: [0.001, 0.1]}
  augmentor.max_rotation: {quniform: [10, 30, 5]}
  optim.batch_size: {randint: [31, 33]}
  augmentor.hidden_dim: {lograndint: [8, 10]}
  optim.sched: {choice: [cosine, constant]}
"""
    (tmp_path / "all.yaml").write_text(text)
    space = load_space(str(tmp_path / "all.yaml")).space
    drawn = {key: {domain(kind, grid=False).sample() for _ in range(300)} for key, kind in space.parameters.items()}
    assert all(0.25 <= value <= 0.5 for value in drawn["augmentor.strength"])
    assert all(0.001 <= value <= 0.1 for value in drawn["optim.lr"])
    assert drawn["augmentor.max_rotation"] == {10, 15, 20, 25, 30}
    assert drawn["optim.batch_size"] == {31, 32, 33}
    assert drawn["augmentor.hidden_dim"] == {8, 9, 10}
    assert drawn["optim.sched"] == {"cosine", "constant"}
    assert domain(space.parameters["optim.sched"], grid=True) == {"grid_search": ["cosine", "constant"]}


def test_asha_decides_by_the_epoch_that_hardray_reports(tmp_path: Path):
    space = make_search(tmp_path, SPACE + "grace_epochs: 2\nreduction_factor: 3\nstop: {epoch: 30}\n").space
    made = scheduler(space, epochs=100)
    assert isinstance(made, ASHAScheduler)
    assert (made._time_attr, made._max_t, made._reduction_factor) == ("epoch", 30, 3)
    assert scheduler(space.model_copy(update={"scheduler": "none"}), epochs=100) is None
    short = space.model_copy(update={"stop": {}, "grace_epochs": 9})
    assert scheduler(short, epochs=2.5)._max_t == 10


def test_each_search_is_tunes(tmp_path: Path):
    space = make_search(tmp_path).space
    limited = searcher(space).searcher
    assert isinstance(limited.searcher, OptunaSearch)
    assert limited.max_concurrent == space.concurrency
    several = searcher(space.model_copy(update={"metric": ("val/top1", "val/loss")})).searcher.searcher
    assert (several.metric, several._mode) == (["val/top1", "val/loss"], ["max", "min"])
    assert isinstance(searcher(space.model_copy(update={"search": "random"})), BasicVariantGenerator)


# -------------------------------------------------------------------- Tune's saved state


def test_tune_saves_no_code_of_hardray():
    state = {"_stopper": Ends(None), "trial_dirname_creator": ray_tune._name_of}  # type: ignore[arg-type]
    saved = json.loads(json.dumps(state, cls=TuneFunctionEncoder))
    for pickled in (bytes.fromhex(part["value"]) for part in saved.values()):
        assert b"hard_ray" not in pickled


def test_what_hardray_0_1_saved_is_found():
    name_of = pickle.loads(b"\x80\x04chard_ray.orchestration.tuner\n_name_of\n.")
    assert name_of(SimpleNamespace(trial_id="5cdd0ca1")) == "5cdd0ca1"


def test_a_saved_stopper_gives_way_to_that_of_the_resumed_search(tmp_path: Path):
    assert not forget_stopper(tmp_path)
    for day in (1, 2):
        write_json(tmp_path / f"experiment_state-2026-01-0{day}.json", {"runner_data": {"_stopper": "old", "a": day}})
    assert forget_stopper(tmp_path)
    assert read_json(tmp_path / "experiment_state-2026-01-02.json") == {"runner_data": {"a": 2}}


def test_no_key_of_the_driver_is_sent_with_a_trial():
    keep_keys_here()
    assert not [name for name in class_cache.ENV_VARS_TO_PROPAGATE if "KEY" in name or "TOKEN" in name]
    assert class_cache.ENV_VARS_TO_PROPAGATE  # what Ray Train needs still travels
