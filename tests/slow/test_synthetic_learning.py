"""CIDer on the synthetic corpora: close to the best reachable, robust, and helped by MACI.

Minutes; run with ``-m slow``. The figures of the last run are in docs/results.md.
"""

import math
from dataclasses import replace
from itertools import pairwise
from statistics import mean, stdev

import pytest

from cider.data.store import FeatureStore, find_store
from cider.data.synthetic import ensure
from cider.models.cider.config import Config
from cider.spec import (
    DataConfig,
    MaciConfig,
    OptimizerConfig,
    RunSpec,
    SelectionConfig,
    TextEncoderConfig,
    TrainingConfig,
)
from cider_platform.layout import RunFolder
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.evaluation import conditions_of, evaluate_run
from cider_platform.runs.trial import train_run

pytestmark = pytest.mark.slow

SEEDS = range(8)
RATES = [0.0, 0.3, 0.6, 0.9]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    return Runtime(root / "store", root / "results", threads=1)


def spec_of(distribution, seed, **changes):
    spec = RunSpec(
        data=DataConfig(dataset="synthetic-mosei", distribution=distribution),
        model=Config(layers=1, heads=4),
        text_encoder=TextEncoderConfig(width=32),
        training=TrainingConfig(epochs=4, batch_size=32, batching="bucketed"),
        optimizer=OptimizerConfig(lr=1e-3),
        selection=SelectionConfig(rates=(0.0,)),
        seed=seed,
    )
    return replace(spec, **changes)


def accuracies(spec, runtime, rates):
    """Train, freeze, and return the sealed test's acc2 at every rate."""
    spec = resolve(spec, runtime)
    for _ in train_run(spec, runtime):
        pass
    folder = RunFolder.of(runtime.results, spec.run_id)
    rows = evaluate_run(folder, runtime, conditions_of("rmfm", rates))
    return [row["test"]["acc2"] for row in rows]


def best_reachable(runtime, distribution):
    folder = ensure(runtime.store, "synthetic-mosei", "unaligned", distribution)
    assert folder == find_store(
        runtime.store, "synthetic-mosei", "unaligned", distribution, "three_class"
    )
    generator = FeatureStore.open(folder).manifest.generator
    return generator["best_accuracy"]["best_reachable"]["acc2"]["LAV"]


def test_cider_reaches_nine_tenths_of_the_best_and_falls_with_the_rate(runtime, capsys):
    curves = [accuracies(spec_of("iid", seed), runtime, RATES) for seed in range(3)]
    curve = [mean(column) for column in zip(*curves, strict=True)]
    best = best_reachable(runtime, "iid")
    with capsys.disabled():
        print(f"\niid acc2 at {RATES}: {[round(value, 3) for value in curve]}, best {best}")
    assert curve[0] >= 0.9 * best
    # 466 test utterances: two standard errors of a difference between rates are about 0.03
    assert all(later <= earlier + 0.03 for earlier, later in pairwise(curve))
    assert curve[-1] < curve[0] - 0.1


def test_cider_with_maci_beats_itself_without_on_the_shifted_test(runtime, capsys):
    plain = MaciConfig(mcm=False, counterfactual=False)
    differences, pairs = [], []
    for seed in SEEDS:
        (with_maci,) = accuracies(spec_of("ood", seed), runtime, [0.0])
        (without,) = accuracies(spec_of("ood", seed, maci=plain), runtime, [0.0])
        differences.append(with_maci - without)
        pairs.append((round(with_maci, 3), round(without, 3)))
    error = stdev(differences) / math.sqrt(len(differences))
    with capsys.disabled():
        print(f"\nood acc2 with, without MACI: {pairs}")
        print(f"mean difference {mean(differences):.4f}, standard error {error:.4f}")
    assert mean(differences) > 0
