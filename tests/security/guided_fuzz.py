"""Fuzzing that follows the branches a case takes: `python -m tests.security.guided_fuzz [TARGET ...]`, with atheris.

Each target is a process of its own. Its cases grow in build/fuzz/TARGET, where a second run goes on; one that is
neither read nor refused properly is kept as build/fuzz/TARGET-crash-...
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = int(os.environ.get("HARDRAY_FUZZ_CASES", "10000"))
FOLDER = Path("build/fuzz")
MEGABYTES = 8000
"""Of memory for a target, past which a case counts as a failure; torch and Arrow take a few hundred."""
SECONDS = 60
"""A case may take."""


def follow(name: str) -> None:
    """Run one target's cases; the process ends here, with 0 or, after a failure, another code."""
    import atheris

    with atheris.instrument_imports(include=["hard_ray", "yaml", "tarfile", "gzip"]):
        from tests.security.fuzzed import REFUSALS, TARGETS

    cases = FOLDER / name
    cases.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        intact, read = TARGETS[name](Path(folder))
        (cases / "intact").write_bytes(intact)

        def follow_one(data: bytes) -> None:
            with contextlib.suppress(*REFUSALS):
                read(data)

        flags = [f"-runs={CASES}", f"-max_len={2 * len(intact)}", f"-rss_limit_mb={MEGABYTES}", f"-timeout={SECONDS}"]
        atheris.Setup(
            [sys.argv[0], str(cases), *flags, "-print_final_stats=1", f"-artifact_prefix={FOLDER}/{name}-"], follow_one
        )
        atheris.Fuzz()


def main(names: list[str]) -> int:
    """Run targets one after the other; how many failed."""
    from tests.security.fuzzed import TARGETS

    failed = []
    for name in names or list(TARGETS):
        log = FOLDER / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stream:
            code = subprocess.call([sys.executable, "-m", __spec__.name, "--one", name], stdout=stream, stderr=stream)
        sys.stdout.write(f"{name}: {'passed' if not code else f'FAILED, see {log}'}\n")
        sys.stdout.flush()
        failed += [name] if code else []
    return len(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        follow(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
