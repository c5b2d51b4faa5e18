"""Whether a difference is real: summaries over seeds, paired tests, correction for many tests.

Everything is a pure function of numbers in NumPy and the standard library; what draws has a seed.
Which test is for what, and what it assumes, is in ``docs/statistics.md``.
"""

from cider.significance.chance import (
    ChanceOptimism,
    chance_optimism,
    expected_maximum,
    observed_correlation,
    own_luck,
)
from cider.significance.many_tests import (
    ALPHA,
    holm,
    is_reachable,
    seeds_needed,
    star,
)
from cider.significance.paired import (
    McNemar,
    SignFlip,
    mcnemar,
    sign_flip,
    smallest_p,
)
from cider.significance.sample_bootstrap import BootstrapDifference, bootstrap_difference
from cider.significance.seeds import (
    Interval,
    PairedSeeds,
    SeedSummary,
    bca_interval,
    compare_paired,
    compare_with_constant,
    summarise,
)

__all__ = [
    "ALPHA",
    "BootstrapDifference",
    "ChanceOptimism",
    "Interval",
    "McNemar",
    "PairedSeeds",
    "SeedSummary",
    "SignFlip",
    "bca_interval",
    "bootstrap_difference",
    "chance_optimism",
    "compare_paired",
    "compare_with_constant",
    "expected_maximum",
    "holm",
    "is_reachable",
    "mcnemar",
    "observed_correlation",
    "own_luck",
    "seeds_needed",
    "sign_flip",
    "smallest_p",
    "star",
    "summarise",
]
