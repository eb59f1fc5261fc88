"""Every file of the repository that a page names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from documentation.pages import DOCS, ROOT

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY")),
    ROOT / "deploy" / "README.md",
    *sorted(DOCS.rglob("*.md")),
]
ROOMS = ("hard_ray", "cli", "tests", "docs", "documentation", "experiments", "benchmarks", "tune_spaces", "deploy")
PATH = re.compile(rf"(?<![\w./-])((?:{'|'.join(ROOMS)})/[\w./-]*)")
PLACEHOLDERS = ("NAME", "VERB")


def named(text: str) -> list[str]:
    """The paths that a text names, without those that hold a placeholder."""
    found = (path.rstrip(".") for path in PATH.findall(text))
    return [path for path in found if not any(word in path for word in PLACEHOLDERS)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_a_page_names_exist(page: Path):
    assert [path for path in named(page.read_text(encoding="utf-8")) if not (ROOT / path).exists()] == []


def test_a_path_that_is_missing_is_noticed():
    assert named("see `cli/verbs/VERB.py`, hard_ray/nowhere.py. and runs/x/tests/y") == ["hard_ray/nowhere.py"]
