"""`make docs-reference`: writes the pages that are generated from the code."""

from __future__ import annotations

from collections.abc import Callable

from documentation.api_page import api_page
from documentation.cli_page import cli_page
from documentation.configuration_page import configuration_page
from documentation.pages import DOCS

PAGES: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration_page,
    "reference/cli.md": cli_page,
    "reference/api.md": api_page,
}


def main() -> None:
    """Write every page."""
    for name, make in PAGES.items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
