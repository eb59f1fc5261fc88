"""The pages say what the code does: references, commands, YAML, links, and the site as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from documentation import run
from documentation.api_page import read_docstring
from documentation.cli_page import commands
from documentation.commands import VERBS_TO_COME, mistake
from documentation.configuration_page import RULES
from documentation.equations import equation
from documentation.pages import DOCS, ROOT, blocks, hardray_arguments, mentions, pages
from documentation.reference import PAGES
from hard_ray.config.loader import load_config, validate
from hard_ray.config.problems import known_keys
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.errors import ConfigError

SHOWN = [block for page in pages() for block in blocks(page)]
LINES = [(block, line) for block in SHOWN if block.language == "bash" for line in block.commands]
HARDRAY_LINES = [(block, line) for block, line in LINES if hardray_arguments(line)]


def test_every_page_is_in_the_navigation_once_and_decisions_are_in_their_index():
    there = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if not path.match("decisions/0*.md"))
    assert sorted(pages()) == there


@pytest.mark.parametrize("name", list(PAGES))
def test_the_reference_is_what_the_code_says(name: str):
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs-reference`"


def test_the_reference_has_every_key():
    text = (DOCS / "reference/configuration.md").read_text(encoding="utf-8")
    leaves = [
        key for key in set(known_keys(RunConfig)) if not any(k.startswith(f"{key}.") for k in known_keys(RunConfig))
    ]
    inside = re.compile(r"\.(augmentors|augmentor|autoencoder|random)\.")
    missing = [key for key in leaves if f"`{key}`" not in text and not inside.search(key) and not key.endswith(".kind")]
    assert [key for key in missing if key != "controller.policy"] == []


@pytest.mark.parametrize(("text", "overrides"), RULES, ids=[text[:40] for text, _ in RULES])
def test_the_rules_of_the_reference_hold(text: str, overrides: tuple[str, ...]):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides)
    assert len(caught.value.problems) == 1, text


def test_a_verb_to_come_that_has_come_is_taken_off_the_list():
    assert set(VERBS_TO_COME) & set(commands()) == set()


@pytest.mark.parametrize(("block", "line"), HARDRAY_LINES, ids=[f"{b.page}:{b.line}" for b, _ in HARDRAY_LINES])
def test_commands_of_shell_blocks_parse(block: object, line: str):
    assert mistake(line) is None, line


@pytest.mark.parametrize("page", pages())
def test_commands_that_are_mentioned_have_their_verb_and_options(page: str):
    found = {command: mistake(command, whole=False) for command in mentions(page)}
    assert {command: wrong for command, wrong in found.items() if wrong} == {}


def test_mistakes_are_noticed():
    assert mistake("hardray distil") == "no verb distil"
    assert "--presett" in str(mistake("hardray distill --presett digits"))
    assert mistake("hardray distill optim.lrr=1") == "no key optim.lrr"
    assert mistake("hardray generate --preset digits") is not None
    assert mistake("hardray generate --preset digits", whole=False) is None
    assert mistake("hardray report --too x runs/a", whole=False) == "no option --too"
    assert mistake("hardray submit --dry-run -- distil") == "no verb distil"
    assert mistake("hardray submit --dry-run -- distill optim.lrr=1") == "no key optim.lrr"
    assert mistake("hardray submit --dry-runn -- distill") is not None


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    shown = [line.split()[1] for _, line in LINES if line.startswith("make ")]
    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in pages())
    assert {*shown, *re.findall(r"`make ([a-z-]+)`", text)} <= targets


def test_yaml_blocks_are_configurations():
    found = [block for block in SHOWN if block.language == "yaml"]
    assert len(found) >= 3
    for block in found:
        validate([parse_yaml(block.text, block.page)], source=f"{block.page}:{block.line}")


def test_yaml_that_a_shell_block_writes_can_be_read():
    written = {
        name: text
        for block in SHOWN
        for name, text in re.findall(
            r"cat > (\S+\.yaml) <<'END'\n(.*?)^END$", block.text, flags=re.MULTILINE | re.DOTALL
        )
    }
    assert set(written) == {"images.yaml", "space.yaml", "heap.yaml", "labelled.yaml"}
    config = validate([parse_yaml(written["images.yaml"], "images.yaml")], source="images.yaml")
    teacher = {"teacher": {"model": "local-dir:teachers/heap"}}
    heap = validate([parse_yaml(written["heap.yaml"], "heap.yaml"), teacher], source="heap.yaml")
    labelled = validate([parse_yaml(written["labelled.yaml"], "labelled.yaml")], source="labelled.yaml")
    assert (heap.data.kind, labelled.data.kind) == ("images", "image_folder")
    space = yaml.safe_load(written["space.yaml"])
    assert space["base"] == {"config": "images.yaml"}
    assert set(space["parameters"]) <= set(known_keys(RunConfig))
    assert config.data.kind == "image_folder"


def test_what_docs_test_runs_comes_in_shell_blocks_of_the_site():
    marked = [block for block in SHOWN if block.folder]
    assert {block.language for block in marked} == {"bash"}
    assert {block.folder for block in marked} == {"tutorial", "digits", "show", "no-labels"}
    comments = sum((DOCS / page).read_text(encoding="utf-8").count("<!-- run in:") for page in pages())
    assert comments == len(marked)


def test_docs_test_runs_blocks_in_order_and_reports_failures(tmp_path: Path, monkeypatch, capfd):
    page = "<!-- run in: a -->\n```bash\necho one > f\n```\n\n<!-- run in: a -->\n```bash\ncat f\nfalse\n```\n"
    (tmp_path / "p.md").write_text(page + page.replace("echo one", "echo two"))
    monkeypatch.setattr("documentation.pages.DOCS", tmp_path)
    monkeypatch.setattr(run, "pages", lambda: ["p.md"])
    assert run.main(["q.md"]) == 2
    assert run.main([]) == 1
    out = capfd.readouterr().out
    assert "1 passed, 1 failed, 2 skipped" in out
    assert "\none\n" in out


def test_pictures_are_small_and_used():
    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in pages())
    for picture in (DOCS / "images").glob("*"):
        assert picture.stat().st_size < 150_000, picture.name
        assert f"images/{picture.name})" in text, picture.name


def test_nothing_of_a_machine_stands_in_the_pages():
    for page in [*pages(), "../README.md"]:
        text = (DOCS / page).read_text(encoding="utf-8")
        assert re.findall(r"/work/|/tmp/|/root/|@@\w+@@", text) == [], page


def test_docstrings_are_read():
    paragraphs, sections = read_docstring(
        "One.\n\nTwo\nlines.\n\nArgs:\n    a: first\n        and more.\n    b: second."
    )
    assert paragraphs == ["One.\n", "Two lines.\n"]
    assert sections == {"Args": [("a", "first and more."), ("b", "second.")]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_the_site_builds_strictly_with_all_pages_and_pictures(site: Path):
    for page in pages():
        assert (site / page.replace("README", "index")).with_suffix(".html").is_file()
    for picture in (DOCS / "images").iterdir():
        assert (site / "images" / picture.name).is_file()


def test_the_site_loads_nothing_from_elsewhere(site: Path):
    loads = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=["']?(https?:)?//""")
    for page in site.rglob("*.html"):
        assert loads.findall(page.read_text(encoding="utf-8")) == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_equations_are_drawn(site: Path):
    text = (site / "concepts/hard.html").read_text(encoding="utf-8")
    assert text.count("<svg role=") == sum(block.language == "math" for block in blocks("concepts/hard.md"))
    with pytest.raises(ValueError, match="nosuch"):
        equation(r"\nosuch{x}")


def test_an_equation_is_as_wide_as_its_letters_and_fractions_have_a_line():
    one, two = (float(re.search(r"width: ([0-9.]+)em", equation(latex))[1]) for latex in ("x", "xx"))
    assert one < two < 2 * one
    fraction, quotient = (equation(latex).count("Z") for latex in (r"\frac{1}{2}", "1 2"))
    assert fraction == quotient + 1


def test_links_of_the_readme_resolve():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target
