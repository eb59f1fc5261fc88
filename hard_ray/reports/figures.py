"""Colours by meaning, new figures, and their output as a PNG file or as SVG in a page."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hard_ray.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = {
    "ink": ("#202124", "#e8eaed"),
    "quiet": ("#5f6368", "#9aa0a6"),
    "line": ("#dadce0", "#3c4043"),
    "teacher": ("#7b4fc9", "#b794f6"),
    "labels_only": ("#8a8f98", "#7f858d"),
    "kd": ("#1d7a8c", "#4cc3d9"),
    "random": ("#a8741a", "#e3b341"),
    "student": ("#d9480f", "#ff8a4c"),
    "agree": ("#1a7f37", "#57c878"),
    "differ": ("#b3261e", "#ff8a80"),
}
"""Colours by meaning, for a light and for a dark page."""

COLOURS = {name: light for name, (light, _) in PALETTE.items()}
INK, QUIET, LINE = COLOURS["ink"], COLOURS["quiet"], COLOURS["line"]
DPI = 110

_REPAIRS = (
    (r"<metadata>.*?</metadata>", ""),
    (r' xmlns(:xlink)?="[^"]*"', ""),
    (r' id="[A-Za-z]+[0-9.]*_[0-9]+"', ""),  # a page with two figures would have duplicate ids
    (r'^<svg width="([0-9.]+)pt" height="[0-9.]+pt"', r'<svg style="--width: \1"'),
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure atomically."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, stream.getvalue())


def to_svg(figure: Figure) -> str:
    """A figure as an SVG element for a page, with the page's colour variables and with text as text."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "hardray"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern, instead in _REPAIRS:
        svg = re.sub(pattern, instead, svg, flags=re.DOTALL)
    for name, light in COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg
