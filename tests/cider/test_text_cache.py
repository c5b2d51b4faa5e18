"""States of texts that a frozen encoder reads once: the numbers stay, the reading does not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from step_parts import NUM_SAMPLES, SHAPES, batch_of, descent, model_of

from cider.data.batch import TokenIds
from cider.modality import PerModality
from cider.spec import LossConfig, TrainingConfig
from cider.training.texts import read_texts
from cider.training.update import TwoStepUpdate

CPU = torch.device("cpu")


def frozen(dtype=torch.float64, **options):
    return model_of(SHAPES["unaligned"], {}, dtype, fine_tune=False, **options)


def texts():
    batch, _ = batch_of(SHAPES["unaligned"], torch.float64)
    return [batch.complete.token_ids_BT], [batch.complete.valid.text]


def source_of(batch):
    """Return a stand-in for a split's batches that has its texts alone."""
    length_N = batch.complete.valid.text.sum(1).numpy()
    ids = [
        row[:count].numpy()
        for row, count in zip(batch.complete.token_ids_BT, length_N, strict=True)
    ]
    lengths = PerModality(length_N, None, None)
    return SimpleNamespace(split=SimpleNamespace(lengths=lengths, token_ids=ids.__getitem__))


def update_of(model):
    training, loss = TrainingConfig(), LossConfig(reconstruction=0.7, attention=0.3, joint=0.6)
    return TwoStepUpdate(model, descent(model), training, loss, TokenIds())


@pytest.fixture
def count_read(monkeypatch):
    """Function of a model: a list that gets the number of tokens of every pass of its encoder."""

    def watch(model):
        read = []
        embeddings = model.text_encoder.backbone.embeddings
        embeddings.register_forward_pre_hook(
            lambda _, __, given: read.append(given["input_ids"].numel()), with_kwargs=True
        )
        return read

    return watch


def test_second_epoch_reads_incomplete_texts_alone(count_read):
    model = frozen()
    read, update = count_read(model), update_of(model)
    batch, observed = batch_of(SHAPES["unaligned"], torch.float64)
    num_tokens = int(batch.complete.valid.text.sum())
    for epoch in range(3):
        update(batch, observed)
        assert read == [num_tokens] * (2 + epoch)


def test_training_reads_complete_texts_once_before_the_first_epoch(count_read):
    model = frozen()
    read, update = count_read(model), update_of(model)
    batch, observed = batch_of(SHAPES["unaligned"], torch.float64)
    read_texts(model, source_of(batch), CPU)
    num_tokens = int(batch.complete.valid.text.sum())
    assert read == [num_tokens]
    update(batch, observed)
    assert read == [num_tokens] * 2


def test_losses_and_weights_are_those_without_the_cache():
    kept, anew = frozen(), frozen(cache_mib=0)
    batch, observed = batch_of(SHAPES["unaligned"], torch.float64)
    read_texts(kept, source_of(batch), CPU)
    updates = update_of(kept), update_of(anew)
    for _ in range(3):
        got, wanted = (update(batch, observed) for update in updates)
        assert got == pytest.approx(wanted, rel=1e-10)
    assert len(kept.text_encoder.cache) > 0
    assert len(anew.text_encoder.cache) == 0
    for a, b in zip(kept.parameters(), anew.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_what_is_kept_does_not_depend_on_what_else_is_read_with_it():
    batch, _ = batch_of(SHAPES["unaligned"], torch.float32)
    given = [batch.complete.token_ids_BT], [batch.complete.valid.text]
    found = []
    for order in (np.arange(NUM_SAMPLES), np.random.default_rng(0).permutation(NUM_SAMPLES)):
        model = frozen(torch.float32)
        read_texts(model, source_of(batch), CPU)
        shuffled = [[each[0][order]] for each in given]
        (states,) = model.text_encoder.encode(*shuffled, padding=False, recurring=True)
        found.append(states[np.argsort(order)])
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_nothing_is_kept_beyond_the_limit_and_states_stay_right(count_read):
    encoder = frozen(cache_mib=1).text_encoder
    given = texts()
    wanted = encoder.encode(*given, padding=False)
    # A limit in MiB is too coarse for these texts: room for half of them.
    encoder.cache.limit_mib = wanted[0].numel() * 8 / 4 / 2**20
    halves = [[part[0][:4], part[0][4:]] for part in given]
    for _ in range(2):
        for half in range(2):
            one = [[part[half]] for part in halves]
            (states,) = encoder.encode(*one, padding=False, recurring=True)
            expected = wanted[0][:4] if half == 0 else wanted[0][4:]
            torch.testing.assert_close(states, expected)
    assert len(encoder.cache) == 4
    assert 0 < encoder.cache.num_bytes <= encoder.cache.limit_mib * 2**20


def test_texts_that_will_not_come_again_are_not_kept():
    encoder = frozen().text_encoder
    encoder.encode(*texts(), padding=False)
    encoder.encode(*texts(), padding=True, recurring=True)
    assert len(encoder.cache) == 0


def test_an_encoder_that_is_trained_keeps_nothing():
    encoder = model_of(SHAPES["unaligned"], {}, torch.float64).text_encoder
    encoder.encode(*texts(), padding=False, recurring=True)
    assert len(encoder.cache) == 0


@pytest.mark.parametrize(
    "change",
    [lambda model: model.load_state_dict(model.state_dict()), lambda model: model.float()],
    ids=["other weights", "another type"],
)
def test_a_changed_encoder_forgets(change):
    model = frozen()
    model.text_encoder.encode(*texts(), padding=False, recurring=True)
    assert model.text_encoder.cache.num_bytes > 0
    change(model)
    assert len(model.text_encoder.cache) == model.text_encoder.cache.num_bytes == 0
    assert not any("cache" in name for name in model.state_dict())
