import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hard_ray.config.distribution import Choice, LogUniform
from hard_ray.config.loader import load_config
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.space import SpaceConfig, load_space, space_names
from hard_ray.errors import ConfigError, StorageError

SPACE = """
base: {preset: digits}
parameters:
  augmentor.strength: {uniform: [0, 1]}
"""


def space_file(folder: Path, text: str = SPACE, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def problems_of(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_space(space_file(folder, text), overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def parameters(key: str, distribution: str, *more: str) -> str:
    return "\n".join(["base: {preset: digits}", "parameters:", f"  {key}: {distribution}", *more])


# ------------------------------------------------------------------------ reading


@pytest.mark.parametrize("name", [".", "", "/"])
def test_what_names_no_file_is_no_space(name: str):
    with pytest.raises(ConfigError, match="there is no such file"):
        load_space(name)


def test_a_space_at_a_url_finds_its_base_beside_it(tmp_path: Path):
    text = SPACE.replace("preset: digits", "config: deep/base.yaml")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/base.yaml").write_text(dump_yaml(load_config(preset="digits", overrides=["optim.steps=7"])))
    space_file(tmp_path, text)
    url = f"file://{tmp_path}/mine.yaml"
    search = load_space(url, ["optim.batch_size=9"])
    assert search.name == "mine"
    assert search.source == url
    assert (search.base.optim.steps, search.base.optim.batch_size) == (7, 9)
    space_file(tmp_path, text.replace("deep/base.yaml", f"file://{tmp_path}/deep/base.yaml"), "other.yaml")
    assert load_space(f"file://{tmp_path}/other.yaml").base.optim.steps == 7
    (tmp_path / "deep/base.yaml").write_text("optim: {lrr: 1}")
    with pytest.raises(ConfigError, match=rf"in file://{tmp_path}/deep/base.yaml:\n  optim.lrr: unknown key"):
        load_space(url)
    (tmp_path / "spaces").mkdir()
    space_file(tmp_path / "spaces", text.replace("deep/base.yaml", "../base.yaml"))
    (tmp_path / "base.yaml").write_text(dump_yaml(load_config(preset="digits", overrides=["optim.steps=5"])))
    assert load_space(f"file://{tmp_path}/spaces/mine.yaml").base.optim.steps == 5
    (tmp_path / "deep/base.yaml").unlink()
    with pytest.raises(StorageError, match=f"{url.replace('mine', 'deep/base')}"):
        load_space(url)


@pytest.mark.parametrize("name", space_names())
def test_every_shipped_space_loads_and_is_valid(name: str):
    search = load_space(name)
    assert search.space.count >= 5
    assert search.source == f"{name}.yaml"
    assert all(metric.startswith("val/") for metric in search.space.metrics)


def test_the_spaces_of_the_readme_are_shipped():
    assert {"digits", "mnist", "cifar10", "imagenet", "imagenet-vit"} <= set(space_names())
    vit = load_space("imagenet-vit").base
    recipe = load_config(preset="dad-vit")
    assert (vit.teacher.model, vit.student, vit.optim) == (recipe.teacher.model, recipe.student, recipe.optim)
    assert (vit.data.augment, vit.data.mix.mixup, vit.data.mix.cutmix) == (recipe.data.augment, 0.8, 1.0)
    assert (vit.objective.kind, vit.augmentor.kind) == ("hard", "affine")


def test_the_working_directory_comes_before_the_shipped_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert load_space("imagenet.yaml").base.student.model == "resnet18"
    space_file(tmp_path, name="imagenet.yaml")
    for name in ("imagenet.yaml", "imagenet"):
        assert load_space(name).base.student.model == "hardray_mlp"
    with pytest.raises(ConfigError, match="no shipped space of that name; did you mean imagenet"):
        load_space("imagnet.yaml")


def test_a_space_has_defaults_and_says_what_each_key_is(tmp_path: Path):
    space = load_space(space_file(tmp_path)).space
    assert (space.search, space.scheduler, space.count, space.concurrency) == ("optuna", "asha", 20, 1)
    assert (space.metrics, space.modes) == (("val/top1",), ("max",))
    assert all(field.description for field in SpaceConfig.model_fields.values())


def test_base_is_a_preset_or_a_file_beside_the_space_with_overrides_above(tmp_path: Path):
    (tmp_path / "own.yaml").write_text(dump_yaml(load_config(preset="digits", overrides=["seed=4"])))
    text = SPACE.replace("{preset: digits}", "{config: own.yaml, overrides: {optim.lr: 0.3, optim.steps: 7}}")
    base = load_space(space_file(tmp_path, text), ["optim.steps=9"]).base
    assert (base.seed, base.optim.lr, base.optim.steps) == (4, 0.3, 9)
    assert "give exactly one of preset and config" in problems_of(tmp_path, SPACE.replace("{preset: digits}", "{}"))


def test_a_space_loads_back_to_the_same(tmp_path: Path):
    for name in space_names():
        space = load_space(name).space
        again = SpaceConfig.model_validate(yaml.safe_load(dump_yaml(space)))
        assert again == space


@pytest.mark.parametrize(
    ("key", "text", "probes"),
    [
        ("augmentor.strength", "{uniform: [0, 1]}", [0.0, 1.0, 0.381966]),
        ("optim.lr", "{loguniform: [1e-3, 1e-1]}", [0.001, 0.1, pytest.approx(0.0388146)]),
        ("augmentor.max_rotation", "{quniform: [10, 40, 5]}", [10.0, 40.0, 15.0]),
        ("optim.batch_size", "{randint: [16, 64]}", [16, 64, 17]),
        ("optim.batch_size", "{lograndint: [16, 64]}", [16, 64, 17]),
        ("optim.sched", "{choice: [cosine, constant]}", ["cosine", "constant", "cosine"]),
        ("objective.cap", "{choice: [null, 2.5]}", [None, 2.5, None]),
    ],
)
def test_each_kind_of_distribution_is_tried_at_its_ends(tmp_path: Path, key: str, text: str, probes: list):
    search = load_space(space_file(tmp_path, parameters(key, text)))
    drawn = search.space.parameters[key]
    assert [*drawn.ends(), drawn.between()] == probes
    assert str(drawn).startswith(text[1 : text.index(":")])


def test_values_are_put_into_the_base_configuration(tmp_path: Path):
    search = load_space(space_file(tmp_path))
    config = search.with_values({"augmentor.strength": 0.5, "optim.epochs": 3})
    assert (config.augmentor.strength, config.optim.epochs, config.optim.steps) == (0.5, 3, None)
    assert config.objective == search.base.objective


# ------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (parameters("optim.lrr", "{uniform: [0, 1]}"), "parameters.optim.lrr: unknown key; did you mean optim.lr?"),
        (
            parameters("augmentor.strength", "{uniform: [0, 2]}"),
            "parameters.augmentor.strength: 2 of uniform [0, 2] is refused: Input should be less than or equal to 1",
        ),
        (
            parameters("augmentor.strength", "{uniform: [-1, 1]}"),
            "parameters.augmentor.strength: -1 of uniform [-1, 1] is refused",
        ),
        (
            parameters("optim.batch_size", "{uniform: [16, 64]}"),
            "34.3344 of uniform [16, 64] is refused: Input should be a valid integer",
        ),
        (parameters("optim.sched", "{choice: [cosine, cosin]}"), "cosin of choice [cosine, cosin] is refused"),
        (parameters("objective.alpha", "{uniform: [0, 1]}"), "unknown key here; another kind of objective has it"),
        (parameters("optim.lr", "{unifrm: [0, 1]}"), "'unifrm' is not a distribution; did you mean uniform?"),
        (parameters("optim.lr", "0.1"), "parameters.optim.lr: want one distribution, such as {uniform: [0, 1]}"),
        (parameters("optim.lr", "{uniform: [0, 1], choice: [1]}"), "parameters.optim.lr: want one distribution"),
        (parameters("optim.lr", "{uniform: [1, 0.5]}"), "want a lower and a higher end, got uniform [1, 0.5]"),
        (parameters("optim.lr", "{loguniform: [0, 1]}"), "a logarithm needs ends above 0"),
        (parameters("optim.lr", "{quniform: [0.05, 0.21, 0.1]}"), "ends that are multiples of the step 0.1"),
        (parameters("optim.lr", "{uniform: [0]}"), "parameters.optim.lr.uniform"),
        (parameters("optim.lr", "{choice: []}"), "parameters.optim.lr.choice"),
        (parameters("optim.lr", "{choice: [1, 1]}"), "duplicate value"),
        (parameters("teacher.model", "{choice: [resnet18, resnet50]}"), "teacher is the same for all trials"),
        (parameters("data.img_size", "{choice: [32]}"), "set it in base"),
        ("base: {preset: digits}", "parameters: is required"),
        ("base: {preset: digits}\nparameters: {}", "parameters: Dictionary should have at least 1 item"),
        (f"{SPACE}\nschedular: asha", "schedular: unknown key; did you mean scheduler?"),
        (f"{SPACE}\nscheduler: pbt", "scheduler: pbt copies one trial's Tune checkpoint into another"),
        (f"{SPACE}\nsearch: grid", "search: grid tries every value, and uniform [0, 1] has no list of them"),
        (f"{SPACE}\nmetric: test/top1", "never used to choose anything; use val/top1"),
        (f"{SPACE}\nmetric: val/top5", "'val/top5' is not what an evaluation reports; there are val/top1"),
        (f"{SPACE}\nmetric: val/translate/top1", "validate.suites of the base configuration are clean, shifted"),
        (f"{SPACE}\nmetric: val/loss\nmode: max", "mode: max of val/loss would look for the worst; use min"),
        (f"{SPACE}\nmetric: [val/top1, val/loss]", "asha compares trials by one metric"),
        (
            f"{SPACE}\nmetric: [val/top1, val/loss]\nscheduler: none\nmode: [max]",
            "want one for each metric, got 1 for 2",
        ),
        (f"{SPACE}\nstop: {{epochs: 3}}", "stop.epochs: 'epochs' is not what an evaluation reports"),
        (f"{SPACE}\ntrials: 0", "trials: Input should be greater than 0"),
        (SPACE.replace("digits", "digitz"), "no preset is named 'digitz'; did you mean digits?"),
        (SPACE.replace("}\np", ", overrides: {optim.lr: -1}}\np"), "optim.lr: Input should be greater than 0"),
        ("base: [", "not valid YAML"),
    ],
)
def test_a_mistake_says_where_it_is_and_what_is_wanted(tmp_path: Path, text: str, words: str):
    message = problems_of(tmp_path, text)
    assert words in message
    assert "mine.yaml" in message or "preset" in message
    assert "Value error" not in message


def test_every_mistake_is_in_one_message(tmp_path: Path):
    more = [
        "  optim.lrr: {uniform: [0, 1]}",
        "  objective.temperature: {uniform: [-1, 1]}",
        "metric: val/translate/top1",
    ]
    message = problems_of(tmp_path, parameters("seed", "{choice: [-1]}", *more))
    assert message.startswith("4 problems in ")


def test_every_choice_of_a_kind_is_tried_with_the_other_settings(tmp_path: Path):
    kinds = parameters("augmentor.kind", "{choice: [affine, random_affine]}", "  augmentor.strength: {uniform: [0, 1]}")
    assert load_space(space_file(tmp_path, kinds)).space.count == 20
    message = problems_of(tmp_path, kinds.replace("strength: {uniform: [0, 1]}", "hidden_dim: {randint: [8, 9]}"))
    assert "parameters.augmentor.hidden_dim: unknown key here; another kind of augmentor has it" in message


def test_a_grid_is_every_combination(tmp_path: Path):
    text = parameters("seed", "{choice: [0, 1, 2]}", "  optim.sched: {choice: [cosine, constant]}", "search: grid")
    assert load_space(space_file(tmp_path, text)).space.count == 6
    assert "grid makes 6 trials, one for each combination, got 5" in problems_of(tmp_path, f"{text}\ntrials: 5")


def test_several_metrics_have_a_direction_each(tmp_path: Path):
    several = f"{SPACE}\nscheduler: none\nmetric: [val/top1, val/shifted/loss]"
    assert load_space(space_file(tmp_path, several)).space.modes == ("max", "min")


def test_distributions_compare_by_their_numbers():
    assert Choice(choice=[1, 2]) == Choice(choice=(1, 2))
    assert LogUniform(loguniform=(1, 2)) != LogUniform(loguniform=(1, 3))


def test_elastic_workers_are_refused_because_trials_are_compared(tmp_path: Path):
    text = problems_of(tmp_path, SPACE, "runtime.num_workers=4", "runtime.min_workers=2")
    assert "runtime.min_workers 2 lets a trial go on with fewer workers than another" in text


def test_a_mistake_is_found_without_torch_or_ray(tmp_path: Path):
    path = space_file(tmp_path, parameters("augmentor.strength", "{uniform: [0, 3]}"))
    code = f"""
import sys, hard_ray_cli.main
try:
    hard_ray_cli.main.app(["tune", "--space", {path!r}])
except SystemExit as end:
    print(end.code, [m for m in ("torch", "ray", "mlflow", "optuna", "numpy") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "2 []", done.stderr
    assert "3 of uniform [0, 3] is refused" in done.stderr


# ------------------------------------------------------------------- without labels

HEAP = """
base:
  preset: cifar10
  overrides: {data.kind: images, data.path: /heap, data.img_size: 32, teacher.model: "local-dir:/teacher"}
parameters:
  augmentor.strength: {uniform: [0, 1]}
"""


def test_a_search_on_images_without_labels_optimises_agreement(tmp_path: Path):
    space = load_space(space_file(tmp_path, HEAP)).space
    assert (space.metric, space.metrics, space.modes) == ("val/agreement", ("val/agreement",), ("max",))
    assert load_space(space_file(tmp_path, f"{HEAP}\nmetric: val/loss")).space.modes == ("min",)


def test_the_resolved_metric_is_what_a_saved_space_says(tmp_path: Path):
    for text, metric in ((SPACE, "val/top1"), (HEAP, "val/agreement")):
        space = load_space(space_file(tmp_path, text)).space
        assert yaml.safe_load(dump_yaml(space))["metric"] == metric


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("metric: val/top1", "metric: val/top1 is measured with labels, and data.kind is images, so that the images"),
        ("metric: val/ece", "use val/agreement"),
        ("stop: {val/shifted/top1: 90}", "stop.val/shifted/top1: val/shifted/top1 is measured with labels"),
        ("stop: {val/shifted/top1: 90}", "use val/shifted/agreement"),
    ],
)
def test_a_metric_of_labels_is_refused_where_there_are_none(tmp_path: Path, more: str, said: str):
    assert said in problems_of(tmp_path, f"{HEAP}\n{more}")
