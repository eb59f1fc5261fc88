"""Rules between data.mix, data.augment.splits and the Jensen-Shannon term, and which training gets several views."""

import pytest

from hard_ray.config.loader import load_config, validate
from hard_ray.config.run import RunConfig, as_control, training_data
from hard_ray.config.safe_yaml import dump_yaml, parse_yaml
from hard_ray.config.teacher_training import teacher_run, teacher_training
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.teacher_cache import cached_teacher
from hard_ray.errors import ConfigError

MIX = "data.mix={mixup: 0.8, cutmix: 1.0}"
SPLITS = "data.augment={auto_augment: augmix-m3-w3, splits: 3}"
LABELS = ("objective.kind=cross_entropy", "augmentor={kind: identity}")


def digits(*overrides: str) -> RunConfig:
    return load_config(preset="digits", overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.mix.prob=0.5",), "mixup 0 and cutmix 0 without cutmix_minmax mix nothing"),
        ((MIX, "optim.batch_size=2", "runtime.num_workers=2"), "optim.batch_size 2 leaves runtime.num_workers 2 one"),
        ((MIX, "optim.batch_size=1", "runtime.num_workers=1"), "use at least 2, or data.mix=null"),
        ((MIX, "teacher.recipe.batch_size=1"), "teacher.recipe.batch_size 1 leaves"),
        (
            (MIX, "objective={kind: dad, weighting: released}", "augmentor={kind: generated, path: x, join: mixup}"),
            "augmentor.join=mixup mixes clean and generated images in one batch, and data.mix would",
        ),
        ((SPLITS,), "data.augment.splits 3 makes views that nothing compares"),
        ((*LABELS, "objective.jsd=12"), "objective.jsd 12 compares a network's answers on several views"),
        (("teacher.recipe.jsd=12",), "teacher.recipe.jsd 12 compares a network's answers on several views"),
        ((SPLITS, "experiment.jsd=6", MIX), "experiment.jsd 6 compares views of one image, which data.mix would mix"),
        (("objective.kind=kd", "objective.jsd=1"), "objective.jsd: unknown key here"),
    ],
)
def test_what_cannot_be_right_is_refused(overrides: tuple[str, ...], said: str):
    with pytest.raises(ConfigError) as error:
        digits(*overrides)
    assert said in str(error.value)


@pytest.mark.parametrize("kind", ["hard", "kd", "dkd", "function_matching"])
def test_every_objective_takes_mixed_images(kind: str):
    augmentor = () if kind == "hard" else ("augmentor={kind: cutmix}",)
    assert digits(MIX, f"objective={{kind: {kind}}}", *augmentor).data.mix.switch_prob == 0.5


def splits(config: RunConfig) -> int:
    return training_data(config).augment.splits


def test_only_a_training_that_compares_views_gets_several():
    config = digits(SPLITS, "experiment.jsd=12", "teacher.recipe.jsd=6")
    assert splits(config) == splits(as_control(config, "kd")) == 0
    assert training_data(config).augment.auto_augment == "augmix-m3-w3"
    assert splits(as_control(config, "labels_only")) == splits(teacher_training(config)) == 3
    assert as_control(config, "labels_only").objective.jsd == 12
    assert teacher_run(config).objective.jsd == 6
    assert splits(digits(SPLITS, *LABELS, "objective.jsd=12")) == 3


def test_every_training_of_a_run_with_views_has_a_configuration_that_loads_again():
    for used in ("experiment.jsd=12", "teacher.recipe.jsd=6"):
        config = digits(SPLITS, used)
        for made in (as_control(config, "kd"), as_control(config, "labels_only"), teacher_training(config)):
            assert validate([parse_yaml(dump_yaml(made), "it")], source="it") == made
    config = digits(SPLITS, *LABELS, "objective.jsd=12")
    for made in (as_control(config, "kd"), as_control(config, "labels_only"), teacher_training(config)):
        assert validate([parse_yaml(dump_yaml(made), "it")], source="it") == made
        assert made.data.augment.splits == 0


def test_views_of_a_teacher_whose_recipe_compares_none_are_refused():
    with pytest.raises(ConfigError, match="teacher.recipe.jsd=12"):
        teacher_run(digits(SPLITS, *LABELS, "objective.jsd=12"))


def test_mixing_and_views_make_another_teacher_only_where_it_is_trained_with_them():
    plain = digits()
    index = build_index(plain.data)
    assert cached_teacher(digits("data.mix=null"), index) == cached_teacher(plain, index)
    operations = "data.augment={auto_augment: augmix-m3-w3}"
    found = [(), (MIX,), ("data.mix={mixup: 0.2}",), (operations,), (SPLITS, "teacher.recipe.jsd=12")]
    assert len({cached_teacher(digits(*overrides), index) for overrides in found}) == len(found)
    beside = digits(SPLITS, "experiment.jsd=12")  # the teacher is trained on one view
    assert cached_teacher(beside, index) == cached_teacher(digits(operations), index)
