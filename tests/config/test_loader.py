import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hard_ray.config.layers import merge, parse_overrides
from hard_ray.config.loader import absolute, load_config, validate
from hard_ray.config.presets import preset_description, preset_names
from hard_ray.config.problems import known_keys
from hard_ray.config.records import Control
from hard_ray.config.run import RunConfig, as_control
from hard_ray.config.safe_yaml import dump_yaml, parse_yaml
from hard_ray.errors import ConfigError


def problems_of(*overrides: str, preset: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(preset=preset, overrides=overrides)
    return str(caught.value)


def test_changing_kind_replaces_the_block():
    config = load_config(overrides=["augmentor.max_shift=0.1", "data.kind=idx", "data.path=/x"])
    assert config.augmentor.max_shift == 0.1
    assert config.data.kind == "idx"
    assert not hasattr(config.data, "digit_size")
    base = {"data": {"kind": "image_folder", "path": "/a", "hflip": 0.25}}
    assert merge(base, {"data": {"kind": "idx", "path": "/b"}}) == {"data": {"kind": "idx", "path": "/b"}}


def test_a_block_of_the_same_kind_is_merged_key_by_key():
    base = {"data": {"kind": "idx", "path": "/a"}, "optim": {"lr": 1, "opt": "sgd"}}
    merged = merge(base, {"data": {"path": "/b"}, "optim": {"lr": 2}})
    assert merged == {"data": {"kind": "idx", "path": "/b"}, "optim": {"lr": 2, "opt": "sgd"}}


def test_later_layers_win(tmp_path: Path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("optim: {lr: 0.1, momentum: 0.5}\nseed: 1\n")
    two.write_text("optim: {lr: 0.2}\nseed: 2\n")
    config = load_config([one, two], overrides=["seed=3"])
    assert (config.optim.lr, config.optim.momentum, config.seed) == (0.2, 0.5, 3)


def test_defaults_count_where_no_layer_says_otherwise(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {img_size: 64}\n")
    defaults = {"data": {"kind": "image_folder", "path": "/a", "hflip": 0.25}}
    data = load_config([path], overrides=["data.path=/b"], defaults=defaults).data
    assert (data.kind, data.path, data.img_size, data.hflip) == ("image_folder", Path("/b"), 64, 0.25)
    assert load_config([path], preset="digits", defaults=defaults).data.kind == "digits"
    assert load_config([path], overrides=["data={kind: idx, path: /b}"], defaults=defaults).data.kind == "idx"


def test_a_length_in_steps_replaces_one_in_epochs():
    assert load_config(overrides=["optim.epochs=7"]).optim.steps is None
    config = load_config(preset="digits", overrides=["optim.epochs=7"])
    assert (config.optim.epochs, config.optim.steps) == (7, None)


def test_scientific_notation_that_yaml_takes_for_text_is_a_number():
    assert load_config(overrides=["optim.lr=3e-4"]).optim.lr == 3e-4


def test_every_mistake_is_in_one_message():
    text = problems_of(
        "optim.stepz=100",
        "augmentor.max_rotation=400",
        "seed=-1",
        "validate.suites=[cleen]",
        "objective.kind=cross_entropy",
    )
    assert text.startswith("5 problems in the overrides:")
    assert "optim.stepz: unknown key; did you mean optim.steps?" in text
    assert "augmentor.max_rotation: Input should be less than or equal to 180 (got 400)" in text
    assert "seed:" in text
    assert "validate.suites.0:" in text
    assert "use augmentor.kind=identity" in text  # a disagreement between blocks, although two blocks are broken


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.batch_size=63 runtime.num_workers=2", "optim.batch_size 63 cannot be divided"),
        ("teacher.recipe.batch_size=63 runtime.num_workers=2", "teacher.recipe.batch_size 63 cannot be divided"),
        ("optim.steps=3 optim.epochs=3", "give exactly one of epochs and steps, got epochs=3 and steps=3"),
        ("runtime.teacher.max_wait_ms=4", "max_batch is not set"),
        ("runtime.min_workers=3", "min_workers 3 is more than num_workers 1"),
        ("runtime.teacher.min_replicas=1", "max_replicas is not set"),
        (
            "runtime.teacher.max_replicas=3 runtime.teacher.replicas=4",
            "is not between min_replicas 4 and max_replicas 3",
        ),
        ("runtime.teacher.max_replicas=3 runtime.teacher.placement=colocated", "max_replicas needs a pool"),
        ("controller.min_student_steps=50", "min_student_steps 50 exceeds max_student_steps 40"),
        ("objective.kind=kd", "only objective.kind hard and embedding train an augmentor"),
        ("objective.w_clean=0", "leave clean images out, whose KD loss"),
        ("objective.kind=cross_entropy augmentor.kind=random_affine", "random_affine needs the teacher's answer"),
        ("objective.kind=cross_entropy augmentor.kind=trivial_augment", "use augmentor.kind=identity"),
        ("experiment.random.max_scale=0.5", "experiment.random.max_scale: Input should be greater than or equal to 1"),
        ("experiment.random.kind=affine", "experiment.random.kind"),
        ("validate.final=[shift]", "validate.final.0"),
        ("validate.corruption_images=0", "validate.corruption_images: Input should be greater than 0"),
        ("data.kind=idx", "data.path: is required"),
        ("data.kind=image-folder", "data.kind: 'image-folder' is unknown; did you mean image_folder?"),
        ("data.kind=foo", "data.kind: 'foo' is unknown; there are digits, idx, image_folder"),
        ("data.digit_size=40", "digit_size 40 does not fit"),
        ("student.mean=[0.5,0.5]", "student.mean has 2 values for 1 channels"),
        ("optim", "want dotted.key=value"),
        ("optim.lr=[1", "not valid YAML"),
        ("objective.temprature=3", "did you mean objective.temperature?"),
        (
            "objective.kind=kd augmentor.kind=random_affine augmentor.noise_dim=8",
            "augmentor.noise_dim: unknown key here; another kind of augmentor has it",
        ),
    ],
)
def test_a_mistake_says_what_is_wanted(override: str, words: str):
    assert words in problems_of(*override.split())


def test_unreadable_files_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"missing.yaml:\n  cannot read the file"):
        load_config([tmp_path / "missing.yaml"])
    twice = tmp_path / "twice.yaml"
    twice.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match="duplicate key"):
        load_config([twice])
    listing = tmp_path / "list.yaml"
    listing.write_text("- 1\n")
    with pytest.raises(ConfigError, match="got a list"):
        load_config([listing])


