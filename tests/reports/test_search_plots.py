import numpy as np
import pytest

from hard_ray.config.distribution import Choice, LogUniform, QUniform, RandInt, Uniform
from hard_ray.reports.search.importance import importance
from hard_ray.reports.search.plots import draw_history, draw_importance, draw_parallel, draw_pareto, places, tick_places
from hard_ray.runs.trials import Goal, Trial, TrialStatus

TOP1, LOSS = Goal("val/top1", "max"), Goal("val/loss", "min")
PARAMETERS = {"optim.lr": LogUniform(loguniform=(0.01, 1)), "optim.opt": Choice(choice=("sgd", "adamw", "lamb"))}


def trial(name: str, top1: float | None, lr: float = 0.1, opt: str = "sgd", **more: object) -> Trial:
    metrics = {} if top1 is None else {"val/top1": top1, "val/loss": 100 - top1 + lr}
    return Trial(name, {"optim.lr": lr, "optim.opt": opt}, TrialStatus.FINISHED, metrics, **more)


def test_the_history_has_every_trial_and_the_best_so_far():
    trials = [trial("a", 50), trial("b", None), trial("c", 40), trial("d", 70)]
    trials[2].status = TrialStatus.STOPPED
    (axis,) = draw_history(trials, TOP1).axes
    finished, stopped = axis.collections
    assert np.array(finished.get_offsets()).tolist() == [[1, 50], [4, 70]]
    assert np.array(stopped.get_offsets()).tolist() == [[3, 40]]
    (line,) = axis.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1, 3, 4], [50, 50, 70])
    (falling,) = draw_history(trials, LOSS).axes[0].lines
    assert falling.get_ydata() == pytest.approx([50.1, 50.1, 30.1])


def test_bars_are_the_shares_of_each_metric_that_something_is_known_of():
    figure = draw_importance({"val/top1": {"optim.lr": 0.75, "optim.opt": 0.25}, "val/loss": {}})
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [0.75, 0.25]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["optim.lr", "optim.opt"]
    assert "val/top1" in axis.get_xlabel()


def test_values_lie_between_the_ends_of_their_axis():
    assert places(Uniform(uniform=(2, 4)), [2, 3, 4]) == [0, 0.5, 1]
    assert places(QUniform(quniform=(2, 4, 1)), [3]) == [0.5]
    assert places(RandInt(randint=(0, 10)), [1]) == [0.1]
    assert places(LogUniform(loguniform=(0.01, 1)), [0.1]) == pytest.approx([0.5])
    assert places(Choice(choice=(None, "b", 3)), [3, None, "b"]) == [1, 0, 0.5]
    assert places(Choice(choice=("only",)), ["only"]) == [0]
    assert tick_places(LogUniform(loguniform=(0.01, 1))) == {"0.01": 0, "1": 1}


def test_a_line_for_each_trial_the_best_on_top():
    trials = [trial("a", 70, 0.01), trial("b", 50, 1, "lamb"), trial("c", 60, 0.1, "adamw")]
    (axis,) = draw_parallel(trials, PARAMETERS, TOP1).axes
    lines = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) == 3]
    assert np.array(lines) == pytest.approx(np.array([[1, 1, 0], [0.5, 0.5, 0.5], [0, 0, 1]]))
    assert [label.get_text().replace("\n", "") for label in axis.get_xticklabels()] == [*PARAMETERS, "val/top1"]
    assert {"50", "70", "0.01", "lamb"} <= {text.get_text() for text in axis.texts}


def test_the_front_is_joined_and_the_others_are_not():
    a, b, c = (trial(name, top1, lr) for name, top1, lr in (("a", 70, 30), ("b", 60, 10), ("c", 50, 60)))
    (axis,) = draw_pareto([a, b, c], [a, b], (TOP1, LOSS)).axes
    (line,) = axis.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([60, 70], [50, 60])
    assert np.array(axis.collections[0].get_offsets()).tolist() == [[50, 110]]


def test_what_decides_the_metric_is_what_matters():
    random = np.random.default_rng(0)
    trials = [
        trial(str(number), 50 + 20 * np.log10(lr), lr, opt)
        for number, (lr, opt) in enumerate(
            (float(10 ** random.uniform(-2, 0)), str(random.choice(["sgd", "adamw", "lamb"]))) for _ in range(30)
        )
    ]
    shares = importance(trials, PARAMETERS, TOP1)
    assert list(shares) == ["optim.lr", "optim.opt"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["optim.lr"] > 0.9
    assert importance(trials, PARAMETERS, TOP1) == shares


def test_where_nothing_can_be_said_of_importance_nothing_is():
    same = [trial(str(number), 50, lr) for number, lr in enumerate([0.01, 0.1, 0.5, 1])]
    assert importance(same, PARAMETERS, TOP1) == {}
    assert importance([trial("a", 1), trial("b", 2)], PARAMETERS, TOP1) == {}
    fixed = [trial(str(number), number) for number in range(6)]
    assert importance(fixed, PARAMETERS, TOP1) == {}
