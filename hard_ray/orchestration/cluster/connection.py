"""The Ray session of a run: joining a cluster or starting one."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping

import ray
from ray.job_config import JobConfig
from typing_extensions import override

from hard_ray.config.runtime import RuntimeConfig
from hard_ray.errors import ClusterError
from hard_ray.files import home_folder
from hard_ray.orchestration.cluster.address import WORDS, address_of, check_address
from hard_ray.orchestration.cluster.demand import Demand, demand
from hard_ray.orchestration.cluster.hardware import usable_cores
from hard_ray.orchestration.cluster.places import check_places
from hard_ray.orchestration.cluster.processes import (
    apart,
    end_processes,
    handlers_kept,
    sessions_of_ray,
    started_by_ray,
    watched,
)
from hard_ray.orchestration.cluster.resources import Cluster, await_nodes, slots_of
from hard_ray.redaction import masked, without_password

logger = logging.getLogger(__name__)

MOST_TOKENS_PER_CORE = 4
"""The most CPU tokens per core of this machine; a run that reserves more is refused."""

START_TRIES, SLOW_START = 4, "timed out during startup"
"""Ray allows a node 30 s to start, which may be too short on a busy machine; then the start is repeated."""


REPORT_INTERVAL_S = "0.2"
"""Seconds between the looks of Ray Train's controller at its workers (Ray's default: 2). Each report waits for one."""

GROUP_START_TIMEOUT_S = "30"
"""Seconds that Ray Train waits for lost nodes before it goes on with fewer workers (Ray's default: 60)."""

OWN_CLUSTER = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "false",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_worker_niceness": "0",
}
"""Settings of Ray for a cluster of this machine alone, unless the environment sets them.

- The machine is not preempted, so there is no watcher for that.
- There is no dashboard to show task events and metrics, which cost Ray's controller 9 MiB per thousand updates.
- A slow health check does not remove the only node.
- Workers start at normal priority, so that `give_way` can put others behind the student.
"""


NOT_FOR_WORKERS = (
    "PYTHONWARNINGS",
    "PYTHONOPTIMIZE",
    "PYTHONINSPECT",
    "PYTHONSTARTUP",
    "PYTHONIOENCODING",
    "MPLBACKEND",
)
"""Variables that a shell or a notebook sets for a program of its own, and that processes of a cluster do not inherit:
with `PYTHONWARNINGS=error`, a deprecation in any package would end a worker."""


@contextlib.contextmanager
def connected(
    runtime: RuntimeConfig, *, namespace: str, trials: int | None = None, say: Callable[[str], None] = logger.info
) -> Iterator[Cluster]:
    """Connect to Ray for as long as the block lasts; raises ClusterError if the address does not answer.

    With an address (or RAY_ADDRESS), that cluster is joined and left; otherwise one is started on this machine and
    stopped. An existing session of this process is used and kept. If a joined cluster lacks reserved resources, its
    autoscaler has `runtime.nodes_timeout_s` to add nodes, and `say` tells so. `namespace` is that of named
    actors, and `trials` is as in `demand`.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", REPORT_INTERVAL_S)
    if runtime.is_elastic:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", GROUP_START_TIMEOUT_S)
    if ray.is_initialized():
        yield Cluster(is_own=False, resources=ray.cluster_resources())
        return
    address = address_of(runtime)
    quiet_ray()
    with _joined(address, runtime, namespace, trials, say) if address else _started(runtime, namespace, trials):
        yield Cluster(is_own=not address, resources=ray.cluster_resources())


@contextlib.contextmanager
def _joined(
    address: str, runtime: RuntimeConfig, namespace: str, trials: int | None, say: Callable[[str], None]
) -> Iterator[None]:
    try:
        with handlers_kept():
            _join(address, namespace)
        await_nodes(runtime, trials, say)
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _started(runtime: RuntimeConfig, namespace: str, trials: int | None) -> Iterator[None]:
    """A cluster whose processes this one's signals do not reach, and that ends with this one, whatever ends it."""
    with _defaults(OWN_CLUSTER), contextlib.ExitStack() as stack:
        try:
            with apart(), handlers_kept(), _without(NOT_FOR_WORKERS):
                _start(demand(runtime, trials=trials), namespace)
            stack.enter_context(watched(sessions_of_ray()))
            yield
        finally:
            processes = started_by_ray()
            ray.shutdown()
            end_processes(processes)