def test_yaml_cannot_make_objects(tmp_path: Path):
    evil = tmp_path / "evil.yaml"
    evil.write_text("seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config([evil])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!bool maybe", "this value cannot be read as bool (line 1, column 4)"),
        ("a: 1\nb: !!int ''", "this value cannot be read as int (line 2, column 4)"),
        ("a: [!!timestamp x]", "the tag !!timestamp is none of YAML 1.2's core schema; leave it out"),
        ("a: !!set {b}", "the tag !!set is none of YAML 1.2's core schema"),
        ("a: !!int 0b1", "this value cannot be read as int (line 1, column 4)"),
        ("a:\n\t- 1", "cannot start any token (line 2, column 1); indent with spaces"),
        ("%YAML 1.1\n---\na: 1", "the directive %YAML 1.1, and this is read as YAML 1.2; remove the line"),
        ("a: !!int hunter22", "this value cannot be read as int (line 1, column 4)"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("a: [1,\nb: {", "while parsing a flow node (line 2, column 5): expected the node content"),
        ("a: 1\na: 2", "duplicate key 'a'; keep one of them (line 2, column 1)"),
        ("{1: a, 1: b}", "duplicate key 1; keep one of them (line 1, column 8)"),
        ("<<: {a: 1}\n<<: {b: 2}", "duplicate key '<<'; keep one of them (line 2, column 1)"),
        ("a: \0", "unacceptable character #x0000"),
    ],
)
def test_a_mistake_in_yaml_has_its_line(text: str, words: str):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "mine.yaml")
    assert words in str(caught.value)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_survives_a_round_trip(name: str):
    config = load_config(preset=name)
    text = dump_yaml(config)
    assert validate([yaml.safe_load(text)], source="round trip") == config
    assert len(preset_description(name)) > 20
    for control in get_args(Control):
        assert validate([yaml.safe_load(dump_yaml(as_control(config, control)))], source=control)


def test_controls_train_the_same_student_without_a_learned_augmentor():
    config = load_config(
        preset="mnist-shift", overrides=["objective.temperature=3", "experiment.random.padding=border"]
    )
    kinds = {control: as_control(config, control) for control in get_args(Control)}
    assert {control: (made.objective.kind, made.augmentor.kind) for control, made in kinds.items()} == {
        "labels_only": ("cross_entropy", "identity"),
        "kd": ("kd", "identity"),
        "random": ("kd", "random_affine"),
    }
    random = kinds["random"]
    assert random.augmentor == config.experiment.random
    assert (random.augmentor.max_shift, random.augmentor.max_rotation, random.augmentor.padding) == (
        0.1071,
        0,
        "border",
    )
    assert random.objective == kinds["kd"].objective
    assert (random.objective.temperature, random.optim, random.validation) == (3, config.optim, config.validation)
    assert (random.experiment.name, random.experiment.controls) == ("random", ())


