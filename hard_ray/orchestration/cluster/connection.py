"""The Ray session of a run: joining or starting a cluster, and whether it has what the run needs."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import ray

from hard_ray.config.runtime import RuntimeConfig
from hard_ray.errors import ClusterError
from hard_ray.orchestration.cluster.demand import (
    Demand,
    demand,
)
from hard_ray.orchestration.cluster.hardware import usable_cores
from hard_ray.orchestration.cluster.processes import _end, _started_by_ray
from hard_ray.orchestration.cluster.resources import Cluster, _await_nodes, slots_of
from hard_ray.redaction import masked, without_password

logger = logging.getLogger(__name__)

MOST_TOKENS_PER_CORE = 4
"""How many processes may share a core of this machine; beyond that a run is refused."""

CONNECT_TIMEOUT_S = 5.0

START_TRIES, SLOW_START = 4, "timed out during startup"
"""Ray gives a node 30 s to start, which a busy machine may not keep; then it is asked again."""


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


def quiet_ray() -> None:
    """Leave the terminal to the run; Ray's own words are in its log folder."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    for name in ("ray", "ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _first_line(error: BaseException) -> str:
    lines = (str(error).strip() or "no reason given").splitlines()
    if "mismatch" in lines[0]:  # Ray's and Python's versions, here and there, stand below it
        return " ".join(" ".join(lines).split())
    return lines[0]
