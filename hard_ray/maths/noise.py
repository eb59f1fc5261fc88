"""Random numbers as a function of their purpose.

A draw depends on (purpose, seed, epoch, sample id) alone: not on the worker, the batch size, the order of calls or
the step that a resumed run starts from.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def seed_of(purpose: str, *parts: int | str) -> int:
    """A seed below 2**63 for one purpose, for generators that take a single number."""
    text = "\x00".join([purpose, *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def uniform(
    purpose: str, *, seed: int, epochs: NDArray[np.int64], sample_ids: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Uniform draws in [0, 1), shape (rows, count), one row per (epoch, sample id).

    Source: the splitmix64 finaliser (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
    generators"), used as a counter-based generator: hash of the key plus the counter times the golden ratio.
    """
    with np.errstate(over="ignore"):
        key = np.uint64(seed_of(purpose, seed)) + _scramble(epochs.astype(np.uint64))
        key = _scramble(key) + _scramble(sample_ids.astype(np.uint64) + _GOLDEN)
        counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        bits = _scramble(_scramble(key)[:, None] + counters[None, :])
    draws: NDArray[np.float64] = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return draws


def normal(
    purpose: str, *, seed: int, epochs: NDArray[np.int64], sample_ids: NDArray[np.int64], count: int
) -> NDArray[np.float32]:
    """Standard normal draws, shape (rows, count), by Box and Muller's transform of `uniform`."""
    half = (count + 1) // 2
    draws = uniform(purpose, seed=seed, epochs=epochs, sample_ids=sample_ids, count=2 * half)
    radius = np.sqrt(-2.0 * np.log1p(-draws[:, :half]))
    angle = 2.0 * np.pi * draws[:, half:]
    pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    values: NDArray[np.float32] = pairs[:, :count].astype(np.float32)
    return values


def permutation(purpose: str, size: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0..size-1 for one epoch."""
    generator = np.random.Generator(np.random.PCG64(seed_of(purpose, seed, epoch)))
    return generator.permutation(size)


def _scramble(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))
