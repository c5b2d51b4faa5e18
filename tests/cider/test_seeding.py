"""Batch orders as functions of seed and epoch."""

import numpy as np
import pytest

from cider.seeding import batch_order, bucketed_order, torch_seed


def test_batch_order_is_a_permutation_that_differs_between_epochs_and_seeds():
    orders = [batch_order(50, seed, epoch) for seed, epoch in [(1, 1), (1, 2), (2, 1)]]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert np.array_equal(batch_order(50, 1, 1), orders[0])


@pytest.mark.parametrize("num_rows", [7, 64, 70])
def test_bucketed_order_is_a_permutation_with_batches_of_similar_length(num_rows):
    lengths = np.random.default_rng(0).integers(2, 50, num_rows)
    order = bucketed_order(lengths, 8, seed=1, epoch=1)
    assert sorted(order) == list(range(num_rows))
    full = order[: num_rows // 8 * 8].reshape(-1, 8)
    if len(full) > 1:
        spread = np.ptp(lengths[full], axis=1).mean()
        assert spread < np.ptp(lengths[: len(full) * 8].reshape(-1, 8), axis=1).mean() / 2
    assert not np.array_equal(order, bucketed_order(lengths, 8, seed=1, epoch=2)) or num_rows < 8


def test_bucketed_order_does_not_always_leave_out_the_same_kind():
    """The last, smaller batch is drawn from all lengths, not the longest ones."""
    lengths = np.arange(20)
    left = {int(i) for epoch in range(40) for i in bucketed_order(lengths, 16, 0, epoch)[16:]}
    assert min(left) < 4
    assert max(left) > 15


def test_torch_seeds_differ_and_fit_63_bits():
    seeds = {torch_seed(seed) for seed in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
