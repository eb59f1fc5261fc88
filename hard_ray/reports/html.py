"""Parts of a page: the document with its style, sections, figures, tables and notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from hard_ray.errors import RunFolderError
from hard_ray.files import write_text
from hard_ray.reports.figures import PALETTE
from hard_ray.runs.scores import short

Html = str
"""Text that is markup already; all other text goes through `escape`."""


def write_document(path: Path, text: Html) -> None:
    """Write a page atomically, and create its folder; RunFolderError: it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror}") from None


def document(title: str, body: Html) -> Html:
    """A whole page that loads nothing from elsewhere."""
    style = files("hard_ray.reports").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = ("".join(f"--{name}: {pair[which]};" for name, pair in PALETTE.items()) for which in (0, 1))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
:root {{ {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def heading(verb: str, title: str, facts: Iterable[str], notices: Iterable[str]) -> Html:
    """The head of a page: the verb that made it, the title, short facts, and notices."""
    chips = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    shown = "".join(f'<p class="notice">{escape(text)}</p>' for text in notices)
    return f'<header><p class="kicker">hardray {verb}</p><h1>{escape(title)}</h1><ul>{chips}</ul>{shown}</header>'


def side_by_side(figures: Sequence[Html]) -> Html:
    """Figures in a row, if the page is wide enough."""
    return f'<div class="beside">{"".join(figures)}</div>' if figures else ""


def section(title: str, content: Html) -> Html:
    """A section with a heading; empty if there is no content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def figure_of(svg: Html, *, caption: str = "") -> Html:
    """A figure that scrolls on a narrow page."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="scroll">{svg}</div>{below}</figure>'


def details(summary: str, content: Html, *, is_open: bool = False) -> Html:
    """Content that a reader may unfold."""
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{content}</details>"


def note(text: str) -> Html:
    """A sentence in small print."""
    return f'<p class="note">{escape(text)}</p>'


def table_of(
    header: Sequence[str], body: Iterable[Sequence[str]], *, strong: bool = False, keys: Sequence[str] = ()
) -> Html:
    """A table; `strong` highlights the last row, `keys` name colours shown before the first cells."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    rows = [[escape(cell) for cell in row] for row in body]
    for row, key in zip(rows, keys, strict=False):
        row[0] = f'<i style="background: var(--{key})"></i>{row[0]}'
    text = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
    kind = ' class="strong"' if strong else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{text}</tbody></table></div>'


def conditions_table(parts: Mapping[str, Mapping[str, Mapping[str, float]]], measure: str = "top1") -> Html:
    """A table of a measure in percent by column and condition, the mean over severities."""
    names = dict.fromkeys(condition for by in parts.values() for condition in by)
    body = [
        [name, *(f"{np.mean(list(by[name].values())):.1f}" if name in by else "-" for by in parts.values())]
        for name in names
    ]
    return table_of([f"{short(measure)}, %", *parts], body)


def number(value: float | None) -> str:
    """A number with three digits; None is a dash."""
    return "-" if value is None else f"{value:.3g}"
