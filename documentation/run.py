"""`make docs-test`: runs the blocks of the pages that are marked `<!-- run in: FOLDER -->`.

Blocks of one folder run in one new, empty folder, in the order of the site's pages. After a block with a verb of
VERBS_TO_COME, the other blocks of its folder are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from documentation.cli_page import commands
from documentation.commands import VERBS_TO_COME
from documentation.pages import Block, blocks, hardray_arguments, pages

BIN = Path(sys.executable).parent


def main(names: Sequence[str]) -> int:
    """Run the marked blocks of all pages or of the named ones; return 0 if all succeeded."""
    unknown = [name for name in names if name not in pages()]
    if unknown:
        print(f"no page {unknown[0]}; there are {', '.join(pages())}")
        return 2
    marked = [block for page in names or pages() for block in blocks(page) if block.folder]
    failed = ended = 0
    with tempfile.TemporaryDirectory(prefix="hardray-docs-") as place:
        over: set[str] = set()
        for block in marked:
            where = f"{block.page}:{block.line}"
            assert block.folder is not None
            missing = to_come(block)
            if block.folder in over or missing:
                over.add(block.folder)
                print(f"skipped   {where}{f': no verb {missing} yet' if missing else ''}", flush=True)
                continue
            started = time.monotonic()
            done = _run(block, Path(place) / block.folder)
            print(f"{'ended' if done else 'FAILED':<9} {where} after {time.monotonic() - started:.0f} s", flush=True)
            ended, failed = ended + done, failed + (not done)
            over |= set() if done else {block.folder}
    print(f"{ended} passed, {failed} failed, {len(marked) - ended - failed} skipped")
    return 1 if failed else 0


def to_come(block: Block) -> str | None:
    """The first verb of a block that is in VERBS_TO_COME and not in the command line."""
    known = commands()
    verbs = [words[0] for command in block.commands if (words := hardray_arguments(command))]
    return next((verb for verb in verbs if verb in VERBS_TO_COME and verb not in known), None)


def _run(block: Block, folder: Path) -> bool:
    """Run a block in bash, with its output on this process's output."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"\n--- {block.page}:{block.line}\n{block.text}", flush=True)
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=folder, env=environment, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
