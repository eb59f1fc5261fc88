"""The start of the `hardray` command: settings of the shell that are meant for other programs decide nothing here.

The interpreter reads some of them before any line of hardray runs. Where one is set, the command starts itself again in
its process without it. The processes that it starts inherit the cleaned environment.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in `typing`, which is not imported: see `main`
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

FOR_OTHERS = (
    "PYTHONWARNINGS",  # `error` would turn a deprecation in any package into a failure
    "PYTHONOPTIMIZE",
    "PYTHONINSPECT",
    "PYTHONSTARTUP",
    "PYTHONDEBUG",
    "PYTHONVERBOSE",
    "PYTHONDEVMODE",
)
"""Variables that are left out, and that the interpreter has read when hardray begins."""

FOR_CHILDREN = ("PYTHONIOENCODING", "MPLBACKEND")
"""Variables that only other processes would read: they draw without a window, and write UTF-8."""


def main() -> None:
    """Run the command in an environment of its own.

    Until the environment is known to be that, only what the interpreter has loaded already is imported: the current
    folder may be on the import path, with a `signal.py`.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:
        sys.exit("error: the current folder does not exist any more; change to one that does, and call hardray again")
    encodings = (sys.getfilesystemencoding(), getattr(sys.stdout, "encoding", None) or "utf-8")
    cleaned, restarts = own_environment(os.environ, here, *encodings)
    if restarts:
        os.execve(sys.executable, [sys.executable, *sys.argv], cleaned)  # noqa: S606
    os.environ.clear()
    os.environ.update(cleaned)
    import signal

    print_anything()
    respect_quota()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # `nohup` has SIGHUP ignored
            signal.signal(number, _interrupt)
    try:
        from .main import app

        app()
    except KeyboardInterrupt:  # before a verb began, which says it in its own words
        sys.exit(130)


def own_environment(variables: Mapping[str, str], here: str, names: str, printed: str) -> tuple[dict[str, str], bool]:
    """The variables that the command runs with in the folder `here`, and whether it has to start again for them.

    `names` is the encoding of file names, which is UTF-8 after the next start, and `printed` that of the terminal,
    which stays.
    """
    cleaned = {name: value for name, value in variables.items() if name not in (*FOR_OTHERS, *FOR_CHILDREN)}
    for name in ("COLUMNS", "LINES"):  # a terminal of no size, in which nothing would be printed
        if not cleaned.get(name, "80").strip("0"):
            del cleaned[name]
    restarts = any(variables.get(name) for name in FOR_OTHERS)
    if (path := variables.get("PYTHONPATH")) is not None and (kept := _elsewhere(path, here)) != path:
        cleaned["PYTHONPATH"], restarts = kept, True
    if names.lower().replace("-", "") != "utf8" and variables.get("PYTHONUTF8") != "1":
        cleaned["PYTHONUTF8"], restarts = "1", True
    if restarts:
        cleaned["PYTHONIOENCODING"] = printed
    return cleaned, restarts


def _elsewhere(path: str, here: str) -> str:
    """The folders of PYTHONPATH other than the current one, where a `random.py` would be in the place of Python's."""
    place = os.path.realpath(here)

    def is_kept(folder: str) -> bool:
        found = os.path.realpath(os.path.join(here, folder))
        return found != place or os.path.isdir(os.path.join(found, "hard_ray"))

    return os.pathsep.join(filter(is_kept, path.split(os.pathsep)))


def print_anything() -> None:
    """Print what the terminal's encoding lacks, such as a letter of a path, as an escape instead of failing."""
    import io

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where the shell closed it
            stream.reconfigure(errors="backslashreplace")


def respect_quota() -> None:
    """Compute with as many threads as a control group allows cores: by default there is one for each installed core."""
    from hard_ray.orchestration.cluster.cgroups import limits

    cores = limits().cores
    if cores is not None and cores < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(cores))))


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """End like Ctrl-C: what was started is ended, and the exit code is 130."""
    raise KeyboardInterrupt
