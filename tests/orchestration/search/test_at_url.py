"""Searches whose output is a URL: the bucket has all of it, and any machine goes on with it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from hard_ray.config.space import load_space
from hard_ray.errors import RunFolderError
from hard_ray.files import read_json, write_json
from hard_ray.orchestration.run import own_copy
from hard_ray.orchestration.search import at_url
from hard_ray.orchestration.search.at_url import Keeper, SearchStop, is_quiet
from hard_ray.orchestration.search.driver import resume, tune_space
from hard_ray.orchestration.search.left_groups import Holder, LeftGroups
from hard_ray.orchestration.search.listener import TrialListener
from hard_ray.orchestration.search.trial import state_of
from hard_ray.runs.place import new_place
from hard_ray.runs.search_folder import SEARCH, SearchFolder, search_at
from hard_ray.runs.trials import TrialStatus
from hard_ray.storage import lock, objects
from hard_ray.storage.address import Remote
from hard_ray.storage.mirror import Mirror, working_copy
from tests.cli.commands import invoke
from tests.orchestration.commands import succeed, write_config
from tests.orchestration.search.test_tune import in_process, make_driver, make_search, make_trial
from tests.support.helpers import assert_equal_bits, student_weights


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE_S", 0.05)
    monkeypatch.setattr(at_url, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(at_url, "LOOK_FOR_STOP_S", 0.05)
    monkeypatch.setattr(own_copy, "LOOK_EVERY_S", 0.05)


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Go to another machine, by its name."""

    def go(machine: str) -> Path:
        monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / machine))
        return tmp_path / machine

    return go


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket/searches/birds"


def wait(ready, what: str) -> None:
    end = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_a_trial_at_a_url_is_the_working_copy_of_its_own_url(on, url: str, tmp_path: Path):
    assert SearchFolder(tmp_path).trial("t0").path == tmp_path / "trials" / "t0"
    assert SearchFolder(tmp_path).trial("t0").tracking == tmp_path / "trials" / "t0" / "tracking.json"
    here = on("driver")
    search = SearchFolder.at(url)
    trial = search.trial("t0")
    assert trial.path == working_copy(Remote.parse(f"{url}/trials/t0"))
    assert trial.path.is_relative_to(here)
    assert not trial.path.is_relative_to(search.path)
    assert trial.url == f"{url}/trials/t0"
    assert trial.tracking.parent == search.path  # the driver alone writes it, and sends it with the search
    assert on("worker") in SearchFolder.at(url).trial("t0").path.parents


def test_options_of_the_url_stay_with_its_trials(on):
    on("driver")
    trial = SearchFolder.at("s3://b/x?region=eu-west-1").trial("t0")
    assert trial.url == "s3://b/x/trials/t0?region=eu-west-1"


def test_a_folder_in_the_cache_is_known_as_the_copy_of_its_url(on, url: str, tmp_path: Path):
    on("driver")
    make_search(tmp_path)
    with new_place(Path(url), print, SEARCH) as place:
        for name in ("space.yaml", "base.yaml"):
            place.folder.mkdir(parents=True, exist_ok=True)
            (place.folder / name).write_text("x: 1\n")
        place.send()
        found = search_at(place.folder)
    assert found is not None
    assert found.url == url


def test_a_url_that_holds_a_search_is_refused_with_the_command_that_continues_it(on, url: str, tmp_path: Path):
    on("driver")
    search = make_search(tmp_path)
    with new_place(Path(url), print, SEARCH) as place:
        place.folder.mkdir(parents=True, exist_ok=True)
        (place.folder / "manifest").write_text("x")
        place.send()
    with pytest.raises(RunFolderError, match="holds a search already; continue it with `hardray tune --resume file:"):
        tune_space(search, Path(url))
    with pytest.raises(RunFolderError, match="holds no search"):
        resume(Path(url))
    space = str(tmp_path / "mine.yaml")
    done = invoke("tune", "--space", space, "--output", url, "--dry-run")
    assert done.exit_code == 1
    assert "holds a search already" in " ".join(done.stderr.split())
    assert load_space(space).name == search.name


