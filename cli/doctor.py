"""`hardray doctor`: what can be used, and what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hard_ray.errors import HardrayError

SHARED_MEMORY = "/dev/shm"  # noqa: S108  (Ray's object store lives there)
PACKAGES = ("torch", "torchvision", "timm", "ray", "mlflow", "pydantic", "numpy")
MARKS = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "wrong": "[red]wrong[/red]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str
    """ok, note or wrong."""
    text: str


def examine(console: Console, address: str | None) -> bool:
    """Print a table of findings; whether nothing is wrong."""
    checks: list[Callable[[], Iterator[Finding]]] = [_packages, _processor, _memory, _folders, _tracking]
    findings = [finding for check in checks for finding in check()]
    findings += list(_cluster(address))
    table = Table(show_header=False, box=None, pad_edge=False)
    for finding in findings:
        table.add_row(escape(finding.what), MARKS[finding.state], escape(finding.text))
    console.print(table)
    wrong = [finding for finding in findings if finding.state == "wrong"]
    console.print("\nnothing is wrong" if not wrong else f"\n{len(wrong)} wrong: see above")
    return not wrong


def _packages() -> Iterator[Finding]:
    yield Finding("python", "ok", platform.python_version())
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "wrong", "is not installed; install hardray again")
    try:
        import timm  # noqa: F401
    except Exception as error:  # a mismatched torchvision breaks timm's import in many ways
        yield Finding("imports", "wrong", f"timm cannot be imported ({error}); torch and torchvision must match")


def _processor() -> Iterator[Finding]:
    from hard_ray.orchestration.hardware import probe

    hardware = probe()
    yield Finding("processor", "ok", f"{hardware.cpu}, {hardware.cores} cores")
    if hardware.gpus:
        precision = "bfloat16" if hardware.gpu_has_bf16 else "float32: no bfloat16"
        yield Finding("GPU", "ok", f"{len(hardware.gpus)} x {hardware.gpus[0]}, {precision}")
    else:
        precision = "bfloat16 (AMX)" if hardware.has_amx else "float32 (no AMX)"
        yield Finding("GPU", "note", f"none that torch sees; students and teachers compute on the CPU in {precision}")


def _memory() -> Iterator[Finding]:
    from hard_ray.orchestration.hardware import probe

    hardware = probe()
    state = "ok" if hardware.memory_gib >= 4 else "wrong"
    yield Finding("memory", state, f"{hardware.memory_gib:.1f} GiB; a run on one machine takes about 4")
    shared = hardware.shared_memory_gib
    if shared < 1:
        yield Finding(
            SHARED_MEMORY, "note", f"{shared:.1f} GiB free: Ray falls back to slow files; give containers more"
        )
    else:
        yield Finding(SHARED_MEMORY, "ok", f"{shared:.1f} GiB free")


def _folders() -> Iterator[Finding]:
    from hard_ray.orchestration.hardware import free_disk_gib
    from hard_ray.run_folder import cache_folder

    here = Path.cwd()
    free = free_disk_gib(here)
    yield Finding("disk", "ok" if free > 2 else "note" if free > 0.1 else "wrong", f"{free:.1f} GiB free in {here}")
    yield Finding("current folder", *_writable(here))
    home = Path.home()
    if os.access(home, os.W_OK):
        yield Finding("home folder", "ok", f"{home} is writable")
    else:
        yield Finding("home folder", "note", f"{home} is not writable: Ray's token is kept in memory instead")
    cache = cache_folder()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    yield Finding("teacher cache", *_writable(existing, shown=cache, otherwise="note"))


def _writable(folder: Path, *, shown: Path | None = None, otherwise: str = "wrong") -> tuple[str, str]:
    if os.access(folder, os.W_OK):
        return "ok", f"{shown or folder} is writable"
    return otherwise, f"{shown or folder} is not writable"


def _tracking() -> Iterator[Finding]:
    from urllib.error import URLError
    from urllib.parse import urlsplit
    from urllib.request import urlopen

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        yield Finding("MLflow", "ok", "one sqlite database beside the runs (MLFLOW_TRACKING_URI is not set)")
        return
    host = urlsplit(uri)._replace(netloc=urlsplit(uri).netloc.rpartition("@")[2]).geturl()
    if not uri.startswith(("http://", "https://")):
        yield Finding("MLflow", "ok", f"MLFLOW_TRACKING_URI is {host}")
        return
    try:
        with urlopen(f"{host.rstrip('/')}/health", timeout=5):  # noqa: S310  (the scheme was checked above)
            yield Finding("MLflow", "ok", f"{host} answers")
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        yield Finding("MLflow", "wrong", f"{host} does not answer ({reason}); runs go on and can be sent later")


def _cluster(address: str | None) -> Iterator[Finding]:
    from hard_ray.config.runtime import RuntimeConfig
    from hard_ray.orchestration.cluster import connected
    from hard_ray.orchestration.demand import demand

    runtime = RuntimeConfig(address=address)
    where = address or os.environ.get("RAY_ADDRESS") or "this machine"
    try:
        with connected(runtime, namespace="hardray-doctor") as cluster:
            resources = cluster.resources
    except HardrayError as error:
        yield Finding("Ray", "wrong", str(error))
        return
    shown = ", ".join(
        f"{amount:g} {name}" for name, amount in sorted(resources.items()) if name in ("CPU", "GPU") or "slot" in name
    )
    needed = demand(runtime).total["CPU"]
    if resources.get("CPU", 0.0) < needed:
        yield Finding("Ray", "wrong", f"{where} has {shown}; the smallest run needs {needed:g} CPU")
        return
    yield Finding("Ray", "ok", f"{where} starts and has {shown}")
