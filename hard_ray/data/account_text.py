"""The account of a data set in words, and as facts for a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from hard_ray.data.account import Account, Tally
from hard_ray.data.index import NO_LABEL, ImageIndex


def account_lines(index: ImageIndex) -> list[tuple[str, str]]:
    """Pairs of a heading and a line: files, splits and their origin, classes, and all that was guessed or left out."""
    account = index.account
    lines = [(name, _found(tally)) for name, tally in _tallies(account).items() if tally.found]
    lines += [
        ("split", f"{name}: {len(rows):,} images, {account.origins[name]}") for name, rows in index.splits.items()
    ]
    lines.append(("classes", _classes(index)))
    lines += [("left out", line) for line in _left_out(account)]
    return [*lines, *(("note", note) for note in _notes(account)), *(("index", line) for line in account.said)]


def say_account(index: ImageIndex, say: Callable[[str], None]) -> None:
    """Say what was guessed and what was left out; nothing for data that is used as it is."""
    for line in _left_out(index.account):
        say(f"left out: {line}")
    for note in _notes(index.account):
        say(f"note: {note}")
    for line in index.account.said:
        say(f"index: {line}")


def account_facts(index: ImageIndex) -> dict[str, Any]:
    """The account for `summary.json`."""
    account = index.account
    facts: dict[str, Any] = {
        "splits": {
            name: {"images": len(rows), "from": account.origins[name]} for name, rows in sorted(index.splits.items())
        },
        **({"classes": _extremes(index)} if index.has_labels else {}),
        "notes": _notes(account),
    }
    for name, tally in _tallies(account).items():
        facts[name] = {
            "found": dict(tally.found.most_common()),
            "used": tally.used,
            "left_out": [
                {"reason": reason, "count": entry.count, "first": entry.example}
                for reason, entry in tally.left_out.items()
            ],
        }
    return facts


def _tallies(account: Account) -> dict[str, Tally]:
    return {"files": account.files, "items": account.items}


def _found(tally: Tally) -> str:
    shown = ", ".join(f"{count:,} {suffix}" for suffix, count in tally.found.most_common())
    return f"{shown}; {tally.used:,} used"


def _left_out(account: Account) -> list[str]:
    return [
        f"{entry.count:,}: {reason}, first {entry.example}"
        for tally in _tallies(account).values()
        for reason, entry in tally.left_out.items()
    ]


def _notes(account: Account) -> list[str]:
    counts = sum((tally.by_content for tally in _tallies(account).values()), Counter[str]())
    read = ", ".join(f"{count:,} of {suffix}" for suffix, count in counts.most_common())
    return [*([f"files are images by their content and are used: {read}"] if read else []), *account.notes]


def _extremes(index: ImageIndex) -> dict[str, Any]:
    """The number of classes, and those with the fewest and the most images of the training split."""
    labels = index.labels[index.rows("train")]
    counts = np.bincount(labels[labels != NO_LABEL], minlength=len(index.classes))
    few, many = int(counts.argmin()), int(counts.argmax())
    return {
        "count": len(index.classes),
        "smallest": {"name": index.classes[few], "images": int(counts[few])},
        "largest": {"name": index.classes[many], "images": int(counts[many])},
    }


def _classes(index: ImageIndex) -> str:
    if not index.has_labels:
        return "none: the images have no labels"
    found = _extremes(index)
    if found["smallest"]["images"] == found["largest"]["images"]:
        return f"{found['count']:,}; {found['smallest']['images']:,} images of each in train"
    least, most = (f"{found[key]['name']!r} with {found[key]['images']:,}" for key in ("smallest", "largest"))
    return f"{found['count']:,}; in train from {least} to {most} images"
