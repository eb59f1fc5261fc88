"""`hardray doctor`: checks this machine and a cluster."""

from __future__ import annotations

import fcntl
import importlib.util
import io
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hard_ray.errors import HardrayError

from ..data_account import data_lines
from ..options import Files, Overrides, Preset, load, path_or_url
from ..terminal import console, print_pairs

if TYPE_CHECKING:
    from hard_ray.config.run import RunConfig
    from hard_ray.config.runtime import RuntimeConfig
    from hard_ray.orchestration.cluster.resources import Cluster

SHARED_MEMORY = "/dev/shm"  # noqa: S108  (Ray's object store is there)
PACKAGES = ("torch", "torchvision", "timm", "ray", "mlflow", "pydantic", "numpy")
MARKS = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "wrong": "[red]wrong[/red]"}


def doctor(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to check as well.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="A folder or a URL that every node of the cluster must reach.", parser=path_or_url),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder of data, or a configuration file: only list what it holds and lacks.")
    ] = None,
) -> None:
    """Check this machine, and a cluster if one is given.

    What is judged is tried: a file is written to each folder, a figure is drawn, a worker of Ray imports what it needs.
    With a configuration, also check that the cluster has everything the run reserves.
    """
    if data is not None:
        print_pairs(data_lines(data, config, preset, overrides))
        return
    loaded = load(config, preset, overrides) if config or preset or overrides else None
    checks: list[Callable[[], Iterator[Finding]]] = [
        _packages,
        _byte_code,
        _processor,
        _compiler,
        _memory,
        _folders,
        _drawing,
    ]
    findings = [finding for check in checks for finding in check()]
    findings += list(_tracking(loaded, output))
    if output is not None:
        findings += list(_output(output))
    findings += list(_cluster(address, loaded, output))
    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(escape(finding.what), MARKS[finding.state], escape(finding.text))
    console.print(table)
    wrong = [finding for finding in findings if finding.state == "wrong"]
    console.print("\nnothing is wrong" if not wrong else f"\n{len(wrong)} wrong: see above")
    raise typer.Exit(1 if wrong else 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    what: str
    state: str
    """ok, note or wrong."""
    text: str


def _packages() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    yield Finding("python", "ok", platform.python_version())
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "wrong", "is not installed; install hardray again")
    try:
        import timm  # noqa: F401
    except Exception as error:  # a mismatched torchvision breaks timm's import in many ways
        yield Finding("imports", "wrong", f"timm cannot be imported ({error}); torch and torchvision must match")


def _byte_code() -> Iterator[Finding]:
    """Check that byte code is kept: without it each of Ray's processes compiles torch and Ray when it starts."""
    specification = importlib.util.find_spec("torch")
    if specification is None or specification.cached is None or Path(specification.cached).exists():
        return
    why = "PYTHONDONTWRITEBYTECODE is set" if sys.dont_write_bytecode else "the packages' folder is not writable"
    yield Finding(
        "byte code",
        "note",
        f"is not kept ({why}), so every process takes seconds longer to start; "
        f"`{sys.executable} -m compileall -q {sysconfig.get_path('purelib')}` makes it once",
    )


def _processor() -> Iterator[Finding]:
    from hard_ray.orchestration.cluster.hardware import probe

    hardware = probe()
    yield Finding("processor", "ok", f"{hardware.cpu}, {hardware.cores} cores{_quota()}")
    if hardware.gpus:
        precision = "bfloat16" if hardware.gpu_has_bf16 else "float32: no bfloat16"
        tf32 = "TF32" if hardware.gpu_has_tf32 else "no TF32"
        capability = ".".join(map(str, hardware.gpu_capability or ()))
        named = f"{len(hardware.gpus)} x {hardware.gpus[0]}, compute capability {capability}"
        yield Finding("GPU", "ok", f"{named}, {precision}, {tf32}")
    else:
        unit = hardware.bf16_unit
        precision = f"bfloat16 ({unit})" if unit else "float32 (neither AMX nor AVX-512 BF16)"
        yield Finding("GPU", "note", f"none that torch sees; students and teachers compute on the CPU in {precision}")


def _compiler() -> Iterator[Finding]:
    """Look for what torch.compile needs; a run that asks for it tries it."""
    from hard_ray.orchestration.cluster.hardware import probe

    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    missing = [] if any(shutil.which(name) for name in compilers if name) else ["a C++ compiler"]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("Python's headers")
    if probe().gpus and importlib.util.find_spec("triton") is None:
        missing.append("Triton")
    if missing:
        yield Finding("compiler", "note", f"{', '.join(missing)} is not there: runtime.compile would be turned off")
    else:
        yield Finding("compiler", "ok", "what runtime.compile needs is there; a run that asks for it tries it")


