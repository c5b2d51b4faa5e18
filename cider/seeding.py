"""Random generators as functions of a seed, a purpose and an epoch; nothing is seeded globally.

Missing-data masks have their own keys, ``default_rng([seed, epoch, index])`` (``cider.missing``).
"""

from __future__ import annotations

import numpy as np

_PURPOSES = {"batch order": 1, "torch": 2, "worker": 3}


def sequence(seed: int, purpose: str, epoch: int = 0, *key: int) -> np.random.SeedSequence:
    """Return the seed sequence of one purpose in one epoch.

    Args:
        seed: the run's seed.
        purpose: ``batch order``, ``torch`` (weights and dropout) or ``worker`` (dropout).
        epoch: 1-based epoch, or 0 for what happens before the first.
        key: further numbers to tell sequences of one purpose apart.
    """
    # The spawn key keeps these apart from the masks' keys, which have none.
    return np.random.SeedSequence([seed, epoch], spawn_key=(_PURPOSES[purpose], *key))


def torch_seed(seed: int) -> int:
    """Return the 63-bit seed of torch's generator for a run."""
    return _63_bits(sequence(seed, "torch"))


def worker_seed(seed: int, epoch: int, rank: int) -> int:
    """Return the 63-bit seed of torch's generator for one of several workers and one epoch.

    Args:
        seed: the run's seed.
        epoch: 1-based epoch.
        rank: number of the worker, from 0.
    """
    return _63_bits(sequence(seed, "worker", epoch, rank))


def _63_bits(seeds: np.random.SeedSequence) -> int:
    return int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1))


def batch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return a permutation of ``range(num_rows)`` (int64) for one epoch."""
    return np.random.default_rng(sequence(seed, "batch order", epoch)).permutation(num_rows)


def bucketed_order(lengths_N: np.ndarray, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Return a permutation in which every run of ``batch_size`` rows has similar lengths.

    Rows are sorted by length, equal ones at random, cut into batches, and full batches shuffled;
    what is left over is the last batch, as in any order.

    Args:
        lengths_N: length of every row (N,).
        batch_size: rows per batch.
        seed: the run's seed.
        epoch: 1-based epoch.
    """
    rng = np.random.default_rng(sequence(seed, "batch order", epoch))
    shuffled = rng.permutation(len(lengths_N))
    left_over = shuffled[len(shuffled) // batch_size * batch_size :]
    kept = shuffled[: len(shuffled) - len(left_over)]
    by_length = kept[np.argsort(lengths_N[kept], kind="stable")]
    batches = by_length.reshape(-1, batch_size)
    return np.concatenate([rng.permutation(batches).reshape(-1), left_over])