@pytest.mark.parametrize("kind", ["random_affine", "trivial_augment"])
@pytest.mark.parametrize("objective", ["hard", "kd", "dkd", "function_matching"])
def test_a_fixed_augmentor_goes_with_every_objective_that_asks_the_teacher(kind: str, objective: str):
    config = load_config(overrides=[f"augmentor.kind={kind}", f"objective.kind={objective}"])
    assert config.augmentor.kind == kind


def test_the_suites_at_the_end_are_those_of_training_and_the_final_ones_each_once():
    config = load_config(overrides=["validate.suites=[clean, translate]", "validate.final=[shifts, translate]"])
    assert config.validation.at_the_end == ("clean", "translate", "shifts")
    assert load_config().validation.at_the_end == ("clean",)


def test_an_unknown_preset_is_answered_with_a_near_one():
    with pytest.raises(ConfigError, match="did you mean digits"):
        load_config(preset="digit")


def test_every_field_has_a_help_text():
    schema = RunConfig.model_json_schema()
    for name, definition in schema["$defs"].items():
        assert definition.get("description"), name
        for field, value in definition["properties"].items():
            is_block = "$ref" in value or "oneOf" in value
            assert value.get("description") or is_block or "const" in value, f"{name}.{field}"


def test_known_keys_are_the_keys_of_the_dump():
    dumped = RunConfig().model_dump(mode="json")
    known = set(known_keys(RunConfig))

    def walk(block: dict, prefix: str) -> None:
        for key, value in block.items():
            assert prefix + key in known
            if isinstance(value, dict) and key != "model_kwargs":
                walk(value, f"{prefix}{key}.")

    walk(dumped, "")


def test_a_frozen_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().optim.lr = 1.0


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_overrides_never_end_in_a_traceback(text: str):
    try:
        load_config(overrides=[text])
    except ConfigError as error:
        assert re.match(r"\d+ problems? in", str(error))


def test_nested_overrides_share_a_block():
    assert parse_overrides(["a.b=1", "a.c=[1, 2]"]) == {"a": {"b": 1, "c": [1, 2]}}
    with pytest.raises(ConfigError, match="was already given a value"):
        parse_overrides(["a=1", "a.b=2"])


def test_paths_are_made_absolute_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(
        overrides=[
            "data.kind=image_folder",
            "data.path=birds",
            "teacher.model=local-dir:models/t",
            "student.checkpoint=/s.safetensors",
            "tracking.uri=sqlite:///runs/mlflow.db",
            "augmentor={kind: sequence, augmentors: [{kind: vae, autoencoder: {model: ae}}]}",
        ]
    )
    known = absolute(config)
    assert known.data.path == tmp_path / "birds"
    assert known.teacher.model == f"local-dir:{tmp_path}/models/t"
    assert known.student.checkpoint == Path("/s.safetensors")
    assert known.tracking.uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert known.augmentor.augmentors[0].autoencoder.model == f"local-dir:{tmp_path}/ae"
    assert absolute(known) == known
    assert known.optim == config.optim


@pytest.mark.parametrize(("given", "mode"), [("false", None), ("true", "default"), ("max-autotune", "max-autotune")])
def test_compile_is_off_torchs_default_or_a_named_mode(given: str, mode: str | None):
    config = load_config(overrides=[f"runtime.compile={given}", f"runtime.teacher.compile={given}"])
    assert config.runtime.compile_mode == config.runtime.teacher.compile_mode == mode
    assert validate([parse_yaml(dump_yaml(config), "saved")], source="saved") == config


def test_compilation_that_cannot_hold_what_it_says_is_refused():
    assert "runtime.compile" in problems_of("runtime.compile=fastest")
    joined = problems_of("runtime.teacher.compile=true", "runtime.teacher.max_batch=64")
    assert "max_batch 64 joins requests to ever new ones; set compile=false" in joined
    for key in ("compile", "teacher.compile"):
        timed = problems_of("runtime.deterministic=true", f"runtime.{key}=max-autotune")
        assert f"{key} max-autotune times them; use {key}=default" in timed


def test_only_a_training_of_a_student_needs_a_teacher_for_images_without_labels():
    given = ["data.kind=images", "data.path=/heap", "experiment.controls=[labels_only]"]
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=given)
    assert "no teacher can be trained on the images" in str(caught.value)
    assert "labels_only" in str(caught.value)
    assert load_config(overrides=given, trains=False).data.kind == "images"
    with pytest.raises(ConfigError, match="weight"):
        load_config(overrides=[*given, "optim.weight_decay=-1"], trains=False)
