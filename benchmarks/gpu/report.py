"""What was measured as Markdown, with targets; and its place in a page of the documentation.

`python -m benchmarks.gpu.report docs/performance.md` puts build/gpu.md between the page's markers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a value."""

    value: str
    bar: float
    at_most: bool = False
    methods: tuple[str, ...] = ("KD", "CutMix", "HARD")

    @property
    def text(self) -> str:
        """The target in words."""
        return f"{self.value} {'<=' if self.at_most else '>='} {self.bar:g}"

    def is_met(self, values: Mapping[str, Any]) -> bool:
        """Whether a row reaches it."""
        found = float(values[self.value])
        return found <= self.bar if self.at_most else found >= self.bar


TARGETS = (
    Target("ratio", 0.95, methods=("KD",)),
    Target("arithmetic", 1.15, at_most=True, methods=("HARD",)),
    Target("idle", 0.10, at_most=True),
)
Row = Mapping[str, Any]
"""A cell as build/gpu.json holds it: `key`, `values`, `error`."""


def verdict(method: str, values: Mapping[str, Any]) -> str:
    """Which targets of a row are met, and which are not."""
    known = [target for target in TARGETS if method in target.methods and values.get(target.value) is not None]
    return "; ".join(f"{target.text}: {'met' if target.is_met(values) else 'MISSED'}" for target in known) or ABSENT


SPEED_HEAD = (
    *("networks", "method", "compiled", "teacher", "images/s", "plain loop, images/s", "ratio", "time / arithmetic"),
    *("idle", "plain loop idle", "peak GiB", "plain loop, peak GiB", "targets"),
)
GRADIENT_HEAD = ("networks", "precision", "compiled", "to the images", "to the augmentor")
GRADIENT_SAYS = (
    "The augmentor's gradient through the pool against one float32 graph: largest difference over largest value"
)
BITS_SAY = "Two runs of {} updates from the same seed, in processes of their own"
BITS_HEAD = ("networks", "deterministic", "two runs of HARD", "weights of the first run")


def speed_row(row: Row) -> list[str]:
    """A row of the table of speeds."""
    first, values = row["key"][1:], row["values"]
    if row["error"]:
        return [*first, row["error"], *[ABSENT] * 8]
    return [
        *first,
        number(values, "images_per_s", "{:,.0f}"),
        number(values, "plain_images_per_s", "{:,.0f}"),
        number(values, "ratio", "{:.2f}"),
        number(values, "arithmetic", "{:.2f}"),
        number(values, "idle", "{:.1%}"),
        number(values, "plain_idle", "{:.1%}"),
        number(values, "peak_gib", "{:.2f}"),
        number(values, "plain_peak_gib", "{:.2f}"),
        verdict(first[1], values),
    ]


def gradient_row(row: Row) -> list[str]:
    """A row of the table of gradients."""
    if row["error"]:
        return [*row["key"][1:], row["error"], ABSENT]
    return [*row["key"][1:], *(number(row["values"], name, "{:.1e}") for name in ("images", "augmentor"))]


def number(values: Mapping[str, Any], name: str, form: str) -> str:
    """A value, or a dash."""
    found = values.get(name)
    return ABSENT if found is None else form.format(found)


def bits_rows(rows: Sequence[Row]) -> list[list[str]]:
    """The rows of the table of bits: two runs each."""
    made = []
    for one, other in zip(rows[::2], rows[1::2], strict=False):  # while it is measured, a second run may be missing
        error = one["error"] or other["error"]
        digests = [row["values"].get("sha256") for row in (one, other)]
        same = "the same bits" if digests[0] == digests[1] else "different bits"
        made.append([*one["key"][1:3], error or same, ABSENT if error else str(digests[0])[:12]])
    return made


def markdown(found: Mapping[str, Any]) -> str:
    """Everything that was measured, as Markdown."""

    def of(table: str) -> list[Row]:
        return [row for row in found["cells"] if row["key"][0] == table]

    tables = [
        ("", SPEED_HEAD, [speed_row(row) for row in of("speed")]),
        (GRADIENT_SAYS, GRADIENT_HEAD, [gradient_row(row) for row in of("gradient")]),
        (BITS_SAY.format(found["bit_updates"]), BITS_HEAD, bits_rows(of("bits"))),
    ]
    parts = [heading(found)]
    for says, head, rows in tables:
        parts += [text for text in (says, grid(head, rows)) if text and rows]
    return "\n\n".join([*parts, *(compilation(row) for row in of("compilation"))]) + "\n"


def compilation(row: Row) -> str:
    """How long the kernels of torch.compile took, in one line."""
    parts = [
        f"{name} {value:.0f} s" if isinstance(value, float) else f"{name}: {value}"
        for name, value in row["values"].items()
    ]
    return f"Both loops with torch.compile for the first time: {row['error'] or '; '.join(parts)}."


def heading(found: Mapping[str, Any]) -> str:
    """The machine, the versions and the work in two sentences."""
    machine, work = found["machine"], found["work"]
    cards = machine["cards"]
    where = (
        " and ".join(f"{card['name']} ({card['gib']} GiB, capability {card['capability']})" for card in cards)
        if cards and work["device"] == "cuda"
        else "the CPU, which stands in for a card: these figures are of no use"
    )
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items() if value)
    driver = f", driver {machine['driver']}, CUDA {machine['cuda']}" if machine["driver"] else ""
    return (
        f"Measured on {where}{driver}; {versions}. Batches of {work['batch']} images of {work['size']} pixels in "
        f"{work['dtype']}; all cores decode {found['decoded_per_s']:,.0f} JPEGs/s. It took {found['seconds']:.0f} s."
    )


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def put(text: str, page: Path) -> None:
    """Replace what stands between the page's markers.

    Raises:
        SystemExit: the page has no markers.
    """
    whole = page.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no place for the table; write {BEGIN} and {END}, each on a line of its own")
    page.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Put a measured table into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--table", type=Path, default=Path("build/gpu.md"))
    given = parser.parse_args(arguments)
    put(given.table.read_text(encoding="utf-8"), given.page)
    say(f"{given.page} has the table of {given.table}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
