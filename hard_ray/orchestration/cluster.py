"""The Ray session of a run: joining or starting a cluster, and whether it has what the run needs."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import ray
from ray.autoscaler.sdk import request_resources

from hard_ray.config.run import RunConfig
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.errors import ClusterError
from hard_ray.orchestration.demand import DATA_CPUS, STUDENT_SLOT, TEACHER_SLOT, Demand, amounts, demand
from hard_ray.orchestration.hardware import Hardware, probe, usable_cores
from hard_ray.orchestration.plan import DataShares
from hard_ray.redaction import masked, without_password

logger = logging.getLogger(__name__)

MOST_TOKENS_PER_CORE = 4
"""How many processes may share a core of this machine; beyond that a run is refused."""

CONNECT_TIMEOUT_S = 5.0

START_TRIES, SLOW_START = 4, "timed out during startup"
"""Ray gives a node 30 s to start, which a busy machine may not keep; then it is asked again."""

STREAM_THREADS = ("iter_threaded", "Prefetcher", "StreamingExecutor")
STREAM_PATIENCE_S = 20.0

WORKERS_END_S = 10.0
"""How long Ray's workers may take to end after their cluster; usually it is less than a second."""

NODES_LOOK_S = 1.0
"""How often a run that waits for nodes looks whether they are there."""

REPORT_INTERVAL_S = "0.2"
"""How often Train's controller looks at its workers; each report waits for a look, 2 s by Ray's default."""

GROUP_START_TIMEOUT_S = "30"
"""How long Ray Train waits for lost nodes before it goes on with fewer workers, 60 s by Ray's default."""

OWN_CLUSTER = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "false",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_worker_niceness": "0",
}
"""How a cluster of this machine differs from Ray's own settings, unless the environment says otherwise.

Nobody takes the machine away. No dashboard shows each task and gauge, of which Ray's controller would hold 9 MiB more
after every thousand updates. The only node is not given up for being slow to answer. And the student computes first;
see `give_way`.
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster that this process is connected to."""

    is_own: bool
    """Whether it was started for this run, on this machine."""
    resources: dict[str, float]