def test_a_dry_run_says_where_the_search_goes(on, url: str, tmp_path: Path):
    on("driver")
    make_search(tmp_path)
    done = invoke("tune", "--space", str(tmp_path / "mine.yaml"), "--output", url, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert url in "".join(done.stdout.split())
    assert not (tmp_path / "bucket").exists()


def test_a_trial_reaches_its_url_and_goes_on_on_another_machine(on, url: str, tmp_path: Path):
    on("one")
    trial = make_trial(tmp_path, in_process, url=url)
    while not trial.next().get("done"):
        pass
    Mirror.of(Remote.parse(trial.folder.url)).push()  # the run on Ray does
    assert not objects.stat(Remote.parse(trial.folder.url) / "lock.json")

    here = on("driver")
    folder = SearchFolder.at(url).trial("t0")
    folder.bring()
    assert folder.path.is_relative_to(here)
    assert folder.is_finished
    assert folder.metrics.is_file()
    assert not folder.student.exists()
    assert [path.name for path in folder.checkpoints.glob("*/*")] == ["state.json"] * 2

    on("two")
    again = make_trial(tmp_path, in_process, url=url, **{"optim.batch_size": 64})
    results = [again.next()]
    while not results[-1].get("done"):
        results.append(again.next())
    assert again._config().optim.batch_size == trial._config().optim.batch_size == 32


def test_a_failure_and_its_reason_reach_the_driver(on, url: str, tmp_path: Path):
    def fail(*_: object) -> None:
        raise ValueError("no card")

    on("worker")
    trial = make_trial(tmp_path, fail, url=url)
    with pytest.raises(Exception, match="no card"):
        trial.next()
    on("driver")
    folder = SearchFolder.at(url).trial("t0")
    folder.bring()
    assert state_of(folder) == ("failed", "ValueError: no card")


def test_a_request_to_stop_reaches_trials_and_is_taken_back(on, url: str, tmp_path: Path):
    on("worker")
    stop = SearchStop(SearchFolder.at(url))
    assert not stop.is_asked()
    on("driver")
    with new_place(Path(url), print, SEARCH) as place:
        folder = SearchFolder(place.folder, place.url)
        folder.path.mkdir(parents=True, exist_ok=True)
        objects.write(Remote.parse(url) / "stop", b"")  # an earlier start left it
        keeper = Keeper(folder, place)
        with keeper.kept(list):
            wait(lambda: not stop.is_asked(), "the old request stayed")
            folder.stop_request.touch()
            wait(stop.is_asked, "the request did not arrive")
            folder.stop_request.unlink()
            keeper.end_stop()
            wait(lambda: not stop.is_asked(), "the request stayed")
        with Keeper(folder, place).kept(list):
            objects.write(Remote.parse(url) / "stop", b"")  # somebody else asks
            wait(folder.stop_request.exists, "the driver was not asked")
        assert not objects.stat(Remote.parse(url) / "stop")


def test_running_trials_are_brought_and_the_search_is_sent_while_it_goes_on(on, url: str, monkeypatch):
    monkeypatch.setattr(at_url, "KEEP_EVERY_S", 0.1)
    on("worker")
    trial = SearchFolder.at(url).trial("t0")
    trial.path.mkdir(parents=True)
    trial.group.write_text("abc\n")
    Mirror.of(Remote.parse(trial.url)).push()
    on("driver")
    with new_place(Path(url), print, SEARCH) as place:
        folder = SearchFolder(place.folder, place.url)
        folder.tuner.mkdir(parents=True)
        note = folder.trial("t0").group
        assert Holder(note, 0.0).group is None
        with Keeper(folder, place).kept(lambda: ["t0", "not begun"]):
            wait(lambda: Holder(note, 0.0).group == "abc", "the note was not brought")
            (folder.tuner / "experiment_state-1.json").write_text("{}")
            wait(lambda: "tuner/experiment_state-1.json" in Mirror.of(Remote.parse(url))._manifest()[0], "not sent")
    note.write_text("")
    assert Holder(note, 0.0).group is None


def test_tunes_files_are_sent_only_while_it_writes_nothing(tmp_path: Path):
    assert is_quiet(tmp_path / "new")
    (tmp_path / "state").write_text("{}")
    assert not is_quiet(tmp_path)
    time.sleep(at_url.QUIET_S)
    assert is_quiet(tmp_path)


def test_the_end_of_a_trial_is_brought_before_it_is_judged(on, url: str, tmp_path: Path):
    on("worker")
    far = SearchFolder.at(url).trial("a")
    far.path.mkdir(parents=True)
    write_json(far.outcome, {"status": "finished"})
    Mirror.of(Remote.parse(far.url)).push()
    on("driver")
    (tmp_path / "s").mkdir()
    driver, _ = make_driver(tmp_path)
    folder = SearchFolder.at(url)
    left = LeftGroups([], "none")
    bring = Keeper(folder, driver.place).bring
    listener = TrialListener(driver.search.space, folder, driver.ledger, left, print, lambda _: None, bring)
    listener.began("a", {"optim.lr": 0.02, "optim.batch_size": 32})
    listener.evaluated("a", {"val/top1": 50.0, "epoch": 1})
    listener.ended("a")
    assert driver.ledger.trials["a"].status is TrialStatus.FINISHED
    assert folder.trial("a").is_finished


# ----------------------------------------------------------------------------- on Ray


PATIENCE_S = 1500
SPACE = """
base: {config: config.yaml}
parameters:
  optim.lr: {loguniform: [0.01, 0.1]}
search: random
scheduler: none
trials: TRIALS
"""


def words(place: Path, trials: int, *more: str) -> tuple[str, ...]:
    write_config(place, "validate.every=0.25", "teacher.recipe.seed=11")
    (place / "mine.yaml").write_text(SPACE.replace("TRIALS", str(trials)))
    return ("--space", "mine.yaml", "optim.steps=24", *more)


def pulled(url: str, place: Path) -> tuple[SearchFolder, dict[str, Path]]:
    """The search at a URL and the runs of its trials, by their settings, as the bucket alone has them."""
    mirror = Mirror(Remote.parse(url), place / "pulled" / "search")
    mirror.pull()
    folder = SearchFolder(mirror.folder)
    runs = {}
    for trial in read_json(folder.results)["trials"]:
        run = Mirror(Remote.parse(url) / "trials" / trial["id"], place / "pulled" / trial["id"])
        run.pull()
        runs[str(trial["config"])] = run.folder
    return folder, runs


def same_bits(url: str, local: SearchFolder, place: Path) -> None:
    """Whether teacher, students and results of a search at a URL are those of a local one."""
    folder, runs = pulled(url, place)
    trials = read_json(local.results)["trials"]
    assert {str(trial["config"]) for trial in trials} == runs.keys()
    for trial in trials:
        assert_equal_bits(student_weights(runs[str(trial["config"])]), student_weights(local.trial(trial["id"]).path))
    assert_equal_bits(student_weights(folder.path / "teacher"), student_weights(local.path / "teacher"))
    theirs = read_json(folder.results)
    assert theirs["teacher_identity"] == read_json(local.results)["teacher_identity"]
    assert [trial["metrics"] for trial in theirs["trials"]] == [trial["metrics"] for trial in trials]
    assert folder.best_config.read_text().splitlines()[1:] == local.best_config.read_text().splitlines()[1:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_search_whose_machine_is_lost_goes_on_with_one_more_trial(on, url: str, tmp_path: Path):
    here = on("one")
    said = succeed("tune", *words(tmp_path, 1), "--output", url, cwd=tmp_path, timeout=PATIENCE_S)
    assert f"search   {url}" in said
    (first,) = read_json(SearchFolder.at(url).results)["trials"]
    manifest = objects.read(Remote.parse(f"{url}/trials/{first['id']}/manifest.json"))
    shutil.rmtree(here)  # the pod's disk goes with the pod

    on("two")
    succeed("tune", *words(tmp_path, 2), "--output", url, "--continue", cwd=tmp_path, timeout=PATIENCE_S)
    assert objects.read(Remote.parse(f"{url}/trials/{first['id']}/manifest.json")) == manifest
    trials = read_json(SearchFolder.at(url).results)["trials"]
    assert [trial["status"] for trial in trials] == ["finished", "finished"]
    assert trials[0] == first
    for name in ("lock.json", "stop", f"trials/{first['id']}/lock.json"):
        assert objects.stat(Remote.parse(f"{url}/{name}")) is None

    on("three")
    succeed("tune", *words(tmp_path, 2), "--output", "local", cwd=tmp_path, timeout=PATIENCE_S)
    same_bits(url, SearchFolder(tmp_path / "local"), tmp_path)
    assert "is up to date" in succeed("sync", url, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_driver_trials_students_and_teacher_share_no_folder(on, url: str, tmp_path: Path):
    """Four nodes, each with a cache folder of its own, and a driver that is lost and goes on elsewhere."""
    from ray.cluster_utils import Cluster

    caches = ("student_slot", "teacher_slot", "rest")
    here = on("driver")
    # neither the trials' processes nor anything else that has a CPU is on the driver's node
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200e6})
    try:
        for slot in caches:
            own = {"HARDRAY_CACHE": str(tmp_path / slot)}
            cluster.add_node(num_cpus=2, object_store_memory=100_000_000, resources={slot: 1}, env_vars=own)
        there = (f"runtime.address={cluster.address}", "runtime.slots=true", "runtime.cpus_per_worker=1")
        succeed("tune", *words(tmp_path, 1, *there), "--output", url, cwd=tmp_path, timeout=PATIENCE_S)
        trials = {one.key.split("/")[0] for one in objects.listing(Remote.parse(url) / "trials")}
        assert len(trials) == 1
        assert not any("checkpoints" in path.parts for path in here.rglob("*.safetensors"))
        shutil.rmtree(here)
        on("driver-2")
        succeed("tune", *words(tmp_path, 2, *there), "--resume", url, cwd=tmp_path, timeout=PATIENCE_S)
        on("driver-3")
        succeed("tune", *words(tmp_path, 2, *there), "--output", "local", cwd=tmp_path, timeout=PATIENCE_S)
    finally:
        cluster.shutdown()
    same_bits(url, SearchFolder(tmp_path / "local"), tmp_path)
    trained = {
        slot
        for slot in caches
        if any("checkpoints" in path.parts for path in (tmp_path / slot).rglob("*.safetensors"))  # a state is followed
    }
    assert trained == {"student_slot"}
