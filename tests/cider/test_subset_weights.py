"""Attention weights that are shown are those the fusion computes with."""

import pytest
import torch

from cider.modality import SUBSETS, Modality
from cider.modules.alignment import WordAlignment, word_positions
from cider.modules.encoder import FusionLayer, stack
from cider.modules.fusion import CompositeAttention
from cider.modules.subset_weights import key_shares, subset_steps, subset_weights

LENGTHS = (4, 3, 5)


@pytest.fixture
def attention():
    torch.manual_seed(2)
    return CompositeAttention(8, 2, 0.0, dropout_all=False)


@pytest.fixture
def sequence():
    return torch.randn(2, sum(LENGTHS), 8, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def content():
    valid = torch.ones(2, sum(LENGTHS), dtype=torch.bool)
    valid[1, [3, 6, 11]] = False
    return valid


def test_weights_of_the_seven_subsets_rebuild_the_output_of_the_fusion(
    attention, sequence, content
):
    scores_BHSL, v_BHLK, _ = attention.scores(sequence, content)
    scores = scores_BHSL.mT
    reads = {}
    for subset, out in zip(SUBSETS, attention.subset_out, strict=True):
        steps = subset_steps(LENGTHS, subset)
        weights = subset_weights(scores, LENGTHS, subset)
        read = out((weights @ v_BHLK[:, :, steps]).transpose(1, 2).flatten(2))
        for modality in subset:
            own = torch.isin(steps, subset_steps(LENGTHS, (modality,)))
            reads[subset, modality] = read[:, own]
    fused = [
        summary(torch.cat([reads[s, modality] for s in SUBSETS if modality in s], dim=-1))
        for modality, summary in zip(Modality, attention.summary, strict=True)
    ]
    rebuilt = attention.final(torch.cat(fused, dim=1))
    expected, _ = attention(sequence, LENGTHS, content)
    torch.testing.assert_close(rebuilt[content], expected[content], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("subset", SUBSETS)
def test_shares_of_modalities_are_the_weights_added_up(attention, sequence, content, subset):
    scores = attention.scores(sequence, content)[0].mT
    steps = subset_steps(LENGTHS, subset)
    weights = subset_weights(scores, LENGTHS, subset)
    shares = key_shares(scores, LENGTHS, subset)[:, :, steps]
    for number, modality in enumerate(Modality):
        keys = torch.isin(steps, subset_steps(LENGTHS, (modality,)))
        torch.testing.assert_close(shares[..., number], weights[..., keys].sum(dim=-1))
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(shares.shape[:-1]))


def test_padded_keys_get_no_weight(attention, sequence, content):
    scores = attention.scores(sequence, content)[0].mT
    weights = subset_weights(scores, LENGTHS, tuple(Modality))
    assert (weights[1][..., ~content[1]] == 0).all()
    assert (weights[0] > 0).all()


def test_weights_of_word_alignment_rebuild_its_output_and_skip_what_is_no_word():
    torch.manual_seed(6)
    module = WordAlignment(8)
    text, frames = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    valid_text, valid = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 7, dtype=torch.bool)
    valid_text[1, 4], valid[0, 5:], valid[1] = False, False, False
    words = word_positions(valid_text)
    weights = module.weights(text, frames, words, valid)
    rebuilt = module.out(weights @ module.value(frames))
    torch.testing.assert_close(rebuilt, module(text, frames, words, valid))
    assert (weights[0][:, 5:] == 0).all()
    torch.testing.assert_close(weights.sum(dim=-1)[0], words[0].float())
    assert (weights[1] == 0).all()  # an utterance without frames


def test_scores_of_all_layers_end_with_those_of_a_forward_pass(sequence):
    def layer():
        attention = CompositeAttention(8, 2, 0.0, dropout_all=False)
        return FusionLayer(attention, 8, relu_dropout=0, residual_dropout=0,
                           residual_normalised=False)  # fmt: skip

    encoder = stack(3, 8, layer).eval()
    found = encoder.scores(sequence, LENGTHS, None)
    assert len(found) == 3
    assert torch.equal(found[-1], encoder(sequence, LENGTHS, None)[1])
    assert not torch.equal(found[0], found[1])
