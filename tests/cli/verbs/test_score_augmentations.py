from pathlib import Path

import pytest

from tests.cli.commands import invoke


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--augmentors", "identity,affine"], 2, "kind affine learns from a student"),
        (["--augmentors", "cutmix,cutmix"], 2, "duplicate name 'cutmix'"),
        (["--augmentors", "strong={kind: rand_augment, magnitude: 99}"], 2, "augmentors.strong.magnitude"),
        (["--augmentors", "strong={kind: [}"], 2, "not valid YAML"),
        (["--groups", "1"], 2, "groups"),
        (["--losses", "/no/such/file.json"], 2, "cannot be read as JSON"),
        (["--batch-size", "5000"], 1, "larger than the training split of 1297 images"),
        (["teacher.checkpoint=/no/weights.pt"], 1, "there is no such file"),
    ],
)
def test_mistakes_in_a_comparison_of_augmentations_are_messages_and_start_nothing(
    tmp_path: Path, arguments: list[str], code: int, words: str
):
    done = invoke("score-augmentations", "--preset", "digits", "--output", str(tmp_path / "s"), *arguments)
    assert done.exit_code == code, done.stdout + done.stderr
    assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "s").exists()


def test_scores_are_a_table_that_says_what_is_noise():
    from hard_ray_cli.verbs.score_augmentations import score_lines, score_table
    from rich.console import Console

    facts = {"t_stddev": 0.00415, "standard_error": 0.00012, "behind": 0.0, "behind_error": 0.0, "is_tied": True}
    near = {**facts, "t_stddev": 0.0042, "behind": 0.00005, "behind_error": 0.00004}
    far = {**facts, "t_stddev": 0.0055, "behind": 0.00135, "behind_error": 0.00006, "is_tied": False}
    scores = {"cutmix_pick": facts, "cutmix": near, "identity": far}
    result = {"scores": scores, "groups": 80, "iterations": 5, "batch_size": 64, "correlation": {"pearson": 0.958}}
    console = Console(width=80, record=True)
    console.print(score_table(result))
    first, second, third = [line for line in console.export_text().splitlines() if "±" in line]
    assert "4.150 ± 0.120" in first and "noise" not in first
    assert "0.050 ± 0.040" in second and "within noise" in second
    assert "1.350 ± 0.060" in third and "noise" not in third
    text = " ".join(score_lines(result, Path("s")))
    assert "80 groups of 640 images" in text and "0.958" in text
