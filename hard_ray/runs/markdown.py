"""Tables in Markdown, for model cards and for pages in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; the header may be of empty texts."""
    head = f"| {' | '.join(header)} |" if any(header) else f"|{' |' * len(header)}"
    rows = [[cell.replace("|", "\\|") for cell in row] for row in body]
    return "\n".join([head, f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)])
