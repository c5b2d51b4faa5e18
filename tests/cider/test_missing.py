from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cider import missing
from cider.errors import UsageError
from cider.missing import EvaluationMasks, evaluation_masks, released_masks, training_masks
from cider.modality import KEPT_SETS, Modality, PerModality, modalities_of
from cider.spec import MissingConfig

ALIGNED_ONLY = {"tmfm", "stmfm"}
WITH_RATE = [name for name in missing.names() if missing.uses_rate(name)]
PAD_TO = PerModality(12, 30, 40)
RATES = st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0])


def kept_for(name: str) -> str:
    return "LV" if name == "smm" else ""


def config_for(name: str, train_rate: str = "per_sample") -> MissingConfig:
    return MissingConfig(protocol=name, kept=kept_for(name), train_rate=train_rate)


def some_lengths(name: str, num_rows: int, seed: int = 0) -> PerModality[np.ndarray]:
    rng = np.random.default_rng(seed)
    text = rng.integers(1, PAD_TO.text + 1, num_rows)
    if name in ALIGNED_ONLY:
        return PerModality(text, text, text)
    return PerModality(
        text,
        rng.integers(0, PAD_TO.audio + 1, num_rows),
        rng.integers(0, PAD_TO.vision + 1, num_rows),
    )


def valid_of(lengths, pad_to=PAD_TO):
    return lengths.zip_map(pad_to, lambda length, steps: np.arange(steps) < length[:, None])


def ends_of(lengths, steps=PAD_TO.text):
    step = np.arange(steps)
    return (step == 0) | (step == lengths.text[:, None] - 1)


def draw(name, lengths, *, rate=None, seed=7, epoch=3, indices=None, pad_to=PAD_TO):
    """Training masks, or evaluation masks if a rate is given."""
    indices = np.arange(len(lengths.text)) if indices is None else indices
    if rate is None:
        return training_masks(
            config_for(name), lengths, indices, seed=seed, epoch=epoch, pad_to=pad_to
        )
    return evaluation_masks(
        name, rate, lengths, indices, seed=seed, pad_to=pad_to, kept=kept_for(name)
    )


def assert_same(left, right):
    for modality in Modality:
        np.testing.assert_array_equal(left[modality], right[modality], err_msg=str(modality))


@pytest.mark.parametrize("name", missing.names())
@given(seed=st.integers(0, 2**32 - 1), epoch=st.integers(1, 300), rate=RATES | st.none())
@settings(max_examples=25, deadline=None)
def test_observed_is_valid_and_keeps_both_ends_of_the_text(name, seed, epoch, rate):
    lengths = some_lengths(name, 9, seed=seed)
    observed = draw(name, lengths, rate=rate, seed=seed, epoch=epoch)
    for modality, valid in zip(Modality, valid_of(lengths), strict=True):
        assert observed[modality].dtype == bool
        assert observed[modality].shape == valid.shape
        assert not (observed[modality] & ~valid).any()
    assert observed.text[ends_of(lengths)].all()


@pytest.mark.parametrize("name", WITH_RATE)
def test_rate_zero_keeps_everything_valid(name):
    lengths = some_lengths(name, 50)
    assert_same(draw(name, lengths, rate=0.0), valid_of(lengths))


@pytest.mark.parametrize("name", WITH_RATE)
def test_rate_one_keeps_only_the_ends(name):
    lengths = some_lengths(name, 50)
    observed = draw(name, lengths, rate=1.0)
    np.testing.assert_array_equal(observed.text, ends_of(lengths))
    for modality in (Modality.AUDIO, Modality.VISION):
        if name in ALIGNED_ONLY:
            np.testing.assert_array_equal(observed[modality][:, : PAD_TO.text], observed.text)
        else:
            assert not observed[modality].any()


