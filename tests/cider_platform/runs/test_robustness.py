"""One pass over many conditions predicts what an evaluation of each condition predicts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_corpus import write_tiny_corpus

from cider.behaviour import with_behaviour
from cider.data.loader import BatchSource
from cider.models.cider.config import Config
from cider.models.late_fusion.config import Config as LateFusion
from cider.spec import DataConfig, MaciConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider.training import robustness
from cider.training.evaluation import Masks
from cider.training.robustness import SplitMasks, predict_conditions
from cider_platform.commands import evaluate
from cider_platform.runs.assembly import Runtime, assemble, batch_source, open_store, resolve
from cider_platform.runs.conditions import ALL_RATES, full_conditions

TINY = RunSpec(
    data=DataConfig(dataset="tiny"),
    model=Config(width=8, heads=2, layers=1),
    text_encoder=TextEncoderConfig(width=8, layers=1),
    training=TrainingConfig(epochs=1, batch_size=5),
)
ALIGNED = {"data": DataConfig(dataset="tiny", alignment="aligned")}
UNMASKED = {"mask_fusion_padding": False, "mask_pooling_padding": False}
CASES = {
    "corrected": {},
    "aligned": ALIGNED,
    "late fusion": {"model": LateFusion(width=8)},
    "plain head": {"maci": MaciConfig(mcm=False, counterfactual=False)},
    "vanilla without alignment": {"model": replace(TINY.model, fusion="vanilla", wsam=False)},
    "reads padding": {"model": replace(TINY.model, **UNMASKED)},
    "positions by batch": {"model": replace(TINY.model, positions="batch_index")},
    "full padding": {"training": replace(TINY.training, padding="full")},
}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    root = tmp_path_factory.mktemp("robustness")
    write_tiny_corpus(root / "store")
    write_tiny_corpus(root / "store", alignment="aligned")
    return Runtime(root / "store", root / "results", threads=1)


def assembled(spec, runtime):
    spec = resolve(spec, runtime)
    store = open_store(spec, runtime)
    return spec, assemble(spec, store, runtime), batch_source(store, spec, "valid")


def assert_same(spec, runtime, rates=ALL_RATES, **options):
    spec, parts, source = assembled(spec, runtime)
    conditions = full_conditions(spec.data.alignment, rates)
    together = predict_conditions(
        parts.predictor,
        source,
        SplitMasks(source, conditions, spec.missing, spec.seed),
        **options,
    )
    # Every third: all protocols and kept sets at several rates.
    pairs = list(zip(conditions, together.predictions, strict=True))[::3]
    for condition, found in pairs:
        masks = Masks(source, condition, spec.missing, spec.seed)
        alone = parts.predictor.predict(source, masks)
        for name in ("log_probs_NC", "counterfactual_NC"):
            expected, given = getattr(alone, name), getattr(found, name)
            assert (expected is None) == (given is None)
            if expected is not None:
                np.testing.assert_allclose(
                    given, expected, rtol=0, atol=1e-6, err_msg=f"{condition} {name}"
                )
    return together


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_one_pass_predicts_what_each_condition_alone_does(runtime, changes):
    together = assert_same(replace(TINY, **changes), runtime)
    conditions = len(together.predictions)
    # An utterance looks alike under many conditions: rate 0 and 1, rmm and smm, short texts.
    assert together.rows < conditions * 12
    assert together.texts < together.rows


@pytest.mark.parametrize("changes", [{}, ALIGNED], ids=["unaligned", "aligned"])
def test_one_pass_of_the_released_behaviour_keeps_its_batches_and_masks(runtime, changes):
    assert_same(with_behaviour(replace(TINY, **changes), "released"), runtime)


@pytest.mark.parametrize("memory_mib", [0, 1])
def test_predictions_do_not_depend_on_the_memory(runtime, memory_mib):
    assert_same(TINY, runtime, rates=[0.5], memory_mib=memory_mib)


def test_every_utterance_is_read_once_whatever_the_number_of_conditions(runtime, monkeypatch):
    spec, parts, source = assembled(TINY, runtime)
    read, batch = [], BatchSource.batch

    def counted(self, index_B, *rest):
        read.extend(index_B.tolist())
        return batch(self, index_B, *rest)

    monkeypatch.setattr(BatchSource, "batch", counted)
    masks = SplitMasks(source, full_conditions("unaligned"), spec.missing, spec.seed)
    done = []
    predict_conditions(parts.predictor, source, masks, on_batch=lambda *each: done.append(each))
    assert sorted(read) == list(range(12))
    assert done == [(5, 12), (10, 12), (12, 12)]


def test_default_of_the_command_is_that_of_the_pass():
    assert evaluate.MEMORY_MIB == robustness.MEMORY_MIB == Runtime(Path(), Path()).memory_mib