@contextlib.contextmanager
def connected(
    runtime: RuntimeConfig, *, namespace: str, trials: int | None = None, say: Callable[[str], None] = logger.info
) -> Iterator[Cluster]:
    """A connection to Ray for as long as the block lasts.

    With an address (or RAY_ADDRESS) that cluster is joined and left; otherwise one is started on this machine
    and stopped. A session that this process has already is used and kept. A cluster that is joined, and lacks some
    of what is reserved, is given `runtime.nodes_timeout_s` for its autoscaler to add nodes.

    Args:
        runtime: what is reserved, and where.
        namespace: of named actors.
        trials: as in `demand`.
        say: told that nodes are waited for.

    Raises:
        ClusterError: the address does not answer.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", REPORT_INTERVAL_S)
    if runtime.is_elastic:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", GROUP_START_TIMEOUT_S)
    if ray.is_initialized():
        yield Cluster(is_own=False, resources=ray.cluster_resources())
        return
    address = runtime.address or os.environ.get("RAY_ADDRESS")
    quiet_ray()
    with _defaults({} if address else OWN_CLUSTER):
        try:
            if address:
                _join(address, namespace)
                _await_nodes(runtime, trials, say)
            else:
                _start(demand(runtime, trials=trials), namespace)
            yield Cluster(is_own=not address, resources=ray.cluster_resources())
        finally:
            processes = [] if address else _started_by_ray()
            ray.shutdown()
            _end(processes)


@contextlib.contextmanager
def _defaults(environment: Mapping[str, str]) -> Iterator[None]:
    """These variables, unless they are set, for as long as the block lasts: the next cluster may be another's."""
    added = {name: value for name, value in environment.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _started_by_ray() -> list[psutil.Process]:
    """What runs below the raylet that this process started."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            found += child.children(recursive=True) if child.name() == "raylet" else []
    return found


def _end(processes: list[psutil.Process]) -> None:
    """End what does not end by itself: of Ray's workers now and then one hangs in its own destructors.

    Source: ray-project/ray#52322, which is open: Ray takes such an actor for dead and leaves its process.
    """
    last = time.monotonic() + WORKERS_END_S
    while (running := [process for process in processes if _runs(process)]) and time.monotonic() < last:
        time.sleep(0.05)
    for process in running:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _runs(process: psutil.Process) -> bool:
    """A zombie does not: in a container nobody may ask for its end."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def await_streams() -> None:
    """Let Ray Data's threads end: Ray ends the process in which one of them calls it after its shutdown.

    For a driver that reads images itself, before it leaves `connected`.
    """
    end = time.monotonic() + STREAM_PATIENCE_S
    for thread in threading.enumerate():
        if thread.name.startswith(STREAM_THREADS):
            thread.join(max(0.0, end - time.monotonic()))


def _join(address: str, namespace: str) -> None:
    shown = without_password(address)
    _knock(address)
    _take_token_along()
    try:
        ray.init(address=address, namespace=namespace, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # Ray raises ConnectionError, ValueError, RuntimeError and its own
        raise ClusterError(
            f"no Ray cluster answers at {shown} ({type(error).__name__}: {masked(_first_line(error))}); "
            "start one with `ray start --head`, give its token as RAY_AUTH_TOKEN if it wants one, or leave "
            "runtime.address and RAY_ADDRESS unset to use this machine"
        ) from None


def _take_token_along() -> None:
    """Offer the token that lies in the environment or the home folder, unless RAY_AUTH_MODE decides.

    `ray start --head` asks for it where there is one, and there is after the first run on a cluster of one's own; but
    `ray.init` of a cluster that is there already leaves it out, and is refused.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private.authentication import authentication_token_setup  # Ray has no public way

        authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _knock(address: str) -> None:
    """Ray waits for minutes for a host that does not answer; this waits for seconds.

    Raises:
        ClusterError: nothing listens at the address.
    """
    shown = without_password(address)
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        reason = masked(str(error))
        raise ClusterError(f"runtime.address {shown!r} is no address ({reason}); want HOST:PORT") from None
    if host is None or port is None:
        return  # a word such as `auto`: Ray looks it up by itself
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {shown} ({error.strerror or error}); start one with `ray start --head`, or "
            "leave runtime.address and RAY_ADDRESS unset to use this machine"
        ) from None


def _start(reserved: Demand, namespace: str) -> None:
    """A cluster of this machine. CPUs are tokens: a small machine gives as many as the run asks for."""
    if "RAY_AUTH_TOKEN" not in os.environ and not os.access(Path.home(), os.W_OK):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray would write one to the home folder
    cores, wanted = usable_cores(), -(-reserved.total["CPU"] // 1)
    if wanted > MOST_TOKENS_PER_CORE * cores:
        raise ClusterError(
            f"{reserved.whose} reserves {wanted:g} CPUs and this machine has {cores} cores; lower {reserved.knobs}, "
            "or give runtime.address to use a cluster"
        )
    for left in reversed(range(START_TRIES)):
        try:
            ray.init(
                address="local",
                namespace=namespace,
                num_cpus=int(max(cores, wanted)),
                resources=slots_of(reserved),
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
            return
        except Exception as error:  # as above
            ray.shutdown()
            if left and SLOW_START in str(error):
                continue
            raise ClusterError(
                f"Ray cannot start on this machine ({type(error).__name__}: {_first_line(error)}); "
                "`hardray doctor` looks for the reason"
            ) from None


def slots_of(reserved: Demand) -> dict[str, float]:
    """The slots of a cluster that is made for one run: all that it asks for."""
    return {name: amount for name, amount in reserved.total.items() if name in (STUDENT_SLOT, TEACHER_SLOT)}


def quiet_ray() -> None:
    """Leave the terminal to the run; Ray's own words are in its log folder."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    for name in ("ray", "ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def check_demand(runtime: RuntimeConfig, cluster: Cluster, *, trials: int | None = None) -> None:
    """Compare what is reserved with what the cluster has, before anything waits for it.

    Raises:
        ClusterError: says what is missing.
    """
    wanted = demand(runtime, trials=trials, least=True)
    if missing := _missing(wanted, cluster.resources):
        parts = "; ".join(f"{who}: {amounts(part)}" for who, part in wanted.parts.items())
        waited = f" within {runtime.nodes_timeout_s:g} s" if runtime.nodes_timeout_s and not cluster.is_own else ""
        raise ClusterError(
            f"{wanted.whose} reserves {missing}{waited}: {parts}; lower {wanted.knobs}, or add nodes (where an "
            "autoscaler does, runtime.nodes_timeout_s waits for it)"
        )


def _missing(wanted: Demand, resources: Mapping[str, float]) -> str:
    """What a cluster with these resources lacks, in words; nothing where it has all."""
    return " and ".join(
        f"{amount:g} {name} (the cluster has {resources.get(name, 0.0):g})"
        for name, amount in wanted.total.items()
        if amount > resources.get(name, 0.0) + 1e-9
    )


def _await_nodes(runtime: RuntimeConfig, trials: int | None, say: Callable[[str], None]) -> None:
    """Have the autoscaler of a joined cluster add what the run reserves, until it can begin or the time is over.

    Ray Train and the pool ask for it again as they start, so the request goes no further than this: it would outlive
    a driver that is killed.
    """
    if not runtime.nodes_timeout_s:
        return
    last, there = time.monotonic() + runtime.nodes_timeout_s, ray.cluster_resources()
    resolved = _resolve_gpus(runtime, Cluster(is_own=False, resources=there), trials or 1)
    least = demand(resolved, trials=trials, least=True)
    if not (missing := _missing(least, there)):
        return
    say(f"cluster: waiting up to {runtime.nodes_timeout_s:g} s for nodes; {least.whose} reserves {missing}")
    request_resources(bundles=demand(resolved, trials=trials).bundles)
    try:
        while _missing(least, ray.cluster_resources()) and time.monotonic() < last:
            time.sleep(NODES_LOOK_S)
    finally:
        request_resources(bundles=[])


def data_shares(runtime: RuntimeConfig, cluster: Cluster, *, trials: int | None = None) -> DataShares:
    """What is left for Ray Data of one run once workers and teachers have theirs; see `demand` for `trials`."""
    runs = trials or 1
    reserved = demand(runtime, trials=trials).total["CPU"] - runs * DATA_CPUS
    return DataShares(
        cpus=max(DATA_CPUS, (cluster.resources.get("CPU", 0.0) - reserved) / runs),
        object_store_bytes=0.5 * cluster.resources.get("object_store_memory", 2**30) / runs,
    )


def resolve_runtime(config: RunConfig, cluster: Cluster, *, trials: int | None = None) -> RunConfig:
    """Fill in what is chosen from the hardware; what the user or an earlier start chose stays.

    Args:
        config: of the run.
        cluster: where it runs.
        trials: as in `demand`.

    Raises:
        ClusterError: the cluster lacks what the run reserves.
    """
    runs = trials or 1
    reserved = _resolve_gpus(config.runtime, cluster, runs)
    check_demand(reserved, cluster, trials=trials)
    return config.model_copy(update={"runtime": _resolve_kernels(reserved, cluster, runs)})


def _resolve_gpus(runtime: RuntimeConfig, cluster: Cluster, runs: int = 1) -> RuntimeConfig:
    """GPUs are used where the cluster has them; where they are few, a worker and a teacher share one."""
    there, workers = cluster.resources.get("GPU", 0.0), runs * runtime.num_workers
    replicas = runtime.teacher.replicas if runtime.teacher.placement == "pool" else 0
    shared = replicas > 0 and not runtime.slots and workers <= there < workers + replicas  # slots: nodes of their own
    gpus = _chosen(runtime.gpus_per_worker, 0.0 if not there else 0.5 if shared else 1.0)
    left = there - workers * gpus  # none, where a worker was told to take a whole one
    per_replica = min(1.0, int(100 * left / replicas) / 100) if shared and left > 0 else 1.0
    for_teacher = _chosen(runtime.teacher.num_gpus, per_replica if gpus and replicas else 0.0)
    teacher = runtime.teacher.model_copy(update={"num_gpus": for_teacher})
    return runtime.model_copy(update={"gpus_per_worker": gpus, "teacher": teacher})


def _resolve_kernels(runtime: RuntimeConfig, cluster: Cluster, runs: int) -> RuntimeConfig:
    """Precision, memory layout and threads follow from the machine that student workers run on."""
    gpus = runtime.gpus_per_worker or 0.0
    hardware = probe() if cluster.is_own and not gpus else remote_probe(gpus)
    dtype = hardware.fast_dtype(on_gpu=bool(gpus))
    threads = _threads(runtime, hardware, runs, is_own=cluster.is_own)
    amp_dtype = _chosen(runtime.amp_dtype, dtype)
    teacher = runtime.teacher.model_copy(
        update={
            "dtype": _chosen(runtime.teacher.dtype, dtype),
            "threads": _chosen(runtime.teacher.threads, threads),
        }
    )
    return runtime.model_copy(
        update={
            "amp_dtype": amp_dtype,
            "channels_last": _chosen(
                runtime.channels_last, hardware.prefers_channels_last(amp_dtype, on_gpu=bool(gpus))
            ),
            "threads": _chosen(runtime.threads, threads),
            "teacher": teacher,
        }
    )


def remote_probe(num_gpus: float) -> Hardware:
    """Look at a machine that student workers will run on."""
    return ray.get(ray.remote(probe).options(num_cpus=0, num_gpus=num_gpus).remote())


def _threads(runtime: RuntimeConfig, hardware: Hardware, runs: int, *, is_own: bool) -> int:
    """On a cluster what is reserved; on one machine an equal part for every process that computes."""
    if not is_own:
        return max(1, int(runtime.cpus_per_worker))
    replicas = runtime.teacher.replicas if runtime.teacher.placement == "pool" else 0
    return max(1, hardware.cores // (runs * runtime.num_workers + replicas))


def _chosen(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given


def _first_line(error: BaseException) -> str:
    lines = (str(error).strip() or "no reason given").splitlines()
    if "mismatch" in lines[0]:  # Ray's and Python's versions, here and there, stand below it
        return " ".join(" ".join(lines).split())
    return lines[0]
