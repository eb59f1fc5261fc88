"""Tables fit 80 columns, and nothing in them is cut."""

from __future__ import annotations

import io
import re
from datetime import datetime
from types import SimpleNamespace

import pytest
from hard_ray_cli.tables import broken, fitted
from hard_ray_cli.verbs import jobs as jobs_verb
from hard_ray_cli.verbs.tune import print_board
from rich.console import Console

PARAMETERS = [
    "augmentor.strength",
    "experiment.random.strength",
    "objective.temperature",
    "objective.lambda_t",
    "optim.weight_decay",
    "optim.lr",
    "student.model",
]
LONG = "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k"


def printed(show, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


def columns_of(text: str) -> list[tuple[str, ...]]:
    """Every column of the tables in a text: its heading and cells, with the lines of each joined."""
    found = []
    for block in re.split(r"┏.*\n", text)[1:]:
        head, _, body = block.partition("┡")
        heads = [line.strip()[1:-1].split("┃") for line in head.splitlines() if "┃" in line]
        rows = [line.strip()[1:-1].split("│") for line in body.splitlines() if "│" in line]
        heads_joined = ["".join(part.strip() for part in column) for column in zip(*heads, strict=True)]
        cells = ["".join(part.strip() for part in column) for column in zip(*rows, strict=True)]
        found += list(zip(heads_joined, cells, strict=True))
    return found


def board(trials: int = 1, **values: object) -> tuple[dict, dict]:
    settings = dict.fromkeys(PARAMETERS, 0.123456) | values
    columns = ["trial", "val/top1", "val/shifted/top1", *settings, "epoch", "status", "seconds", "reason"]
    rows = [[f"5cdd0{n:03}", 61.2345, 50.5, *settings.values(), 30, "finished", 1234.5, ""] for n in range(trials)]
    return {"columns": columns, "data": rows}, {"metrics": {"val/top1": "max"}, "pareto": None, "best": "5cdd0000"}


def test_a_leader_board_of_many_settings_fits_and_has_every_heading_and_value():
    text = printed(lambda console: print_board(console, *board(**{"student.model": LONG})))
    found = dict(columns_of(text))
    assert found.keys() == {"trial", "val/top1", "val/shifted/top1", *PARAMETERS, "epoch", "status", "seconds"}
    assert found["augmentor.strength"] == found["experiment.random.strength"] == "0.1235"
    assert (found["student.model"], found["status"], found["val/top1"]) == (LONG, "finished", "61.23")


def test_a_leader_board_of_two_settings_stays_one_table():
    values = [["a", "1", "2", "x"]]
    (table,) = fitted("t", ["trial", "val/top1", "optim.lr", "status"], values, width=80)
    assert [column.header for column in table.columns] == ["trial", "val/top1", "optim.lr", "status"]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("count", [1, 3, 9, 30])
def test_any_table_fits_any_terminal(width: int, count: int):
    header = ["name", *(f"block{place}.strength" for place in range(count))]
    rows = [[f"row{place}", *(f"{place}{'x' * (7 * place)}" for _ in range(count))] for place in range(4)]

    def show(console: Console) -> None:
        for table in fitted("title", header, rows, width=width):
            console.print(table)

    text = printed(show, width)
    found = dict(columns_of(text))
    assert found.keys() == set(header)
    assert found["name"] == "row0row1row2row3"
    assert set(list(found.values())[1:]) == {"".join(row[1] for row in rows)}


def test_a_heading_is_broken_at_its_parts():
    assert broken("experiment.random.max_scale") == "experiment.\nrandom.\nmax_\nscale"
    assert broken("val/top1") == "val/\ntop1"
    assert broken("ECE") == "ECE"


def test_names_with_brackets_are_no_markup():
    text = printed(lambda console: [console.print(each) for each in fitted("t", ["[bold]a"], [["[red]x"]], width=80)])
    assert "[bold]a" in text and "[red]x" in text


def test_the_table_of_jobs_keeps_ids_and_commands():
    job = SimpleNamespace(
        id=f"raysubmit_{'k' * 60}",
        status="SUCCEEDED",
        started=datetime(2026, 1, 1),
        command=f"hardray distill {'x' * 90}",
    )
    text = printed(lambda console: console.print(jobs_verb._table([job])))
    assert "".join(text.split()).count("k") >= 60 and text.count("x") == 90


def test_what_is_no_terminal_has_eighty_columns(monkeypatch: pytest.MonkeyPatch):
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.get_terminal_size", lambda *_: (_ for _ in ()).throw(OSError))
    assert Console(file=io.StringIO()).width == 80
