"""Every command in a message is quoted for a shell, and is one that hardray's own parser takes."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from hard_ray_cli.main import app
from typer.main import get_command

from hard_ray.config.layers import override, parse_overrides
from hard_ray.errors import RunFolderError, command_line
from hard_ray.export.named_model import find_model
from hard_ray.runs.folder import RunFolder, check_new_run
from hard_ray.runs.search_folder import SearchFolder, check_new_search

ROOT = Path(__file__).parents[2]
NAMES = ("my runs", "it's", 'a "b"', "$HOME", "a;b", "a&b", "-x", "[b]c", "a\\b", "é*")
QUOTED = re.compile(r"`(hardray [^`]*)`")


def parsed(line: str) -> dict:
    """What a shell and then hardray make of a command: the values of its options."""
    program, verb, *arguments = shlex.split(line)
    assert program == "hardray"
    with get_command(app).commands[verb].make_context(verb, arguments) as context:  # type: ignore[attr-defined]
        return context.params


@pytest.mark.parametrize("name", NAMES)
def test_a_path_of_any_name_comes_back_from_the_command_in_a_message(tmp_path: Path, name: str):
    folder = tmp_path / name
    (folder / "checkpoints").mkdir(parents=True)
    RunFolder(folder).config.touch()
    SearchFolder(folder).config.touch()
    for check in (check_new_run, check_new_search, lambda path: find_model(str(path), best=False)):
        with pytest.raises(RunFolderError) as caught:
            check(folder)
        (line,) = QUOTED.findall(str(caught.value))
        assert parsed(line)["resume"] == folder


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_below_a_result_take_its_path(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]):
    from hard_ray_cli.cluster_jobs import print_handles
    from hard_ray_cli.verbs.train_autoencoder import autoencoder_lines
    from hard_ray_cli.verbs.tune import result_lines
    from rich.text import Text

    folder = tmp_path / name
    search = SimpleNamespace(results={"trials": []}, importance={}, folder=folder, tracking_problem=None)
    best = Text.from_markup(result_lines(search)[-1]).plain.removeprefix("best     ")
    assert parsed(best)["config"] == [folder / "best.yaml"]
    result = {"seconds": {"training": 1}, "psnr": 1.0, "images": 1, "parameters": 1}
    words = shlex.split(Text.from_markup(autoencoder_lines(result, folder)[-1]).plain)
    assert parse_overrides(words[-1:]) == {"augmentor": {"autoencoder": {"model": str(folder)}}}
    print_handles(name, "http://h:8265")
    again, _ = capsys.readouterr().out.strip().splitlines()
    if not name.startswith("-"):
        assert parsed(again.removeprefix("look again  "))["job"] == name


@pytest.mark.parametrize("text", [*NAMES, "010", "1e-1", "a: b", "a #b", "on", "~", "{", "- a", "", "null", "x\ty"])
def test_a_text_as_an_override_reads_back(text: str):
    (word,) = shlex.split(shlex.quote(override("a.b", text)))
    assert parse_overrides([word]) == {"a": {"b": text}}


def test_a_command_line_is_quoted():
    assert command_line("sync", Path("/a b"), "x=1") == "hardray sync '/a b' x=1"


COMMAND = re.compile(rf"hardray ({'|'.join(get_command(app).commands)})( [^`]*?)?[ =]\0")  # type: ignore[attr-defined]


def unquoted(path: Path) -> list[str]:
    """Texts with a value after `hardray VERB` in the same command, which no shell would take as one word."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.JoinedStr):
            continue
        text = "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
        found += [f"{path.name}:{node.lineno}" for _ in COMMAND.finditer(text)]
    return found


def test_no_source_writes_a_command_with_a_value_by_hand(tmp_path: Path):
    sources = [path for folder in ("cli", "hard_ray") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    assert [place for path in sources for place in unquoted(path)] == []
    bad = tmp_path / "bad.py"
    bad.write_text('x = f"go on with `hardray distill --resume {path}`"\ny = f"hardray sync {path}"\n')
    assert len(unquoted(bad)) == 2