def _quota() -> str:
    """How a control group limits the cores of this machine; empty if none does."""
    from hard_ray.orchestration.cluster.cgroups import limits
    from hard_ray.orchestration.cluster.hardware import installed_cores

    quota = limits().cores
    if quota is None or quota >= installed_cores():
        return ""
    return f" of {installed_cores()}: a control group allows the time of {quota:g}"


def _memory() -> Iterator[Finding]:
    from hard_ray.orchestration.cluster.hardware import installed_memory_gib, probe

    hardware = probe()
    state = "ok" if hardware.memory_gib >= 4 else "wrong"
    installed = installed_memory_gib()
    limited = f" of {installed:.1f}, by a control group" if hardware.memory_gib < installed - 0.05 else ""
    yield Finding("memory", state, f"{hardware.memory_gib:.1f} GiB{limited}; a run on one machine takes about 4")
    shared = hardware.shared_memory_gib
    state, advice = ("note", ": Ray falls back to slow files; give containers more") if shared < 1 else ("ok", "")
    yield Finding(SHARED_MEMORY, state, f"{shared:.1f} GiB free{advice}")


def _folders() -> Iterator[Finding]:
    from hard_ray.files import cache_folder, home_folder
    from hard_ray.orchestration.cluster.hardware import free_disk_gib

    here = Path.cwd()
    free = free_disk_gib(here)
    yield Finding("disk", "ok" if free > 2 else "note" if free > 0.1 else "wrong", f"{free:.1f} GiB free in {here}")
    yield Finding("current folder", *_writable(here))
    home = home_folder()
    state, text = _writable(home, otherwise="note")
    yield Finding("home folder", state, text if state == "ok" else f"{text}: Ray's token is kept in memory instead")
    cache = cache_folder()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    yield Finding("teacher cache", *_writable(existing, shown=cache, otherwise="note"))


def _writable(folder: Path, *, shown: Path | None = None, otherwise: str = "wrong") -> tuple[str, str]:
    """Write and lock a file in a folder, as a run does in its own."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hardray-") as stream:
            stream.write(b"0" * 4096)
            stream.flush()
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return otherwise, f"{shown or folder} cannot be written and locked ({error.strerror})"
    return "ok", f"{shown or folder} is writable"


def _output(output: Path) -> Iterator[Finding]:
    """Try the folder of the runs, or the one in which it would be made, or their URL."""
    from hard_ray.errors import StorageError
    from hard_ray.storage import objects
    from hard_ray.storage.address import Remote, is_url

    if is_url(output):
        remote = Remote.parse(output)
        mark = remote / f".hardray-{os.getpid()}"
        try:
            objects.write(mark, b"1")
            objects.read(mark, size=1)
            objects.delete(mark)
        except StorageError as error:
            yield Finding("output here", "wrong", str(error))
        else:
            yield Finding("output here", "ok", f"{remote.shown} can be written, read and deleted from")
        return
    folder = output.expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        yield Finding("output", "wrong", f"{there} is a file, and {folder} a folder below it; choose another --output")
        return
    yield Finding("output here", *_writable(there))


def _drawing() -> Iterator[Finding]:
    """Draw a figure as runs do; without matplotlib's font cache the first one takes seconds."""
    from hard_ray.errors import readable
    from hard_ray.reports.figures import new_figure

    began = time.perf_counter()
    try:
        figure = new_figure(1, 1)
        figure.add_subplot().set_title("T. stddev")
        figure.savefig(io.BytesIO(), format="png")
    except Exception as error:  # of a style file, a font or a damaged package
        yield Finding("pictures", "note", f"matplotlib draws none ({readable(error)}); runs go on without them")
        return
    yield Finding("pictures", "ok", f"matplotlib draws one in {time.perf_counter() - began:.1f} s")


def _tracking(config: RunConfig | None, output: Path | None) -> Iterator[Finding]:
    """Use MLflow's address as a run in this folder would, without making anything there."""
    from hard_ray.config.records import TrackingConfig
    from hard_ray.runs.tracking import TrackingError, UnreachableError, check_address, ignored_variables
    from hard_ray.storage.address import Remote, is_url
    from hard_ray.storage.mirror import working_copy

    tracking = TrackingConfig() if config is None else config.tracking
    if output is not None and is_url(output):
        output = working_copy(Remote.parse(output))
    runs = (Path("runs") if output is None else output.expanduser().absolute().parent).absolute()
    for line in ignored_variables():
        yield Finding("MLflow", "note", line)
    try:
        yield Finding("MLflow", "ok", check_address(tracking, runs))
    except UnreachableError as error:
        yield Finding("MLflow", "wrong", f"{error}; runs go on and can be sent later by `hardray sync`")
    except TrackingError as error:
        yield Finding("MLflow", "wrong", str(error))


