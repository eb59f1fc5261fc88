from pathlib import Path
from typing import get_args

from experiments.rows import read_rows, read_tables, rows_of
from hard_ray.config.loader import load_config
from hard_ray.config.scoring import read_augmentors, score_run
from hard_ray.config.teacher_training import load_teacher_config, teacher_run
from hard_ray.config.validation import Suite
from hard_ray.evaluation.suites import conditions

FOLDERS = {
    name: f"/{name.lower()}"
    for name in (
        "CIFAR10",
        "CIFAR10_5K",
        "CIFAR10_1K",
        "CIFAR10_500",
        "PROTOTYPES",
        "PUBLISHED_PROTOTYPES",
        "AUTOENCODER",
        "TEACHER",
        "STUDENT",
        "VQ",
        "DAD",
        "RESNET20",
        "ROBUST",
        "PLAIN",
        "ROBUST_TEACHER",
        "ROBUST_DAD",
        "PATCHES",
    )
} | {"MNIST": "/m n"}


def test_every_row_is_a_valid_run_of_its_seed():
    for row in read_rows(read_tables()):
        verb, *arguments = row.arguments(FOLDERS)
        assert verb == row.verb
        assert verb in ("distill", "train-teacher", "score-augmentations")
        assert arguments[0] == "--preset"
        options, overrides = divided(arguments)
        load = load_teacher_config if verb == "train-teacher" else load_config
        config = load(preset=options["--preset"], overrides=overrides)
        run = teacher_run(config) if verb == "train-teacher" else config
        assert run.seed == row.seed
        if "--augmentors" in options:
            assert score_run(config, read_augmentors([options["--augmentors"]]), per="image").augmentors
        assert set(row.missing({})) <= set(FOLDERS)
        assert row.missing(FOLDERS) == []


def divided(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options of a command with their values, and its overrides."""
    options, overrides = {}, []
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            options[word] = next(rest)
        else:
            overrides.append(word)
    return options, overrides


def test_a_row_that_trains_a_teacher_has_the_seed_of_its_recipe():
    table = {"command": "train-teacher --preset x", "seeds": [3], "variants": {"plain": ""}}
    assert read_rows({"t": table})[0].command == "train-teacher --preset x teacher.recipe.seed=3"


def test_conditions_that_are_called_seen_are_conditions_of_the_suite():
    tables = [table["conditions"] for table in read_tables().values() if "conditions" in table]
    assert tables
    for table in tables:
        assert table["suite"] in get_args(Suite)
        names = {condition.name for condition in conditions(table["suite"], img_size=32)}
        assert set(table["seen"]) < names


def test_folders_with_spaces_stay_one_word():
    (row, *_) = [row for row in read_rows(read_tables()) if row.table == "mnist-shift"]
    assert "data.path=/m n" in row.arguments(FOLDERS)


def test_all_variants_of_a_seed_come_before_the_next_seed():
    seeds = [row.seed for row in read_rows(read_tables()) if row.table == "cifar10"]
    assert seeds == sorted(seeds)


RAW = """
methods:
  cutmix: augmentor.kind=cutmix
  cutmix-image: "@cutmix augmentor.per=image"
bases:
  short: {command: distill --preset x, seeds: [0, 1], columns: [clean]}
tables:
  views:
    base: short
    title: Views
    first: [late]
    variants: {early: "@cutmix-image data.hflip=0", late: ""}
  long:
    base: short
    command: optim.stretch=4
    seeds: [7]
    variants: {x1: =views/early, x4: "@cutmix"}
  listed: {base: short, variants: [cutmix-image]}
"""


def written(folder: Path) -> dict:
    path = folder / "rows.yaml"
    path.write_text(RAW)
    return read_tables(path)


def test_a_table_has_the_keys_and_the_command_of_its_base_and_the_words_of_methods(tmp_path: Path):
    tables = written(tmp_path)
    assert tables["views"]["columns"] == ["clean"]
    assert tables["listed"]["variants"] == {"cutmix-image": "augmentor.kind=cutmix augmentor.per=image"}
    commands = {row.name: row.command for row in read_rows(tables)}
    assert commands["views-early-s1"] == (
        "distill --preset x seed=1 augmentor.kind=cutmix augmentor.per=image data.hflip=0"
    )
    assert commands["views-late-s0"] == "distill --preset x seed=0"
    assert commands["long-x4-s7"] == "distill --preset x optim.stretch=4 seed=7 augmentor.kind=cutmix"


def test_rows_that_come_first_have_all_their_seeds_before_the_others(tmp_path: Path):
    names = [row.name for row in read_rows(written(tmp_path)) if row.table == "views"]
    assert names == ["views-late-s0", "views-late-s1", "views-early-s0", "views-early-s1"]


def test_a_row_of_another_table_is_shown_with_its_own_seeds_and_not_run_again(tmp_path: Path):
    tables = written(tmp_path)
    assert [row.name for row in read_rows(tables) if row.table == "long"] == ["long-x4-s7"]
    shown = {variant: [row.name for row in rows] for variant, rows in rows_of("long", tables).items()}
    assert shown == {"x1": ["views-early-s0", "views-early-s1"], "x4": ["long-x4-s7"]}


def test_every_row_that_a_table_borrows_or_names_is_there():
    tables = read_tables()
    for name, table in tables.items():
        assert rows_of(name, tables)
        assert set(table.get("first", [])) <= set(table["variants"])
        front = table.get("front", {})
        named = [front["kd"], *front["hard"], *front.get("learned", []), *front.get("aside", [])] if front else []
        assert set(named) <= set(table["variants"])
        assert table.get("losses", name) in tables