@pytest.mark.parametrize("name", missing.names())
@given(seed=st.integers(0, 2**32 - 1), rates=st.tuples(RATES, RATES))
@settings(max_examples=25, deadline=None)
def test_masks_of_two_rates_are_nested(name, seed, rates):
    lengths = some_lengths(name, 9, seed=seed)
    masks = EvaluationMasks(
        name, lengths, np.arange(9), seed=seed, pad_to=PAD_TO, kept=kept_for(name)
    )
    lower, higher = masks.at(min(rates)), masks.at(max(rates))
    for modality in Modality:
        assert not (higher[modality] & ~lower[modality]).any()


@pytest.mark.parametrize("name", missing.names())
@pytest.mark.parametrize("rate", [None, 0.4])
def test_masks_depend_neither_on_batch_nor_order_nor_padding(name, rate):
    lengths = some_lengths(name, 20)
    whole = draw(name, lengths, rate=rate)
    rows = np.random.default_rng(1).permutation(20)[:13]
    wider = PAD_TO.map(lambda steps: steps + 5)
    some = draw(
        name,
        lengths.map(lambda length: length[rows]),
        rate=rate,
        indices=rows,
        pad_to=wider,
    )
    assert_same(whole.map(lambda mask: mask[rows]), some.zip_map(PAD_TO, lambda m, n: m[:, :n]))
    assert not any(mask[:, steps:].any() for mask, steps in zip(some, PAD_TO, strict=True))


@pytest.mark.parametrize("name", WITH_RATE)
def test_masks_differ_between_epochs_seeds_and_utterances(name):
    lengths = PerModality(*(np.full(40, 12),) * 3)
    first = draw(name, lengths)
    assert_same(first, draw(name, lengths))
    for other in (
        draw(name, lengths, epoch=4),
        draw(name, lengths, seed=8),
        draw(name, lengths, indices=np.arange(40) + 40),
    ):
        assert any((first[modality] != other[modality]).any() for modality in Modality)


@pytest.mark.parametrize("name", WITH_RATE)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropped_share_is_within_binomial_bounds_of_the_rate(name, rate):
    num_rows, steps = 600, 12
    lengths = PerModality(*(np.full(num_rows, steps),) * 3)
    observed = draw(name, lengths, rate=rate)
    # How many of the draws are independent: a modality under rmm is lost as a whole.
    draws = {"rmm": num_rows, "stmfm": num_rows}.get(name, num_rows * (steps - 2))
    expected = np.round((steps - 2) * rate) / (steps - 2) if name == "stmfm" else rate
    bound = 5 * np.sqrt(expected * (1 - expected) / draws)
    for modality in Modality:
        inner = observed[modality][:, 1 : steps - 1]
        assert abs((~inner).mean() - expected) <= bound


@pytest.mark.parametrize("name", ["rmfm", "rmfm_per_modality", "tmfm"])
def test_training_rate_per_sample_is_uniform_over_utterances(name):
    lengths = PerModality(*(np.full(500, 400),) * 3)
    pad_to = PerModality(400, 400, 400)
    arguments = (lengths, np.arange(500))
    options = {"seed": 1, "epoch": 1, "pad_to": pad_to}
    per_sample = training_masks(config_for(name), *arguments, **options)
    shares = np.sort(1 - per_sample.audio.mean(axis=1))
    # Kolmogorov-Smirnov distance to the uniform distribution, 0.1 % level.
    assert np.abs(shares - (np.arange(500) + 0.5) / 500).max() < 1.95 / np.sqrt(500)
    # One rate per utterance: its modalities lose equal shares, up to chance.
    assert np.abs(per_sample.text.mean(axis=1) - per_sample.vision.mean(axis=1)).max() < 0.17

    per_position = training_masks(config_for(name, "per_position"), *arguments, **options)
    spread = per_position.audio.mean(axis=1).std()
    assert abs(per_position.audio.mean() - 0.5) < 0.01
    assert spread == pytest.approx(0.5 / np.sqrt(400), rel=0.15)


