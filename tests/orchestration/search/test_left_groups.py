"""Finding left-over placement groups in tables as Ray returns them."""

from pathlib import Path

from hard_ray.orchestration.search.left_groups import GRACE_S, LeftGroups

JOB = "01000000"
A, B, C, OTHER = (f"{name}{JOB}" for name in ("aa", "bb", "cc", "dd"))


def group(cpu: float = 1.0, state: str = "CREATED", count: int = 1) -> dict:
    return {"state": state, "bundles": {number: {"CPU": cpu} for number in range(count)}}


def left_groups() -> LeftGroups:
    return LeftGroups([{"CPU": 1.0}], JOB)


def note(folder: Path, trial: str, name: str) -> Path:
    path = folder / trial
    path.write_text(f"{name}\n")
    return path


def test_the_group_of_a_trial_that_goes_on_stays(tmp_path: Path):
    left = left_groups()
    left.begin("one", tmp_path / "one", 0.0)
    assert left.find({A: group()}, 1.0) == []  # not noted yet, and one may be in it
    note(tmp_path, "one", A)
    assert left.find({A: group()}, 1000.0) == []


def test_the_group_of_a_trial_that_was_ended_is_left_over_after_a_grace(tmp_path: Path):
    left = left_groups()
    left.begin("one", tmp_path / "one", 0.0)
    note(tmp_path, "one", A)
    assert left.find({A: group()}, 1.0) == []
    left.end("one", 10.0)
    assert left.find({A: group()}, 10.0 + GRACE_S - 1) == []
    assert left.find({A: group()}, 10.0 + GRACE_S + 1) == [A]
    assert left.find({}, 10.0 + GRACE_S + 2) == []


def test_a_group_that_was_there_before_a_trial_began_is_not_its(tmp_path: Path):
    left = left_groups()
    left.begin("one", tmp_path / "one", 0.0)
    left.find({A: group()}, 1.0)
    left.end("one", 2.0)  # before its workers had started: nothing was noted
    left.begin("two", tmp_path / "two", 3.0)
    assert left.find({A: group(), B: group(state="PENDING")}, 4.0) == []
    assert left.find({A: group(), B: group(state="PENDING")}, 3.0 + GRACE_S) == [A]


def test_a_trial_that_starts_anew_is_in_another_group(tmp_path: Path):
    left = left_groups()
    left.begin("one", note(tmp_path, "one", A), 0.0)
    assert not (tmp_path / "one").exists()


def test_a_trial_whose_workers_are_started_again_keeps_its_new_group(tmp_path: Path):
    left = left_groups()
    left.begin("one", tmp_path / "one", 0.0)
    note(tmp_path, "one", A)
    assert left.find({A: group()}, 1.0) == []
    assert left.find({A: group(state="REMOVED"), B: group(state="PENDING")}, 50.0) == []
    assert left.find({A: group(state="REMOVED"), B: group()}, 52.0) == []  # its first worker has not noted it yet
    note(tmp_path, "one", B)
    left.end("one", 60.0)
    assert left.find({B: group()}, 60.0 + GRACE_S + 1) == [B]


def test_groups_of_other_programs_and_of_tune_are_ignored(tmp_path: Path):
    left = left_groups()
    table = {
        "aa02000000": group(),  # of another program
        B: group(cpu=0.1),  # of Tune
        C: group(count=2),
        OTHER: group(state="REMOVED"),
    }
    assert left.find(table, 1.0) == []
    assert left.find({**table, A: group()}, 2.0) == [A]