class OwnImports(JobConfig):
    """The settings of this program at Ray, by which workers import what this process does.

    By default Ray puts the current folder and the script's in front of its workers' import path. There a user's
    `profile.py` or `timm.py` would be imported in the place of a module of Python or of a package. Ray leaves both out
    where a program brings its working folder along, so that is what this says.
    """

    @override
    def _runtime_env_has_working_dir(self) -> bool:
        return True


@contextlib.contextmanager
def _defaults(environment: Mapping[str, str]) -> Iterator[None]:
    """Set those variables that are unset for as long as the block lasts; the next cluster may need others."""
    added = {name: value for name, value in environment.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _without(names: Iterable[str]) -> Iterator[None]:
    """Unset variables for as long as the block lasts."""
    removed = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)


def _join(address: str, namespace: str) -> None:
    shown = without_password(address)
    check_address(address)
    _take_token_along(address)
    try:
        ray.init(
            address=address,
            namespace=namespace,
            job_config=OwnImports(),
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except Exception as error:  # Ray raises ConnectionError, ValueError, RuntimeError and its own
        raise ClusterError(
            f"no Ray cluster answers at {shown} ({type(error).__name__}: {masked(_first_line(error))}); "
            "give the port of its head (6379 by default), not that of Ray Client (10001) or of a node, start a cluster "
            "with `ray start --head`, give its token as RAY_AUTH_TOKEN if it wants one, or leave runtime.address and "
            "RAY_ADDRESS unset to use this machine"
        ) from None


def _take_token_along(address: str) -> None:
    """Use the token from the environment or the home folder if the cluster wants one, unless RAY_AUTH_MODE is set.

    A cluster of `ray start --head` requires the token if the home folder has one, as it has after the first local run.
    But `ray.init` does not send it to an existing cluster, and is refused. Where the cluster wants none, a driver with
    a token refuses the requests of the cluster, which takes it for dead.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private.authentication import authentication_token_setup  # Ray has no public way

        if "RAY_AUTH_MODE" in os.environ or address in WORDS or _wants_token(address):
            authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _wants_token(address: str) -> bool:
    """Whether a cluster refuses a client without a token; False also if it does not answer, which `ray.init` says."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    with _defaults({"RAY_BACKEND_LOG_LEVEL": "fatal"}):
        try:
            GcsClient(address=without_password(address))
        except ray.exceptions.AuthenticationError:
            return True
        except Exception:  # Ray raises RpcError, ValueError and others
            return False
    return False


def _start(reserved: Demand, namespace: str) -> None:
    """Start a cluster on this machine. CPUs are tokens: a small machine offers as many as the run reserves."""
    if "RAY_AUTH_TOKEN" not in os.environ and not os.access(home_folder(), os.W_OK):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray would write one to the home folder
    cores, wanted = usable_cores(), -(-reserved.total["CPU"] // 1)
    if wanted > MOST_TOKENS_PER_CORE * cores:
        raise ClusterError(
            f"{reserved.whose} reserves {wanted:g} CPUs and this machine has {cores} cores; lower {reserved.knobs}, "
            "or give runtime.address to use a cluster"
        )
    check_places()
    for left in reversed(range(START_TRIES)):
        try:
            ray.init(
                address="local",
                namespace=namespace,
                job_config=OwnImports(),
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


def quiet_ray() -> None:
    """Keep Ray's messages out of the terminal; they are in Ray's log folder."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    for name in ("ray", "ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _first_line(error: BaseException) -> str:
    lines = (str(error).strip() or "no reason given").splitlines()
    if "mismatch" in lines[0]:  # the versions of Ray and Python on both sides follow below
        return " ".join(" ".join(lines).split())
    return lines[0]
