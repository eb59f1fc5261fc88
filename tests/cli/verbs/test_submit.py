"""Commands are checked here before anything is sent, and no message shows a secret."""

from pathlib import Path

import pytest

from tests.cli.commands import SECRET, invoke

DISTILL = ("distill", "--preset", "digits", "--output", "/shared/x")


def dry(*command: str, options: tuple[str, ...] = ()):
    return invoke("submit", "--dry-run", *options, "--", *command)


def test_a_dry_run_needs_no_cluster_and_shows_the_names_of_variables_alone(place: Path):
    (place / "a.yaml").write_text("optim: {lr: 0.1}\n")
    (place / "b.txt").write_text("b")
    done = dry("distill", "-c", "a.yaml", "--output", "/shared/x", options=("--env", f"PLACE={SECRET}"))
    assert done.exit_code == 0, done.output
    for words in ("hardray distill -c a.yaml --output /shared/x", "variables  PLACE", "sent       1 files", "  a.yaml"):
        assert words in done.output, done.output
    assert SECRET not in done.output
    assert "b.txt" not in done.output


def test_a_working_directory_sends_its_texts_and_says_what_it_leaves_out(place: Path):
    folder = place / "work"
    folder.mkdir()
    (folder / "a.yaml").write_text("optim: {lr: 0.1}\n")
    (folder / "b.txt").write_text("b")
    (folder / ".env").write_text(SECRET)
    done = dry("distill", "-c", "a.yaml", "--output", "/shared/x", options=("--working-dir", "work"))
    assert done.exit_code == 0, done.output
    assert "  b.txt\n" in done.output
    assert "  .env: its name is that of a secret" in done.output
    assert Path.cwd() == place


def test_a_space_and_its_base_are_sent(place: Path):
    (place / "base.yaml").write_text("data: {kind: digits}\n")
    (place / "space.yaml").write_text(
        "base: {config: base.yaml}\nparameters: {optim.lr: {uniform: [0.1, 0.2]}}\ntrials: 2\nstop: {epoch: 3}\n"
        "metric: val/top1\n"
    )
    done = dry("tune", "--space", "space.yaml", "--output", "/shared/x")
    assert done.exit_code == 0, done.output
    assert "  base.yaml\n  space.yaml\n" in done.output


def test_a_space_is_sent_even_if_its_base_is_where_only_the_cluster_can_read(place: Path):
    (place / "space.yaml").write_text(
        "base: {config: 's3://b/base.yaml?endpoint_override=127.0.0.1:9&scheme=http&region=x'}\n"
        "parameters: {optim.lr: {uniform: [0.1, 0.2]}}\n"
    )
    done = dry("tune", "--space", "space.yaml", "--output", "/shared/x")
    assert done.exit_code == 0, done.output
    assert "the configuration is checked only when the job begins" in " ".join(done.output.split())
    assert "  space.yaml\n" in done.output


def test_a_space_that_tune_takes_is_a_job(place: Path):
    (place / "space.yaml").write_text(
        "base: {preset: digits, overrides: {objective.kind: embedding}}\n"
        "parameters: {optim.lr: {uniform: [0.1, 0.2]}}\n"
    )
    done = dry("tune", "--space", "space.yaml", "--output", "/shared/x")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("distil",), "'distil' is not a verb of hardray; did you mean distill?"),
        (("submit",), "'submit' runs here, not on a cluster"),
        (("distill", "--nooo"), "hardray distill: No such option: --nooo"),
        (("distill", "--preset", "digits"), "give --output: a relative path starts at a copy"),
        (("distill", "--preset", "digits", "--output", "runs/x"), "runs/x: a relative path starts at a copy"),
        (("distill", "--resume", "runs/x"), "runs/x: a relative path starts at a copy"),
        ((*DISTILL, "optim.lrr=1"), "optim.lrr: unknown key"),
        ((*DISTILL, "data.kind=image_folder", "data.path=images"), "data.path images: data and weights are not sent"),
        (("distill", "--data", "images", "--output", "/shared/x"), "data.path images: data and weights are not sent"),
        ((*DISTILL, "runtime.address=h:1"), "runtime.address: a job runs on the cluster that it is sent to"),
        (("distill", "-c", "no.yaml", "--output", "/x"), "-c no.yaml: there is no such file in"),
        ((*DISTILL, f"tracking.uri=http://u:{SECRET}@h"), "word 6 of the command contains an address with a password"),
        (("tune", "--output", "/x"), "hardray tune: give --space FILE, or a shipped space"),
        (("tune", "--space", "cifar10", "--data", "images", "--output", "/x"), "data.path images: data and weights"),
        (("distill", "--resume", "/x", "seed=1"), "--resume takes everything from its folder, got overrides too"),
        (("distill", "--resume", "/a b", "--output", "/c"), "or write --output '/a b' --continue in the place"),
        (("deploy", "render"), "'deploy' runs here, not on a cluster"),
        (("tune", "--space", "digits", "--output", "/x", "teacher.checkpoint=w.pt"), "teacher.checkpoint w.pt: data"),
    ],
)
def test_what_would_fail_on_the_cluster_is_said_before_anything_is_sent(
    place: Path, command: tuple[str, ...], words: str
):
    done = dry(*command)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert SECRET not in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("path", ["data.path=/data/birds", "data.path=~/birds"])
def test_paths_of_the_cluster_are_not_looked_at_here(place: Path, path: str):
    assert dry(*DISTILL, "data.kind=image_folder", path).exit_code == 0


def test_a_configuration_with_a_password_is_refused_by_name(place: Path):
    (place / "a.yaml").write_text(f"tracking: {{uri: 'http://u:{SECRET}@h'}}\n")
    done = dry("distill", "-c", "a.yaml", "--output", "/x")
    assert done.exit_code == 2
    assert "tracking.uri: the address holds a password or a token" in done.output
    assert SECRET not in done.output


def test_variables_come_from_here_or_are_given(place: Path, monkeypatch: pytest.MonkeyPatch):
    from hard_ray.orchestration.jobs.checks import environment

    assert environment(["A=b=c", "B"], {"B": "x"}) == {"A": "b=c", "B": "x"}
    done = dry("show", options=("--env", f"{SECRET}-x"))
    assert done.exit_code == 2
    assert SECRET not in done.output
    for name in ("2A=1", "Ä=1", "A B=1", "=1", "A-B=1"):
        assert "--env number 1 has no valid name" in dry("show", options=("--env", name)).output
    assert "--env NOT_SET: the variable is not set here" in dry("show", options=("--env", "NOT_SET")).output


def test_an_address_is_needed_and_has_to_be_a_dashboards(place: Path):
    assert "give --address http://HOST:8265" in invoke("submit", "--", "show").output
    done = invoke("submit", "--address", f"ray://u:{SECRET}@h:10001", "--", "show")
    assert done.exit_code == 2
    assert "want the dashboard's address" in done.output
    assert SECRET not in done.output
    assert "status needs a job" in invoke("jobs", "status").output


def test_a_head_for_images_without_labels_is_a_job(place: Path):
    (place / "heap.yaml").write_text("data: {kind: images, path: /shared/heap}\n")
    tower = ("--tower", "resnet18", "--pretrained")
    done = dry("fit-head", "--kind", "prototypes", *tower, "-c", "heap.yaml", "--output", "/shared/x")
    assert done.exit_code == 0, done.output
    assert "  heap.yaml" in done.output
