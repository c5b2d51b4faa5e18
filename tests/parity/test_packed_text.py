"""A BERT over groups of texts in one pass against the same BERT over each group by itself."""

import pytest
import torch
from transformers import BertConfig, BertModel

from cider.modules.packed_text import _attend, can_pack
from cider.modules.text import TextEncoder

SHAPES = [(2, 9), (3, 5), (1, 2)]


def encoder(dtype, dropout=0.0):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=12,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return TextEncoder(BertModel(config, add_pooling_layer=False), fine_tune=True).to(dtype)


def texts():
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(1, 50, shape, generator=generator) for shape in SHAPES]
    valid = [torch.ones(shape, dtype=torch.bool) for shape in SHAPES]
    valid[0][1, 4:] = False
    valid[1][2, 3:] = False
    return ids, valid


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_groups_in_one_pass_equal_each_by_itself_in_value_and_gradient(dtype, tolerance, training):
    text, (ids, valid) = encoder(dtype).train(training), texts()
    assert can_pack(text.backbone)

    def run(states):
        found = [state[mask] for state, mask in zip(states, valid, strict=True)]
        loss = sum((each * (number + 1)).square().sum() for number, each in enumerate(found))
        parameters = [p for p in text.parameters() if p.requires_grad]
        return [*found, *torch.autograd.grad(loss, parameters)]

    apart = [text(*group) for group in zip(ids, valid, strict=True)]
    for got, wanted in zip(run(text.encode(ids, valid, padding=False)), run(apart), strict=True):
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def test_what_lies_in_padding_changes_nothing():
    text, (ids, valid) = encoder(torch.float64).eval(), texts()
    other = [torch.where(mask, each, 7) for each, mask in zip(ids, valid, strict=True)]
    for a, b, mask in zip(
        text.encode(ids, valid, padding=False),
        text.encode(other, valid, padding=False),
        valid,
        strict=True,
    ):
        torch.testing.assert_close(a[mask], b[mask], rtol=0, atol=0)


def test_dropout_is_drawn_in_training_alone():
    text, given = encoder(torch.float32, dropout=0.4), texts()
    for training, equal in ((True, False), (False, True)):
        text.train(training)
        first, second = text.encode(*given, padding=False)[0], text.encode(*given, padding=False)[0]
        assert torch.equal(first, second) == equal


def test_attention_with_dropout_is_attention_in_the_mean():
    generator = torch.Generator().manual_seed(3)
    parts = [torch.randn(2, 4, 2, 3, generator=generator) for _ in range(3)]
    torch.manual_seed(0)
    mean = torch.stack([_attend(parts, 0.3) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, _attend(parts, 0.0), rtol=0, atol=0.06)


def test_states_at_padding_are_the_encoder_s_own_where_somebody_reads_them():
    text, (ids, valid) = encoder(torch.float64).eval(), texts()
    for got, *group in zip(text.encode(ids, valid, padding=True), ids, valid, strict=True):
        torch.testing.assert_close(got, text(*group), rtol=0, atol=0)
    assert not text.encode(ids, valid, padding=False)[0][1, 4:].any()


@pytest.mark.parametrize("packed", [True, False])
def test_bfloat16_is_near_float32_and_leaves_weights_and_states_float32(packed):
    text, (ids, valid) = encoder(torch.float32).eval(), texts()
    wanted = text.encode(ids, valid, padding=not packed)
    text.precision = "bfloat16"
    got = text.encode(ids, valid, padding=not packed)
    for a, b, mask in zip(got, wanted, valid, strict=True):
        assert a.dtype == torch.float32
        assert not torch.equal(a[mask], b[mask])
        torch.testing.assert_close(a[mask], b[mask], rtol=0, atol=0.05)
    sum(each.sum() for each in got).backward()
    gradients = [p.grad for p in text.parameters() if p.grad is not None]
    assert {each.dtype for each in gradients} == {torch.float32}


def test_encoders_other_than_bert_read_group_by_group():
    text, (ids, valid) = encoder(torch.float64).eval(), texts()
    packed = text.encode(ids, valid, padding=False)
    text.backbone.config.model_type = "another"
    for a, b, mask in zip(text.encode(ids, valid, padding=False), packed, valid, strict=True):
        torch.testing.assert_close(a[mask], b[mask])
