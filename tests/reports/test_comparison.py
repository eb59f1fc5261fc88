"""Runs grouped over seeds, and what their folders say side by side."""

from pathlib import Path

import pytest

from hard_ray.errors import RunFolderError
from hard_ray.reports.comparison.groups import Comparison, read_comparison
from hard_ray.reports.comparison.t_tests import compare_means
from hard_ray.reports.comparison.tables import by_condition, differences, mean_by_severity, results, t_tests
from tests.support.compared import finished, going_on, suite

MIX = ("augmentor={kind: mix}", "objective.temperature=8")


def table_of(comparison: Comparison) -> dict[str, dict[str, str]]:
    header, body = results(comparison)
    return {row[0]: dict(zip(header, row, strict=True)) for row in body}


def test_runs_that_differ_in_seed_and_name_alone_are_one_group(tmp_path: Path):
    runs = [
        finished(tmp_path / "hard-s0", "seed=0", clean=90.0, shifted=50.0),
        finished(tmp_path / "hot", "seed=0", "objective.temperature=8", clean=80.0),
        finished(tmp_path / "hard-s1", "seed=1", "experiment.name=hard-s1", clean=92.0, shifted=53.0),
    ]
    comparison = read_comparison(runs)
    assert [(group.name, len(group.runs)) for group in comparison.groups] == [("hard", 2), ("hot", 1)]
    rows = table_of(comparison)
    assert rows["hard"]["clean"] == "91.0 (90.0 to 92.0)"
    assert rows["hard"]["shifted"] == "51.5 (50.0 to 53.0)"
    assert rows["hard"]["agreement"] == "90.0 (89.0 to 91.0)"
    assert (rows["hard"]["ECE"], rows["hard"]["s/update"], rows["hard"]["updates"]) == ("2.5", "0.1", "80")
    assert (rows["hot"]["seeds"], rows["hot"]["clean"], rows["hot"]["shifted"]) == ("1", "80.0", "-")
    spread = comparison.groups[0].spread("top1/clean")
    assert (spread.mean, spread.smallest, spread.largest, spread.n) == (91.0, 90.0, 92.0, 2)


def test_only_keys_in_which_groups_differ_are_listed(tmp_path: Path):
    runs = [
        finished(tmp_path / "a", "seed=0", clean=90.0),
        finished(tmp_path / "b", "seed=5", "optim.lr=0.5", "student.model_kwargs={widths: [8, 8]}", clean=90.0),
    ]
    assert differences(read_comparison(runs)) == (
        ["key", "a", "b"],
        [["optim.lr", "0.02", "0.5"], ["student.model_kwargs.widths", "[24]", "[8, 8]"]],
    )


def test_a_key_that_a_kind_does_not_have_is_a_dash(tmp_path: Path):
    runs = [finished(tmp_path / "a", clean=90.0), finished(tmp_path / "b", *MIX, clean=90.0)]
    _, body = differences(read_comparison(runs))
    rows = {row[0]: row[1:] for row in body}
    assert rows["augmentor.kind"] == ["affine", "mix"]
    assert rows["augmentor.max_rotation"] == ["30.0", "-"]
    assert rows["objective.temperature"] == ["4.0", "8.0"]
    assert not {"seed", "experiment.name", "optim.lr"} & rows.keys()


def test_a_servers_user_is_not_among_the_differences(tmp_path: Path):
    uris = ("postgresql://me@host:1/x", "postgresql://you@host:2/x")
    runs = [finished(tmp_path / str(n), f"tracking.uri={uri}", clean=90.0) for n, uri in enumerate(uris)]
    assert differences(read_comparison(runs))[1] == [["tracking.uri", "postgresql://host:1/x", "postgresql://host:2/x"]]


def test_a_control_is_a_run_of_its_own_and_is_grouped_over_seeds(tmp_path: Path):
    runs = []
    for seed, top1 in ((0, 80.0), (1, 81.0)):
        run = finished(tmp_path / f"hard-s{seed}", f"seed={seed}", clean=top1 + 10)
        kd = ("objective={kind: kd}", "augmentor={kind: identity}", "experiment.name=kd")
        runs += [run, finished(run / "controls" / "kd", f"seed={seed}", *kd, clean=top1)]
    comparison = read_comparison(runs)
    assert [(group.name, len(group.runs)) for group in comparison.groups] == [("hard", 2), ("hard/kd", 2)]
    assert [run.name for run in comparison.runs] == ["hard-s0", "hard-s1", "hard-s0/kd", "hard-s1/kd"]
    (pair,) = comparison.pairs
    assert (pair.first, pair.second, pair.found.difference) == ("hard", "hard/kd", -10.0)


