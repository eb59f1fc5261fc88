"""Equations of the pages: a block ```` ```math ```` holds LaTeX, which GitHub draws and the site gets as MathML."""

from __future__ import annotations

from typing import Any


def fence(source: str, language: str, css_class: str, options: Any, md: Any, **_: Any) -> str:
    """A block of LaTeX as MathML, for pymdownx.superfences."""
    from latex2mathml.converter import convert

    return f'<div class="{css_class}">{convert(source, display="block")}</div>'
