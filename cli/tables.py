"""Tables that fit the terminal, without a cut heading or cell.

Where a table is too wide, its headings are broken over lines first, then its columns are spread over several tables
that begin with the same column, and a column that is still too wide folds its cells.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

BORDERS = 3
"""Width that a column takes beside its text: a line and a space on both sides."""


def fitted(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    bold: Collection[int] = (),
    left: Collection[str] = (),
) -> list[Table]:
    """Lay out a table as one or several of at most `width` characters; the first column is in each.

    Args:
        title: printed above the first.
        header: the columns' headings.
        rows: the cells, as plain text.
        width: of the terminal.
        bold: positions of the rows that stand out.
        left: headings of columns that are aligned to the left, besides the first.
    """
    heads = list(header)
    columns = [[row[place] for row in rows] for place in range(len(heads))]
    if 1 + sum(_widths(heads, columns)) > width:
        heads = [broken(name) for name in heads]
    groups = _groups(_widths(heads, columns), width - 1)
    tables = []
    for number, group in enumerate(groups):
        table = Table(title=title if not number else None, title_justify="left", title_style="bold")
        share = (width - 1 - BORDERS * len(group)) // len(group)
        for place in group:
            side: JustifyMethod = "left" if place == 0 or header[place] in left else "right"
            most = share if len(group) <= 2 and 1 + sum(_widths(heads, columns, group)) > width else None
            table.add_column(escape(heads[place]), justify=side, overflow="fold", max_width=most)
        for position, row in enumerate(rows):
            table.add_row(*(escape(row[place]) for place in group), style="bold" if position in bold else None)
        tables.append(table)
    return tables


def broken(name: str) -> str:
    """A heading with a line for each of its parts: `augmentor.strength` under each other."""
    return re.sub(r"([./_ ])(?=[^./_ ])", r"\1\n", name)


def _widths(heads: Sequence[str], columns: Sequence[Sequence[str]], group: Collection[int] | None = None) -> list[int]:
    """The width of each column, or of those in a group, with its borders."""
    places = range(len(heads)) if group is None else group
    return [
        BORDERS + max(cell_len(line) for text in (heads[place], *columns[place]) for line in text.split("\n"))
        for place in places
    ]


def _groups(widths: Sequence[int], room: int) -> list[list[int]]:
    """Positions of the columns of each table: as many as have room beside the first."""
    groups = [[0]]
    used = widths[0]
    for place, width in enumerate(widths[1:], start=1):
        if used + width > room and len(groups[-1]) > 1:
            groups.append([0])
            used = widths[0]
        groups[-1].append(place)
        used += width
    return groups


def print_table(
    console: Console,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    bold: Collection[int] = (),
    left: Collection[str] = (),
) -> None:
    """Print a table as `fitted` lays it out for the console."""
    for table in fitted(title, header, rows, width=console.width, bold=bold, left=left):
        console.print(table)
