"""A search that has begun gets more trials, and no other change."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray import tune
from ray.tune.experiment import Experiment

from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.space import Search, SpaceConfig, load_space
from hard_ray.errors import RunFolderError
from hard_ray.files import read_json
from hard_ray.orchestration.search.begun import settle, write_begun
from hard_ray.orchestration.search.ray_tune import domain, searcher
from hard_ray.runs.search_folder import SearchFolder
from tests.cli.commands import invoke
from tests.support.helpers import tiny_config

SPACE = """
base: {config: base.yaml}
parameters:
  optim.lr: {loguniform: [0.01, 0.1]}
  optim.batch_size: {choice: [32, 64]}
scheduler: none
trials: 4
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(dump_yaml(tiny_config()))
    (tmp_path / "s").mkdir()
    return tmp_path


def space_of(place: Path, *replaced: tuple[str, str], overrides: tuple[str, ...] = ()) -> Search:
    text = SPACE
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    (place / "mine.yaml").write_text(text)
    return load_space(str(place / "mine.yaml"), overrides)


@pytest.fixture
def folder(place: Path) -> SearchFolder:
    folder = SearchFolder(place / "s")
    write_begun(folder, space_of(place))
    return folder


def edit(folder: SearchFolder, old: str, new: str, name: str = "space.yaml") -> None:
    path = folder.path / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_an_unchanged_search_goes_on(place: Path, folder: SearchFolder):
    assert settle(folder, None).space.count == 4
    assert settle(folder, space_of(place)).space.count == 4


def test_trials_are_raised_in_the_folder_or_in_the_users_space(place: Path, folder: SearchFolder):
    edit(folder, "trials: 4", "trials: 6")
    assert settle(folder, None).space.count == 6
    assert settle(folder, space_of(place, ("trials: 4", "trials: 9"))).space.count == 9
    assert yaml.safe_load(folder.config.read_text())["trials"] == 9
    assert settle(folder, None).space.count == 9
    with pytest.raises(RunFolderError, match=r"trials was 9, now 6 \(trials that were made stay\)"):
        settle(folder, space_of(place, ("trials: 4", "trials: 6")))
    assert settle(folder, None).space.count == 9


def test_trials_without_a_number_are_twenty(place: Path, folder: SearchFolder):
    assert settle(folder, space_of(place, ("trials: 4", ""))).space.count == 20


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("trials: 4", "trials: 3", "trials was 4, now 3 (trials that were made stay)"),
        ("trials: 4", "trials: 6\nconcurrency: 2", "concurrency was 1, now 2"),
        ("trials: 4", "trials: 6\nseed: 1", "seed was 0, now 1"),
        ("trials: 4", "trials: 6\nstop: {epoch: 3}", "stop.epoch was not set, now 3.0"),
        ("scheduler: none", "scheduler: asha", "scheduler was none, now asha"),
        ("scheduler: none", "scheduler: none\nsearch: random", "search was optuna, now random"),
        ("scheduler: none", "scheduler: none\nmetric: val/loss", "metric was val/top1, now val/loss"),
        ("[0.01, 0.1]", "[0.01, 0.2]", "parameters.optim.lr.loguniform was [0.01, 0.1], now [0.01, 0.2]"),
        ("[32, 64]", "[32, 64, 16]", "parameters.optim.batch_size.choice was [32, 64], now [32, 64, 16]"),
        ("loguniform", "uniform", "parameters.optim.lr.loguniform was [0.01, 0.1], now not set"),
        (
            "  optim.batch_size: {choice: [32, 64]}\n",
            "",
            "parameters.optim.batch_size.choice was [32, 64], now not set",
        ),
    ],
)
def test_any_other_edit_is_refused_with_the_key(place: Path, folder: SearchFolder, old: str, new: str, words: str):
    before = {name: (folder.path / name).read_bytes() for name in ("space.yaml", "base.yaml", "begun.json")}
    with pytest.raises(RunFolderError) as caught:
        settle(folder, space_of(place, (old, new)))
    assert words in str(caught.value)
    assert "choose another --output" in str(caught.value)
    assert before == {name: (folder.path / name).read_bytes() for name in before}