def test_training_rate_of_blocks_is_per_sample_under_both_settings():
    lengths = PerModality(*(np.full(300, 52),) * 3)
    for train_rate in ("per_sample", "per_position"):
        masks = training_masks(
            config_for("stmfm", train_rate),
            lengths,
            np.arange(300),
            seed=1,
            epoch=1,
            pad_to=PerModality(52, 52, 52),
        )
        assert (1 - masks.text.mean(axis=1)).std() == pytest.approx(1 / np.sqrt(12), rel=0.1)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.3, 0.5, 0.75, 1.0])
def test_stmfm_drops_one_block_of_the_rounded_length_with_a_uniform_start(rate):
    num_rows, steps = 3000, 12
    lengths = PerModality(*(np.full(num_rows, steps),) * 3)
    dropped = ~draw("stmfm", lengths, rate=rate).text[:, :steps]
    # Round half to even: 2.5 steps are 2, 7.5 are 8.
    block = {0.0: 0, 0.25: 2, 0.3: 3, 0.5: 5, 0.75: 8, 1.0: 10}[rate]
    assert (dropped.sum(axis=1) == block).all()
    if block:
        assert (np.abs(np.diff(dropped.astype(int), axis=1)).sum(axis=1) == 2).all()
        starts = np.bincount(dropped.argmax(axis=1), minlength=steps)
        possible = steps - block - 1
        assert starts[1 : possible + 1].sum() == num_rows
        expected = num_rows / possible
        # Chi-square over the possible starts, far beyond its 99.99 % point.
        assert ((starts[1 : possible + 1] - expected) ** 2 / expected).sum() < 40


@pytest.mark.parametrize("name", sorted(ALIGNED_ONLY))
def test_shared_time_steps_are_dropped_from_all_modalities(name):
    lengths = some_lengths(name, 30)
    observed = draw(name, lengths, rate=0.6, pad_to=PerModality(12, 12, 12))
    np.testing.assert_array_equal(observed.text, observed.audio)
    np.testing.assert_array_equal(observed.text, observed.vision)


def test_rmm_loses_whole_modalities_independently():
    lengths = PerModality(*(np.full(2000, 12),) * 3)
    observed = draw("rmm", lengths, rate=0.5, pad_to=PerModality(12, 12, 12))
    kept = np.stack([mask[:, 1:-1].all(axis=1) for mask in observed])
    lost = np.stack([(~mask[:, 1:-1]).all(axis=1) for mask in observed])
    assert (kept | lost).all()
    patterns = np.bincount(kept.T @ np.array([1, 2, 4]), minlength=8)
    assert np.abs(patterns / 2000 - 1 / 8).max() < 0.04


def test_rmfm_per_modality_draws_do_not_depend_on_other_modalities():
    lengths = some_lengths("rmfm_per_modality", 10)
    shorter = PerModality(np.ones_like(lengths.text), lengths.audio, lengths.vision)
    for rate in (None, 0.5):
        before = draw("rmfm_per_modality", lengths, rate=rate)
        after = draw("rmfm_per_modality", shorter, rate=rate)
        np.testing.assert_array_equal(before.audio, after.audio)
        np.testing.assert_array_equal(before.vision, after.vision)


@pytest.mark.parametrize("kept", KEPT_SETS)
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_smm_keeps_exactly_its_kept_set_at_any_rate(kept, rate):
    lengths = some_lengths("smm", 10)
    observed = evaluation_masks(
        "smm", rate, lengths, np.arange(10), seed=1, pad_to=PAD_TO, kept=kept
    )
    for modality, valid in zip(Modality, valid_of(lengths), strict=True):
        expected = valid if modality in modalities_of(kept) else np.zeros_like(valid)
        if modality is Modality.TEXT:
            expected = expected | ends_of(lengths)
        np.testing.assert_array_equal(observed[modality], expected)