def _cluster(address: str | None, config: RunConfig | None, output: Path | None) -> Iterator[Finding]:
    """Check the cluster of `address`, `config` or RAY_ADDRESS, or one started here, for the run or the smallest one."""
    from hard_ray.config.runtime import RuntimeConfig
    from hard_ray.orchestration.cluster.connection import connected
    from hard_ray.redaction import without_password

    runtime = RuntimeConfig() if config is None else config.runtime
    runtime = runtime.model_copy(update={"address": address or runtime.address, "nodes_timeout_s": 0.0})
    where = without_password(runtime.address or os.environ.get("RAY_ADDRESS") or "this machine")
    try:
        with connected(runtime, namespace="hardray-doctor") as cluster:
            yield _room(where, cluster, runtime, whole=config is not None)
            yield _imports()
            if not cluster.is_own:
                yield from _nodes(output)
    except HardrayError as error:
        yield Finding("Ray", "wrong", str(error))


def _room(where: str, cluster: Cluster, runtime: RuntimeConfig, *, whole: bool) -> Finding:
    from hard_ray.orchestration.cluster.demand import amounts, demand
    from hard_ray.orchestration.cluster.resources import check_demand, without_pool

    resources = cluster.resources
    own = ("memory", "object_store_memory")
    shown = ", ".join(
        f"{amount:g} {name}"
        for name, amount in sorted(resources.items())
        if name not in own and ":" not in name and "_group_" not in name  # Ray's own, of placement groups
    )
    try:
        check_demand(runtime, cluster)
    except HardrayError as error:
        is_too_small = whole or without_pool(runtime, cluster) is None  # else a small run has a way
        return Finding("Ray", "wrong" if is_too_small else "note", f"{where} has {shown}: {error}")
    if whole:
        return Finding("Ray", "ok", f"{where} has {shown}; the run reserves {amounts(demand(runtime).total)}")
    return Finding("Ray", "ok", f"{where} starts and has {shown}")


def _imports() -> Finding:
    """Import in a worker of Ray what student and teacher need: its import path and libraries may be others."""
    from hard_ray.errors import readable
    from hard_ray.orchestration.cluster.nodes import import_in_worker

    began = time.perf_counter()
    try:
        places = import_in_worker()
    except Exception as error:  # whatever an import raises there
        text = f"a worker of Ray cannot import torch, timm and hardray ({readable(error)}); install them again there"
        return Finding("worker", "wrong", text)
    seconds = time.perf_counter() - began
    return Finding("worker", "ok", f"a worker of Ray imports torch, timm and hardray in {seconds:.1f} s, from {places}")


def _nodes(output: Path | None) -> Iterator[Finding]:
    from hard_ray.errors import StorageError, readable
    from hard_ray.orchestration.cluster.nodes import differences, look, versions_here
    from hard_ray.storage.address import Remote, is_url

    folder: Path | Remote | None = None
    if output is not None and is_url(output):
        folder = Remote.parse(output)
    elif output is not None:
        whole = output.expanduser().absolute()
        folder = next((path for path in (whole, *whole.parents) if path.is_dir()), None)
    shown = folder.shown if isinstance(folder, Remote) else folder
    try:
        nodes, silent = look(folder)
    except (OSError, StorageError) as error:
        yield Finding("output", "wrong", f"nothing can be written to {shown} here ({readable(error)})")
        nodes, silent = look(None)
        folder = None
    for name in silent:
        yield Finding("node", "wrong", f"{name} does not answer")
    different = list(differences(versions_here(), nodes))
    for text in different:
        yield Finding("versions", "wrong", f"{text}; hardray wants them equal")
    if nodes and not different:
        yield Finding("versions", "ok", f"those of this machine on {len(nodes)} nodes")
    if folder is not None:
        blind = [node.name for node in nodes if not node.sees]
        want = (
            "allow its identity there to read"
            if isinstance(folder, Remote)
            else "want storage that every node mounts at the same path"
        )
        text = f"{shown} is not seen by {', '.join(blind)}; {want}"
        yield Finding("output", "wrong", text) if blind else Finding("output", "ok", f"every node sees {shown}")
