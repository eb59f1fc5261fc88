"""What a search concludes from its trials."""

import json

import pytest

from hard_ray.runs.trials import Goal, Ledger, Trial, TrialStatus, failure_pattern

TOP1 = Goal("val/top1", "max")
LOSS = Goal("val/loss", "min")


def ledger_of(*rows: tuple[str, dict[str, float]], goals: tuple[Goal, ...] = (TOP1,)) -> Ledger:
    ledger = Ledger(goals)
    for name, metrics in rows:
        ledger.begin(name, {"optim.lr": 0.1})
        ledger.report(name, metrics)
        ledger.end(name, TrialStatus.FINISHED)
    return ledger


def test_the_best_is_the_highest_or_the_lowest():
    rows = [("a", {"val/top1": 50, "val/loss": 2}), ("b", {"val/top1": 70, "val/loss": 3}), ("c", {"val/top1": 60})]
    assert [trial.id for trial in ledger_of(*rows).ranked] == ["b", "c", "a"]
    assert [trial.id for trial in ledger_of(*rows, goals=(LOSS,)).ranked] == ["a", "b"]
    assert Ledger([TOP1]).best is None


def test_a_trial_that_failed_is_never_the_best():
    ledger = ledger_of(("a", {"val/top1": 50}))
    ledger.begin("b", {})
    ledger.report("b", {"val/top1": 99})
    ledger.end("b", TrialStatus.FAILED, "out of memory")
    assert ledger.best.id == "a"


def test_the_front_has_the_trials_that_none_beats_in_every_metric():
    values = {"a": (90, 3.0), "b": (80, 1.0), "c": (80, 2.0), "d": (70, 2.0), "e": (85, 2.0), "f": (90, 3.0)}
    rows = [(name, {"val/top1": top1, "val/loss": loss}) for name, (top1, loss) in values.items()]
    ledger = ledger_of(*rows, goals=(TOP1, LOSS))
    assert [trial.id for trial in ledger.front] == ["a", "f", "e", "b"]
    assert ledger.best.id == "a"


def test_seconds_count_over_all_starts_of_a_trial():
    ledger = Ledger([TOP1])
    ledger.begin("a", {}, now=10.0)
    ledger.rest("a", now=15.0)
    again = Ledger.read([TOP1], json.loads(json.dumps(ledger.to_json())))
    assert [trial.id for trial in again.running] == ["a"]
    again.begin("a", {}, now=100.0)
    again.end("a", TrialStatus.FINISHED, now=102.5)
    assert again.trials["a"].seconds == 7.5
    assert again.running == []


def test_a_ledger_reads_back_to_the_same():
    ledger = ledger_of(("a", {"val/top1": 50.5, "epoch": 3}), ("b", {"val/top1": 1}))
    again = Ledger.read([TOP1], json.loads(json.dumps(ledger.to_json())))
    assert again.to_json() == ledger.to_json()
    assert again.trials["a"].status is TrialStatus.FINISHED


def ended(*outcomes: str | None) -> Ledger:
    """Trials that end one after the other; a reason is a failure."""
    ledger = Ledger([TOP1])
    for number, reason in enumerate(outcomes):
        ledger.begin(f"t{number}", {})
        ledger.end(f"t{number}", TrialStatus.FAILED if reason else TrialStatus.FINISHED, reason)
    return ledger


@pytest.mark.parametrize(
    ("outcomes", "is_hopeless"),
    [
        (["no GPU", "no GPU"], False),
        (["no GPU", "no GPU", "no GPU"], True),
        (["no GPU", "no GPU", "out of memory"], False),
        ([None, "no GPU", "no GPU", "no GPU"], False),
        (["a batch of 64 does not fit", "a batch of 32 does not fit", "a batch of 16 does not fit"], True),
        (["/x/t0 failed\nlong", "/x/t1 failed\nother", "/x/t2 failed"], True),
    ],
)
def test_a_search_is_hopeless_once_its_first_trials_all_failed_the_same_way(outcomes: list, is_hopeless: bool):
    assert (ended(*outcomes).hopeless is not None) is is_hopeless


def test_failures_of_a_kind_are_alike():
    one, two = (Trial(name, {}, reason=f"trials/{name}: {size} images") for name, size in (("a1", 3), ("b2", 4.5)))
    assert failure_pattern(one) == failure_pattern(two) == "trials/TRIAL: N images"