@pytest.mark.parametrize("name", missing.names())
@pytest.mark.parametrize("length", [0, 1, 2])
def test_utterances_without_inner_tokens_lose_no_token(name, length):
    lengths = PerModality(*(np.full(5, length),) * 3)
    drawn = (
        draw(name, lengths),
        draw(name, lengths, rate=0.9),
        released_masks(name, 0.9, lengths, pad_to=PAD_TO, kept=kept_for(name)),
    )
    for observed in drawn:
        assert (observed.text.sum(axis=1) == length).all()


@pytest.mark.parametrize("name", WITH_RATE)
def test_released_masks_follow_the_same_rules(name):
    lengths = some_lengths(name, 30)
    valid = valid_of(lengths)
    masks = {rate: released_masks(name, rate, lengths, pad_to=PAD_TO) for rate in (0.0, 0.5, 1.0)}
    assert_same(masks[0.0], valid)
    np.testing.assert_array_equal(masks[1.0].text, ends_of(lengths))
    for modality in Modality:
        assert not (masks[0.5][modality] & ~valid[modality]).any()
        assert not (masks[1.0][modality] & ~masks[0.5][modality]).any()
    assert (masks[0.5].text & ends_of(lengths)).sum() == ends_of(lengths).sum()


def test_masks_of_a_seed_stay_the_same_between_versions():
    # Twelve steps as three hexadecimal digits: text, audio, vision at rate 0.5, then in training.
    # Numbers of finished runs rest on these draws: if this fails, the runs' identity must change.
    lengths = PerModality(*(np.full(1, 12),) * 3)
    pad_to = PerModality(12, 12, 12)
    result = {}
    for name in WITH_RATE:
        observed = draw(name, lengths, rate=0.5, seed=1111, pad_to=pad_to)
        trained = draw(name, lengths, seed=1111, epoch=1, pad_to=pad_to)
        rows = [*observed, *trained]
        result[name] = " ".join(
            f"{int(''.join(map(str, row[0].astype(int))), 2):03x}" for row in rows
        )
    assert result == {
        "rmfm": "a1d c1d 9d3 c2d 8c7 104",
        "rmfm_per_modality": "815 920 37c 8a3 024 777",
        "rmm": "801 000 fff 801 fff 000",
        "stmfm": "fc1 fc1 fc1 f01 f01 f01",
        "tmfm": "a1d a1d a1d c2d c2d c2d",
    }


def test_unknown_protocol_is_refused_with_the_known_ones():
    lengths = some_lengths("rmfm", 2)
    with pytest.raises(UsageError, match=r"'rmfn'; known: none, rmfm, rmfm_per_modality, rmm, smm"):
        evaluation_masks("rmfn", 0.5, lengths, np.arange(2), seed=1, pad_to=PAD_TO)


@pytest.mark.parametrize("name", sorted(ALIGNED_ONLY))
def test_unaligned_lengths_are_refused_by_shared_time_protocols(name):
    with pytest.raises(UsageError, match=f"{name} .* needs aligned data"):
        draw(name, some_lengths("rmfm", 4), rate=0.5)


@pytest.mark.parametrize(("name", "kept"), [("smm", ""), ("smm", "LAV"), ("rmfm", "L")])
def test_kept_set_that_does_not_fit_is_refused(name, kept):
    lengths = some_lengths(name, 2)
    with pytest.raises(UsageError, match="kept set"):
        evaluation_masks(name, 0.5, lengths, np.arange(2), seed=1, pad_to=PAD_TO, kept=kept)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rate_outside_the_unit_interval_is_refused(rate):
    lengths = some_lengths("rmfm", 2)
    with pytest.raises(UsageError, match="missing rate must be in"):
        draw("rmfm", lengths, rate=rate)
    with pytest.raises(UsageError, match="missing rate must be in"):
        released_masks("rmfm", rate, lengths, pad_to=PAD_TO)


def test_training_epoch_zero_is_refused_because_evaluation_draws_from_it():
    with pytest.raises(ValueError, match="epoch"):
        draw("rmfm", some_lengths("rmfm", 2), epoch=0)
