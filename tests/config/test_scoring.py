import pytest

from hard_ray.config.augmentor import CutmixAugmentor, PickAugmentor, RandAugmentor
from hard_ray.config.loader import load_config
from hard_ray.config.scoring import DEFAULT_AUGMENTORS, ScoreRun, read_augmentors, score_run
from hard_ray.errors import ConfigError


def run_of(*texts: str, **options: object) -> ScoreRun:
    return score_run(load_config(), read_augmentors(texts), **options)


def test_names_are_kinds_with_default_settings_and_others_say_theirs():
    run = run_of("identity, cutmix,pick", "strong={kind: rand_augment, magnitude: 15, num_ops: 1}")
    assert list(run.augmentors) == ["identity", "cutmix", "cutmix_pick", "strong"]
    assert run.augmentors["cutmix"] == CutmixAugmentor()
    assert run.augmentors["cutmix_pick"] == PickAugmentor()
    assert run.augmentors["strong"] == RandAugmentor(magnitude=15, num_ops=1)


def test_the_default_list_has_every_kind_of_the_paper():
    run = run_of(*DEFAULT_AUGMENTORS)
    assert tuple(run.augmentors) == DEFAULT_AUGMENTORS
    assert (run.groups, run.batch_size, run.seed) == (80, 64, 0)


def test_per_reaches_the_parts_and_yields_to_what_is_said():
    chain = "both={kind: sequence, augmentors: [{kind: flip}, {kind: cutout, per: batch}]}"
    run = run_of("cutmix,pick,identity,random_affine", chain, "own={kind: mixup, per: batch}", per="image")
    assert run.augmentors["cutmix"].per == "image"
    assert run.augmentors["cutmix_pick"].augmentor.per == "image"
    assert [part.per for part in run.augmentors["both"].augmentors] == ["image", "batch"]
    assert run.augmentors["own"].per == "batch"


def test_a_comparison_loads_back_to_the_same():
    run = run_of("cutmix,pick", per="image", groups=5)
    assert ScoreRun.model_validate(run.model_dump(mode="json")) == run


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["affine"], "augmentors.affine: kind affine learns from a student"),
        (["vae"], "kind vae learns from a student"),
        (["x={kind: sequence, augmentors: [{kind: flip}, {kind: mix}]}"], "augmentors.x: kind mix learns"),
        (["x={kind: pick, augmentor: {kind: affine}}"], "augmentors.x: kind affine learns"),
        (["generated"], "takes images that were made beforehand"),
        (["x={kind: pick, score: student_entropy}"], "score student_entropy of kind pick needs the student"),
        (["cutmixx"], "'cutmixx' is unknown; did you mean cutmix?"),
        (["cutmix,flip,cutmix"], "duplicate name 'cutmix'"),
        (["strong=5"], "want KIND or NAME=YAML"),
        (["strong={kind: rand_augment, magnitud: 3}"], "augmentors.strong.magnitud: unknown key; did you mean"),
        (["clean={kind: flip}"], "is the name of the view that all augmentations start from"),
        (["a/b={kind: flip}"], "augmentors.a/b"),
        (["flip,"], "'' is unknown"),
    ],
)
def test_what_cannot_be_scored_is_said(texts: list[str], words: str):
    with pytest.raises(ConfigError) as caught:
        run_of(*texts)
    assert words in str(caught.value)


def test_too_few_groups_are_refused():
    with pytest.raises(ConfigError, match="groups: Input should be greater than or equal to 3"):
        run_of("flip", groups=2)