def test_another_base_configuration_is_refused_with_the_key(place: Path, folder: SearchFolder):
    with pytest.raises(RunFolderError, match=r"base.optim.steps was \d+, now 9"):
        settle(folder, space_of(place, overrides=("optim.steps=9",)))
    edit(folder, "seed: 0", "seed: 5", "base.yaml")
    with pytest.raises(RunFolderError, match=r"base.seed was 0, now 5"):
        settle(folder, None)


def test_a_search_of_an_earlier_version_has_no_record_and_gets_one(folder: SearchFolder):
    folder.begun.unlink()
    edit(folder, "trials: 4", "trials: 6")
    assert settle(folder, None).space.count == 6
    assert read_json(folder.begun)["space"]["trials"] == 6


@pytest.mark.parametrize("content", ["{", "[]", '{"space": {}, "base": {}}', '{"base": {"seed": -1}}'])
def test_a_damaged_record_is_named(folder: SearchFolder, content: str):
    folder.begun.write_text(content)
    with pytest.raises(RunFolderError, match="begun.json cannot be read"):
        settle(folder, None)


def test_the_command_line_names_the_key_and_starts_nothing(place: Path, folder: SearchFolder):
    space_of(place, ("trials: 4", "trials: 6\nseed: 1"))
    words = ("--space", str(place / "mine.yaml"))
    for more in (("--resume", str(folder.path)), ("--continue", "--output", str(folder.path))):
        done = invoke("tune", *words, *more)
        assert done.exit_code == 1
        assert "seed was 0, now 1" in " ".join(done.stderr.split())
    done = invoke("tune", "--resume", str(folder.path), "seed=1")
    assert done.exit_code == 2
    assert "or --space with the options it began with" in " ".join(done.stderr.split())


# ------------------------------------------------------------------- what Tune makes of it


class Nothing(tune.Trainable):
    """A trial that is never run."""


def spaces(place: Path, search: str, *counts: int) -> list[SpaceConfig]:
    return [space_of(place, ("trials: 4", f"trials: {count}\nsearch: {search}")).space for count in counts]


def drawn(space: SpaceConfig, state: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict]]:
    """The trials that Tune makes with a search, after what `state` holds; the state is saved there."""
    algorithm = searcher(space)
    config = {key: domain(value, grid=space.search == "grid") for key, value in space.parameters.items()}
    algorithm.set_search_properties("val/top1", "max", config)
    algorithm.add_configurations(
        Experiment("x", Nothing, config=config, num_samples=space.count, storage_path=str(state))
    )
    if algorithm.has_checkpoint(str(state)):
        algorithm.restore_from_dir(str(state))
    made = []
    while not algorithm.is_finished():
        trial = algorithm.next_trial()
        if trial is None:
            break
        algorithm.on_trial_complete(trial.trial_id, {"val/top1": 50.0})
        made.append((trial.trial_id, trial.config))
    algorithm.save_to_dir(str(state), "now")
    return made


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_the_difference_is_run_with_the_state_kept(place: Path, monkeypatch: pytest.MonkeyPatch, search: str):
    four, six = spaces(place, search, 4, 6)
    first = drawn(four, place / "s", monkeypatch)
    assert len(first) == 4
    assert drawn(four, place / "s", monkeypatch) == []
    more = drawn(six, place / "s", monkeypatch)
    assert len(more) == 2
    assert not {name for name, _ in more} & {name for name, _ in first}
    assert drawn(six, place / "s", monkeypatch) == []
    straight = drawn(six, place / "t", monkeypatch)
    assert [config for _, config in [*first, *more]] == [config for _, config in straight]