def test_pairs_of_groups_are_tested_on_every_suite_that_both_have(tmp_path: Path):
    tops = {"a": (90.0, 91.0, 92.5), "b": (91.0, 92.5, 92.9)}
    runs = [
        finished(tmp_path / f"{name}-s{seed}", f"seed={seed}", f"optim.lr={lr}", clean=top1, shifted=top1 - 30)
        for (name, values), lr in zip(tops.items(), (0.1, 0.2), strict=True)
        for seed, top1 in enumerate(values)
    ]
    comparison = read_comparison([*runs, finished(tmp_path / "single", "optim.lr=0.3", clean=50.0)])
    assert [(pair.first, pair.second, pair.suite) for pair in comparison.pairs] == [
        ("a", "b", "clean"),
        ("a", "b", "shifted"),
    ]
    expected = compare_means(list(enumerate(tops["a"])), list(enumerate(tops["b"])))
    assert comparison.pairs[0].found == expected
    row = t_tests(comparison)[1][0]
    interval = f"{expected.low:+.2f} to {expected.high:+.2f}"
    assert row == ["b - a", "clean", "+0.97", interval, f"{expected.p:.3f}", "paired", "3"]
    assert any("are not tested: single" in text for text in comparison.states)


def test_a_run_that_goes_on_is_there_with_what_it_has(tmp_path: Path):
    runs = [
        finished(tmp_path / "done-s0", "seed=0", clean=90.0),
        going_on(tmp_path / "done-s1", "seed=1", validation={20: 60.0, 40: 88.25}),
    ]
    comparison = read_comparison(runs)
    rows = table_of(comparison)
    assert rows["done"]["clean"] == "90.0 (of 1 seed)"
    assert rows["done"]["updates"] == "60 (40 to 80)"
    assert rows["done"]["s/update"] == "0.3 (0.1 to 0.5)"
    (state,) = comparison.states
    assert state.startswith("done-s1 is not finished: 40 updates have been logged; 88.2 % on clean images of the val")


@pytest.mark.parametrize(
    ("changes", "measured", "words"),
    [
        ((), {"split": "val"}, "split is test in a, but val in b"),
        (("data.split_seed=3",), {}, "data.split_seed is 0 in a, but 3 in b"),
        ((), {"clean": suite(80.0, n=200)}, "number of images of suite clean is 300 in a, but 200 in b"),
    ],
)
def test_runs_that_were_measured_on_different_images_are_named(
    tmp_path: Path, changes: tuple, measured: dict, words: str
):
    runs = [
        finished(tmp_path / "a", clean=90.0),
        finished(tmp_path / "b", "optim.lr=1", *changes, **{"clean": 80.0, **measured}),
    ]
    (warning,) = read_comparison(runs).warnings
    assert words in warning
    assert "not comparable" in warning


def test_numbers_that_are_not_comparable_are_not_tested(tmp_path: Path):
    seeds = range(2)
    first = [finished(tmp_path / f"a-s{s}", f"seed={s}", clean=90.0 + s, shifted=40.0 + s) for s in seeds]
    other = {"clean": 80.0, "shifted": suite(50.0, n=77)}
    second = [finished(tmp_path / f"b-s{s}", f"seed={s}", "optim.lr=1", **other) for s in seeds]
    assert [pair.suite for pair in read_comparison([*first, *second]).pairs] == ["clean"]
    third = [finished(tmp_path / f"c-s{s}", f"seed={s}", split="val", clean=80.0 - 2 * s) for s in seeds]
    assert read_comparison([*second, *third]).pairs == ()


def test_the_view_of_training_and_the_place_of_the_data_change_no_measured_image(tmp_path: Path):
    data = "data={{kind: image_folder, path: {}/birds, img_size: 16, hflip: {}}}"
    runs = [finished(tmp_path / str(n), data.format(root, n), clean=9.0) for n, root in enumerate(("/a", "/b"))]
    comparison = read_comparison(runs)
    assert comparison.warnings == ()
    assert set(comparison.differing) == {"data.path", "data.hflip"}


def test_different_teachers_and_the_same_seed_twice_are_warned_of(tmp_path: Path):
    runs = [finished(tmp_path / name, clean=90.0, teacher=name) for name in ("a", "b")]
    teachers, seeds = read_comparison(runs).warnings
    assert "agreements are not comparable: a; b" in teachers
    assert "a and 1 more: runs with the same seed" in seeds


def test_severities_are_means_over_seeds_and_conditions(tmp_path: Path):
    by = [{"fog": {"1": 40.0, "3": 20.0}, "snow": {"1": 60.0, "3": 30.0}}, {"fog": {"1": 44.0, "3": 30.0}}]
    runs = [
        finished(tmp_path / f"a-s{seed}", f"seed={seed}", corruptions=suite(40.0, by=found))
        for seed, found in enumerate(by)
    ]
    means = by_condition(read_comparison(runs), "corruptions")
    assert means == {"a": {"fog": {"1": 42.0, "3": 25.0}, "snow": {"1": 60.0, "3": 30.0}}}
    assert mean_by_severity(means["a"]) == {"1": 51.0, "3": 27.5}


def test_what_cannot_be_compared_is_a_message(tmp_path: Path):
    run = finished(tmp_path / "a", clean=90.0)
    with pytest.raises(RunFolderError, match="needs at least two runs, got 1"):
        read_comparison([run])
    with pytest.raises(RunFolderError, match="is given twice"):
        read_comparison([run, tmp_path / "a" / ".." / "a"])
    with pytest.raises(RunFolderError, match="holds no run: it has no config.yaml"):
        read_comparison([run, tmp_path])
