"""The recipe of a teacher that has weights already."""

from pathlib import Path

import pytest

from hard_ray.config.loader import load_config
from hard_ray.config.teacher_training import FINE_TUNING, load_teacher_config, teacher_run
from hard_ray.errors import DataError


def test_a_teacher_without_weights_has_the_configurations_own_recipe():
    assert load_teacher_config(preset="digits") == load_config(preset="digits")


@pytest.mark.parametrize(
    "override", ["teacher.pretrained=true", "teacher.checkpoint=t.pt", "teacher.model=local-dir:/t"]
)
def test_a_teacher_with_weights_is_fine_tuned_gently(override: str):
    recipe = load_teacher_config(preset="digits", overrides=[override]).teacher.recipe
    assert {key: getattr(recipe, key) for key in FINE_TUNING} == FINE_TUNING
    assert recipe.lr < load_config(preset="digits").teacher.recipe.lr


def test_what_the_user_says_of_the_recipe_counts(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("teacher: {pretrained: true, recipe: {lr: 0.25, steps: 7}}\n")
    recipe = load_teacher_config([path], overrides=["teacher.recipe.weight_decay=0.5"]).teacher.recipe
    assert (recipe.lr, recipe.steps, recipe.epochs, recipe.weight_decay) == (0.25, 7, None, 0.5)
    assert recipe.warmup_lr == FINE_TUNING["warmup_lr"]


def test_no_teacher_is_trained_on_images_without_labels():
    heap = ["data.kind=images", "data.path=/heap", "data.img_size=16", "teacher.model=local-dir:/tower"]
    with pytest.raises(DataError, match=r"data.kind is images, so that .* `hardray fit-head --kind prototypes`"):
        teacher_run(load_config(overrides=heap))
