"""Training with groups of similar length learns what training on whole padded batches learns.

With dropout the two draw other elements, so losses differ step by step; over seeds they may not.
Minutes; run with ``-m slow``.
"""

import math
from dataclasses import replace
from statistics import mean, stdev

import pytest

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
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.trial import train_run

pytestmark = pytest.mark.slow

SEEDS = range(6)
SPEC = RunSpec(
    data=DataConfig(dataset="synthetic-mosi-x0.2"),
    model=Config(layers=1, heads=4),
    text_encoder=TextEncoderConfig(width=32),
    maci=MaciConfig(counterfactual=False),
    training=TrainingConfig(epochs=3, batch_size=32),
    optimizer=OptimizerConfig(lr=1e-3),
    selection=SelectionConfig(metric="acc3", rates=(0.0,)),
)


def curves(padding, root):
    """Return the training loss of every epoch, one list per seed."""
    runtime = Runtime(root / "store", root / "results", threads=1)
    found = []
    for seed in SEEDS:
        spec = replace(SPEC, training=replace(SPEC.training, padding=padding), seed=seed)
        epochs = train_run(resolve(spec, runtime), runtime)
        found.append([result.train["total"] for result in epochs])
    return found


def test_training_curves_agree_within_the_noise_of_seeds(tmp_path, capsys):
    groups, batch = (curves(padding, tmp_path) for padding in ("groups", "batch"))
    told = []
    for epoch, (ours, theirs) in enumerate(
        zip(zip(*groups, strict=True), zip(*batch, strict=True), strict=True), start=1
    ):
        # The same seed has the same weights, order and masks: only dropout's draws differ.
        differences = [a - b for a, b in zip(ours, theirs, strict=True)]
        error = stdev(differences) / math.sqrt(len(differences))
        told.append((epoch, round(mean(theirs), 4), round(mean(differences), 5), round(error, 5)))
        assert abs(mean(differences)) < 4 * error + 1e-4
        assert abs(mean(differences)) < stdev(theirs)
    with capsys.disabled():
        print(f"\nepoch, mean loss, mean difference, standard error: {told}")
