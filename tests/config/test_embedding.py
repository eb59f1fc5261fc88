"""`objective.kind=embedding`: what has no classes is refused with the remedy."""

from pathlib import Path

import pytest

from hard_ray.config.loader import load_config
from hard_ray.config.run import as_control, refuse_embedding
from hard_ray.config.space import load_space
from hard_ray.errors import ConfigError

EMBEDDING = "objective.kind=embedding"
FIT_HEAD = "`hardray fit-head --kind prototypes`"


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("augmentor={kind: pick}", "augmentor.kind=pick, whose scores compare classes"),
        ("augmentor={kind: adversarial}", "augmentor.kind=adversarial, which attacks the answer of a class"),
        ("augmentor={kind: sequence, augmentors: [{kind: flip}, {kind: adversarial}]}", "augmentor.kind=adversarial"),
        ("validate.final=[adversarial]", "the suite adversarial, which attacks the answer of a class"),
        ("teacher.class_map=names.txt", "teacher.class_map, which names the outputs of a class head"),
        ("student.new_head=true", "student.new_head, which is a class head"),
        ("experiment.controls=[labels_only]", "the control labels_only, which learns classes"),
    ],
)
def test_what_needs_classes_is_refused_with_the_command_that_makes_some(override: str, what: str):
    load_config(preset="digits", overrides=[override])  # with classes it is fine
    with pytest.raises(ConfigError) as caught:
        load_config(preset="digits", overrides=[EMBEDDING, override])
    (problem,) = caught.value.problems
    assert f"objective.kind embedding has no classes, got {what}" in problem
    assert FIT_HEAD in problem


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.w_clean=0", "augmentor={kind: identity}"], "leaves no view to learn from"),
        (["objective.w_clean=0", "objective.w_aug=0"], "leaves no view to learn from"),
        (["objective.w_clean=0"], "use controller.thresholds=absolute or controller.policy=fixed"),
        (["objective.cap=2.5"], "objective.cap"),
        (["objective.temperature=4"], "objective.temperature"),
    ],
)
def test_settings_that_make_no_sense_for_an_embedding_are_refused(overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(preset="digits", overrides=[EMBEDDING, *overrides])


@pytest.mark.parametrize("key", ["runtime.compile", "runtime.teacher.compile"])
def test_tokens_of_compiled_networks_are_refused(key: str):
    load_config(preset="digits", overrides=[EMBEDDING, f"{key}=true"])
    with pytest.raises(ConfigError, match=rf"{key} compiles .* use {key}=false, or objective.w_tokens=0"):
        load_config(preset="digits", overrides=[EMBEDDING, "objective.w_tokens=1", f"{key}=true"])


def test_tokens_are_of_an_embedding_alone():
    assert load_config(overrides=[EMBEDDING]).objective.w_tokens == 0
    with pytest.raises(ConfigError, match=r"objective\.w_tokens"):
        load_config(overrides=["objective.w_tokens=1"])
    with pytest.raises(ConfigError, match=r"objective\.w_tokens"):
        load_config(overrides=[EMBEDDING, "objective.w_tokens=-1"])


def test_augmented_images_alone_are_learned_with_absolute_thresholds():
    load_config(preset="digits", overrides=[EMBEDDING, "objective.w_clean=0", "controller.thresholds=absolute"])


def test_a_presets_control_of_labels_is_left_out_and_a_users_own_is_not(tmp_path: Path):
    assert load_config(preset="digits", overrides=[EMBEDDING]).experiment.controls == ("kd",)
    assert load_config(preset="digits").experiment.controls == ("labels_only", "kd")
    file = tmp_path / "mine.yaml"
    file.write_text("objective: {kind: embedding}\n")
    assert load_config([file], preset="digits").experiment.controls == ("kd",)
    back = load_config([file], preset="digits", overrides=["objective.kind=hard"])
    assert back.experiment.controls == ("labels_only", "kd")


def test_other_verbs_refuse_an_embedding_with_a_reason():
    config = load_config(overrides=[EMBEDDING])
    with pytest.raises(ConfigError, match=r"has no classes, and a recommendation compares accuracies; use .*fit-head"):
        refuse_embedding(config, "a recommendation compares accuracies")
    refuse_embedding(load_config(), "nothing is refused")


def test_a_control_of_an_embedding_is_a_valid_configuration():
    config = load_config(preset="digits", overrides=[EMBEDDING, "experiment.controls=[kd, random]"])
    for name in config.experiment.controls:
        control = as_control(config, name)
        assert type(control).model_validate(control.model_dump(by_alias=True)) == control


SPACE = """
base: {preset: digits, overrides: {objective.kind: KIND}}
parameters:
  KEY: VALUES
metric: METRIC
"""


def space_of(folder: Path, kind: str, key: str, values: str, metric: str) -> str:
    path = folder / "mine.yaml"
    text = SPACE.replace("KIND", kind).replace("KEY", key).replace("VALUES", values).replace("METRIC", metric)
    path.write_text(text)
    return str(path)


def test_a_search_of_embeddings_is_judged_by_cosine_and_no_other(tmp_path: Path):
    strength = ("augmentor.strength", "{uniform: [0, 1]}")
    search = load_space(space_of(tmp_path, "embedding", *strength, "val/cosine"))
    assert search.space.modes == ("max",)
    assert search.base.experiment.controls == ("kd",)
    load_space(space_of(tmp_path, "embedding", *strength, "val/loss"))
    with pytest.raises(ConfigError, match="metric: val/top1 is not reported with objective.kind embedding"):
        load_space(space_of(tmp_path, "embedding", *strength, "val/top1"))
    with pytest.raises(ConfigError, match="metric: val/cosine is not reported with objective.kind hard"):
        load_space(space_of(tmp_path, "hard", *strength, "val/cosine"))


def test_a_search_does_not_ask_one_teacher_with_and_without_classes(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"embedding needs a teacher without its class head, and all trials ask one"):
        load_space(space_of(tmp_path, "hard", "objective.kind", "{choice: [hard, embedding]}", "val/top1"))


def test_a_search_asks_one_teacher_with_tokens(tmp_path: Path):
    path = space_of(tmp_path, "embedding", "objective.w_tokens", "{choice: [0.5, 1]}", "val/cosine")
    load_space(path, ["objective.w_tokens=1"])
    with pytest.raises(ConfigError, match="all trials ask one teacher; want weights above 0 alone"):
        load_space(path)
    path = space_of(tmp_path, "embedding", "objective.w_tokens", "{uniform: [0, 1]}", "val/cosine")
    with pytest.raises(ConfigError, match="all trials ask one teacher; want weights above 0 alone"):
        load_space(path, ["objective.w_tokens=1"])
