"""Images per second of hardray and of the plain loop in turn, with idle share and peak memory of both."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence

import torch
import torch._functorch.config

from benchmarks.gpu import card
from benchmarks.gpu.isolated import Isolated, Start, Values
from benchmarks.gpu.plain import Plain
from benchmarks.gpu.sides import Hardray, Side, hardray_side
from benchmarks.gpu.workload import STUDENT_STEPS, Compile, Method, Pair, Workload
from benchmarks.hard_passes import HardPasses, counted
from benchmarks.rounds import interleaved, median, ratio
from hard_ray.networks.network import Network

ROUND_S, ROUNDS = 1.5, 7
CLOSING_S = 5.0
TINY_ROUND_S = 0.05
WARM_UPDATES = STUDENT_STEPS + 1
"""Enough for both phases, and for the kernels of every shape."""
REPEATS = 3
"""Runs of a pass that are timed together, so that the card does not wait for the host in between."""


def measure(work: Workload, pair: Pair, method: Method, how: Compile, seconds: float, until: float) -> dict[str, float]:
    """Compare both loops for about so many seconds, after they are warm, at most until `until`, of time.monotonic()."""
    # 1. hardray alone on the card: its memory
    ours = hardray_side(work, pair, method, how=how)
    found = {"warm_s": card.seconds(lambda: ours.more(WARM_UPDATES), work.device)}
    found["peak_gib"] = _peak(work, ours)
    # 2. the plain loop beside it
    held = card.held_gib(work.device)
    plain = Plain(work, pair, method, how)
    with torch._functorch.config.patch(donated_buffer=True):  # torch's own default, which hardray changes
        found["plain_warm_s"] = card.seconds(lambda: plain.more(WARM_UPDATES), work.device)
    if work.device == "cuda":
        found["plain_peak_gib"] = _peak(work, plain) - held
    # 3. both in turn, and the passes of HARD alone
    until = min(until - CLOSING_S, time.monotonic() + seconds)
    updates = _updates_per_round(work, plain)
    measures = {"hardray": _images_per_s(work, ours, updates), "plain": _images_per_s(work, plain, updates)}
    passes: Mapping[str, Callable[[], float]] = {}
    if method == "HARD":
        passes = {name: functools.partial(_pass_s, work, call) for name, call in hard_passes(work, ours).items()}
        interleaved(passes, 1)
    rates = interleaved({**measures, **passes}, ROUNDS, until=until)
    found |= {
        "images_per_s": median(rates["hardray"]),
        "plain_images_per_s": median(rates["plain"]),
        "ratio": ratio(rates["hardray"], rates["plain"]),
        "rounds": len(rates["plain"]),
    }
    if method == "HARD":
        found["arithmetic"] = _over_arithmetic(work, rates)
    # 4. gaps between kernels
    profiled = 1 if work.tiny else 2 * STUDENT_STEPS
    found["idle"] = card.idle_share(lambda: ours.more(profiled), work.device)
    found["plain_idle"] = card.idle_share(lambda: plain.more(profiled), work.device)
    if isinstance(ours.learner.network, Network) and ours.learner.network.compilation is not None:
        found["compiled_again"] = ours.learner.network.compilation.repeated
    return found


def _peak(work: Workload, side: Side) -> float:
    """The most memory of some updates; those before chose their kernels, which takes more."""
    if work.device == "cuda":
        card.forget_peak(work.device)
        side.more(STUDENT_STEPS)
    return card.peak_gib(work.device)


def _updates_per_round(work: Workload, side: Side) -> int:
    """Updates that take about a round's time, a multiple of HARD's cycle."""
    taken = card.seconds(lambda: side.more(STUDENT_STEPS), work.device)
    wanted = TINY_ROUND_S if work.tiny else ROUND_S
    return STUDENT_STEPS * max(1, round(wanted / taken))


def _images_per_s(work: Workload, side: Side, updates: int) -> Callable[[], float]:
    def rate() -> float:
        made: list[tuple[int, int]] = []
        taken = card.seconds(lambda: made.append(side.more(updates)), work.device)
        return sum(made[0]) * work.batch / taken

    return rate


def hard_passes(work: Workload, ours: Hardray) -> dict[str, Callable[[], object]]:
    """The passes of HARD with hardray's own networks, on one batch."""
    learner, updater = ours.learner, ours.run.updater
    assert learner.augmentor is not None
    assert learner.augmentor_optimizer is not None
    prepared = updater.prepare(work.batches()[0], second_view=False)
    return HardPasses(
        ours.pool.teacher.network,
        learner.network,
        learner.augmentor,
        learner.optimizer,
        learner.augmentor_optimizer,
        updater.precision,
        prepared.images,
        prepared.given,
    ).named()


def _pass_s(work: Workload, call: Callable[[], object]) -> float:
    def repeated() -> None:
        for _ in range(REPEATS):
            call()

    return card.seconds(repeated, work.device) / REPEATS


def _over_arithmetic(work: Workload, rates: Mapping[str, list[float]]) -> float:
    """Time of a cycle of HARD over that of its passes, as the median over rounds."""
    images = (STUDENT_STEPS + 1) * work.batch
    rounds = range(len(rates["hardray"]))
    times = [images / rates["hardray"][number] for number in rounds]
    alone = [
        counted(
            {name: values[number] for name, values in rates.items()},
            student_updates=STUDENT_STEPS,
            augmentor_updates=1,
        )
        for number in rounds
    ]
    return ratio(times, alone)


def warm_up(work: Workload, pair: Pair, method: Method, how: Compile) -> dict[str, float]:
    """Make the kernels of both loops, which torch.compile keeps on the disk; return the seconds."""
    began = time.monotonic()
    hardray_side(work, pair, method, how=how).more(WARM_UPDATES)
    with torch._functorch.config.patch(donated_buffer=True):
        Plain(work, pair, method, how).more(WARM_UPDATES)
    return {"seconds": time.monotonic() - began}


def warm_up_together(
    work: Workload, methods: Sequence[Method], how: Compile, at_once: int, start: Start, until: float
) -> Values:
    """Make the kernels of all pairs and methods, some at once: most of it is work of one core.

    What fails here fails in its own cell again, and is said there.
    """
    calls = {
        (pair, method): functools.partial(warm_up, work, pair, method, how) for pair in work.pairs for method in methods
    }
    waiting, found = list(calls.items()), {}
    while waiting and time.monotonic() < until - CLOSING_S:
        now, waiting = waiting[:at_once], waiting[at_once:]
        running = {key: Isolated(call, start=start) for key, call in now}
        for (pair, method), process in running.items():
            outcome = process.result(until - CLOSING_S)
            found[f"{pair.title}, {method}"] = outcome.values.get("seconds", outcome.error)
    return found
