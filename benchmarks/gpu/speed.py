"""Images per second of hardray and of the plain loop in turn, with idle share and peak memory of both."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping

from benchmarks.gpu import card
from benchmarks.gpu.plain import Compile, Plain
from benchmarks.gpu.sides import Hardray, Side, hardray_side
from benchmarks.gpu.workload import STUDENT_STEPS, Method, Pair, Workload
from benchmarks.hard_passes import HardPasses, counted
from benchmarks.rounds import interleaved, median, ratio

ROUND_S, ROUNDS = 1.5, 7
TINY_ROUND_S = 0.05
WARM_UPDATES = STUDENT_STEPS + 1
"""Enough for both phases, and for the kernels of every shape."""
REPEATS = 3
"""Runs of a pass that are timed together, so that the card does not wait for the host in between."""


def measure(work: Workload, pair: Pair, method: Method, how: Compile, seconds: float) -> dict[str, float]:
    """Compare both loops for about so many seconds, after they are warm."""
    # 1. hardray alone on the card: its memory
    ours = hardray_side(work, pair, method, *compile_keys(how))
    found = {"warm_s": card.seconds(lambda: ours.more(WARM_UPDATES), work.device)}
    found["peak_gib"] = card.peak_gib(work.device)
    # 2. the plain loop beside it
    card.forget_peak(work.device)
    held = card.held_gib(work.device)
    plain = Plain(work, pair, method, how)
    found["plain_warm_s"] = card.seconds(lambda: plain.more(WARM_UPDATES), work.device)
    if work.device == "cuda":
        found["plain_peak_gib"] = card.peak_gib(work.device) - held
    # 3. both in turn, and the passes of HARD alone
    until = time.monotonic() + seconds
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
    return found


def compile_keys(how: Compile) -> list[str]:
    """The keys by which a run compiles both networks."""
    if how:
        raise NotImplementedError("runtime.compile is not there yet")
    return []


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
