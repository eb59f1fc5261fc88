"""Equations of the pages: GitHub draws the LaTeX of a block ```` ```math ````, the site gets it as an SVG path.

Matplotlib's mathtext reads a subset of LaTeX: no environments, one equation per block.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

SIZE = 10.0
"""Size of the font in points, which is one em of the page."""
MARGIN = 1.0


def fence(source: str, language: str, css_class: str, options: Any, md: Any, **_: Any) -> str:
    """Format a block of LaTeX for pymdownx.superfences."""
    return f'<div class="{css_class}">{equation(source)}</div>'


def equation(latex: str) -> str:
    """Draw an equation in the colour of the surrounding text, with its LaTeX for screen readers.

    Raises:
        ValueError: mathtext does not know one of its commands.
    """
    from matplotlib import rc_context
    from matplotlib.textpath import TextPath

    line = " ".join(latex.split())
    with rc_context({"mathtext.fontset": "cm"}):
        path = TextPath((0, 0), f"${line}$", size=SIZE)
    box = path.get_extents()
    width, height = box.width + 2 * MARGIN, box.height + 2 * MARGIN
    view = f"{box.x0 - MARGIN:.2f} {-box.y1 - MARGIN:.2f} {width:.2f} {height:.2f}"
    size = f"width: {width / SIZE:.3f}em; height: {height / SIZE:.3f}em"
    return (
        f'<svg role="img" aria-label="{escape(line)}" viewBox="{view}" style="{size}">'
        f'<path fill="currentColor" d="{"".join(_commands(path))}"/></svg>'
    )


def _commands(path: Any) -> Iterator[str]:
    """SVG commands for matplotlib's codes; in SVG, y grows downwards."""
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    for vertices, code in path.iter_segments(curves=True, simplify=False):
        points = (
            ""
            if code == 79
            else " ".join(f"{x:.2f},{-y:.2f}" for x, y in zip(vertices[::2], vertices[1::2], strict=True))
        )
        yield f"{letters[int(code)]}{points}"
