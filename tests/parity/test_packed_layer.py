"""A BERT's layers as one operation each against the same layers composed of torch's operations."""

import pytest
import torch
from transformers import BertConfig, BertModel

from cider.modules import packed_text
from cider.modules.packed_layer import can_fuse, packed_layer
from cider.modules.text import TextEncoder

LENGTHS = (7, 4, 4, 1)


def encoder(dtype, dropout=0.0, heads=4, act="gelu"):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=4 * heads,
        num_hidden_layers=2,
        num_attention_heads=heads,
        intermediate_size=24,
        max_position_embeddings=12,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        hidden_act=act,
    )
    return TextEncoder(BertModel(config, add_pooling_layer=False), fine_tune=True).to(dtype).train()


def texts():
    generator = torch.Generator().manual_seed(1)
    valid = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return [torch.randint(1, 50, valid.shape, generator=generator)], [valid]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_layers_in_one_operation_equal_composed_ones_draws_included(
    dtype, tolerance, dropout, monkeypatch
):
    text, given = encoder(dtype, dropout), texts()
    assert can_fuse(text.backbone, torch.device("cpu"))
    found = []
    for fused in (True, False):
        monkeypatch.setattr(packed_text, "can_fuse", lambda *_, fused=fused: fused)
        torch.manual_seed(3)
        (states,) = text.encode(*given, padding=False)
        weight = torch.linspace(-1, 1, states.numel(), dtype=dtype).view_as(states)
        parameters = [p for p in text.parameters() if p.requires_grad]
        found.append([states, *torch.autograd.grad((states * weight).sum(), parameters)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_layer_s_gradient_is_that_of_its_differences(dropout):
    layer = encoder(torch.float64, dropout).backbone.encoder.layer[0]
    x_NF = torch.randn(5, 16, dtype=torch.float64, requires_grad=True)

    def run(x_NF):
        torch.manual_seed(2)
        return packed_layer(layer, x_NF, [3, 2])

    assert torch.autograd.gradcheck(run, (x_NF,))


@pytest.mark.parametrize("other", [{"heads": 3}, {"act": "relu"}])
def test_other_heads_and_activations_stay_composed(other):
    text = encoder(torch.float32, **other)
    assert not can_fuse(text.backbone, torch.device("cpu"))
    assert not can_fuse(encoder(torch.float32).backbone, torch.device("cuda"))
    (states,), ((valid,)) = text.encode(*texts(), padding=False), texts()[1]
    torch.testing.assert_close(states[valid], text(*(part[0] for part in texts()))[valid])


def test_products_in_lower_precision_stay_composed():
    bert = encoder(torch.float32).backbone
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_fuse(bert, torch.device("cpu"))
