"""CIDer's network: sizes, what padding and neighbours may not change, and the ablations."""

import numpy as np
import pytest
import torch

from cider.behaviour import with_behaviour
from cider.data.batch import View
from cider.modality import Modality, PerModality
from cider.models.cider.config import Config
from cider.models.emotion import EmotionModel, build_head
from cider.models.interface import InputShapes
from cider.modules.text import TextEncoder, build_from_scratch
from cider.spec import MaciConfig, RunSpec, TextEncoderConfig

MOSI = InputShapes(PerModality(768, 5, 20), PerModality(50, 375, 500), aligned=False)
TINY = InputShapes(PerModality(16, 5, 7), PerModality(9, 20, 24), aligned=False)
TINY_ALIGNED = InputShapes(PerModality(16, 5, 7), PerModality(9, 9, 9), aligned=True)


def head_of(backbone, shapes, num_classes):
    features = shapes.widths.map(lambda width: torch.rand(num_classes, width))
    prior = torch.full((num_classes,), 1 / num_classes)
    return build_head(backbone, MaciConfig(), features, prior, layer_norm=False)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("num_classes", "whole", "maci"), [(3, 244086, 33545), (7, 251806, 41265)])
def test_parameters_of_mosi_unaligned_equal_published(num_classes, whole, maci):
    backbone = Config(width=32, layers=2).build(MOSI)
    head = head_of(backbone, MOSI, num_classes)
    assert count(head) == maci
    assert count(backbone) + count(head) == whole


def tiny_model(shapes=TINY, **fields):
    torch.manual_seed(5)
    backbone = Config(width=16, heads=2, layers=2, **fields).build(shapes)
    encoder = TextEncoderConfig(source="scratch", width=16, layers=1)
    text = TextEncoder(build_from_scratch(encoder, 120, 16), fine_tune=True)
    return EmotionModel(text, backbone, head_of(backbone, shapes, 3)).eval()


def view_of(lengths, padded):
    """Return a view of three utterances whose content depends on the utterance alone."""
    generators = [np.random.default_rng(number) for number in range(3)]
    ids = torch.zeros(3, padded[0], dtype=torch.long)
    frames = [torch.zeros(3, padded[1], 5), torch.zeros(3, padded[2], 7)]
    valid = [torch.zeros(3, size, dtype=torch.bool) for size in padded]
    for row, generator in enumerate(generators):
        for number, length in enumerate(lengths[row]):
            valid[number][row, :length] = True
        ids[row, : lengths[row][0]] = torch.from_numpy(
            generator.integers(104, 120, lengths[row][0])
        )
        for number in (0, 1):
            length = lengths[row][number + 1]
            values = generator.normal(size=(length, frames[number].shape[2]))
            frames[number][row, :length] = torch.from_numpy(values)
    return View(ids, frames[0], frames[1], PerModality(*valid))


LENGTHS = [(5, 11, 8), (7, 3, 16), (3, 20, 1)]
ALIGNED_LENGTHS = [(5, 5, 5), (7, 7, 7), (3, 3, 3)]

SHAPED = pytest.mark.parametrize(
    ("shapes", "lengths", "short", "long"),
    [
        (TINY, LENGTHS, (7, 20, 16), (9, 20, 24)),
        (TINY_ALIGNED, ALIGNED_LENGTHS, (7,) * 3, (9,) * 3),
    ],
    ids=["unaligned", "aligned"],
)


@SHAPED
@pytest.mark.parametrize("fields", [{}, {"fusion": "vanilla"}, {"wsam": False}], ids=str)
def test_corrected_prediction_does_not_depend_on_padding(shapes, lengths, short, long, fields):
    model = tiny_model(shapes, **fields)
    with torch.no_grad():
        padded_short, padded_long = (model(view_of(lengths, size)) for size in (short, long))
    torch.testing.assert_close(padded_short.log_probs_BC, padded_long.log_probs_BC)
    torch.testing.assert_close(padded_short.joint_BJ, padded_long.joint_BJ, rtol=1e-5, atol=1e-6)
    for modality in Modality:
        steps = padded_short.reconstruction[modality].shape[1]
        for row in range(3):
            length = lengths[row][list(Modality).index(modality)]
            torch.testing.assert_close(
                padded_short.reconstruction[modality][row, :length],
                padded_long.reconstruction[modality][row, :length],
                rtol=1e-5,
                atol=1e-6,
            )
        assert steps <= padded_long.reconstruction[modality].shape[1]


@SHAPED
def test_corrected_prediction_does_not_depend_on_neighbours(shapes, lengths, short, long):
    model = tiny_model(shapes)
    view = view_of(lengths, long)
    order = torch.tensor([2, 0, 1])
    turned = View(
        view.token_ids_BT[order],
        view.audio_BSF[order],
        view.vision_BSF[order],
        view.valid.map(lambda valid: valid[order]),
    )
    with torch.no_grad():
        expected, got = model(view).log_probs_BC[order], model(turned).log_probs_BC
    torch.testing.assert_close(got, expected)


def test_released_prediction_depends_on_place_in_batch_as_published():
    spec = with_behaviour(RunSpec(model=Config(width=16, heads=2)), "released")
    torch.manual_seed(5)
    backbone = spec.model.build(TINY)
    encoder = build_from_scratch(TextEncoderConfig(source="scratch", width=16), 120, 16)
    model = EmotionModel(TextEncoder(encoder, fine_tune=True), backbone, head_of(backbone, TINY, 3))
    model.eval()
    same = view_of([(5, 11, 8)] * 3, (9, 20, 24))
    first = View(
        same.token_ids_BT[:1].expand(3, -1),
        same.audio_BSF[:1].expand(3, -1, -1),
        same.vision_BSF[:1].expand(3, -1, -1),
        same.valid.map(lambda valid: valid[:1].expand(3, -1)),
    )
    with torch.no_grad():
        log_probs = model(first).log_probs_BC
    assert (log_probs[0] - log_probs[1]).abs().max() > 1e-4


def test_word_order_matters_in_fusion_with_positions_over_time():
    """Without positions, attention pooling and fusion could not tell when a state occurred."""
    model = tiny_model(TINY_ALIGNED)
    states = torch.rand(1, 27, 16)
    forward = model.backbone._with_positions(states, [9, 9, 9], 0)
    assert (forward - states)[0].unique(dim=0).shape[0] == 27


def test_log_probabilities_sum_to_one_and_prior_only_counts_in_training():
    model = tiny_model()
    model.head.prior_C[:] = torch.tensor([0.9, 0.05, 0.05])
    view = view_of(LENGTHS, (9, 20, 24))
    with torch.no_grad():
        evaluated = model(view).log_probs_BC
        model.head.train()
        trained = model(view).log_probs_BC
    torch.testing.assert_close(evaluated.exp().sum(1), torch.ones(3))
    torch.testing.assert_close(trained.exp().sum(1), torch.ones(3))
    assert (trained - evaluated).abs().max() > 1e-3


@pytest.mark.parametrize("shapes", [TINY, TINY_ALIGNED], ids=["unaligned", "aligned"])
def test_every_trainable_parameter_gets_a_gradient(shapes):
    model = tiny_model(shapes).train()
    lengths = LENGTHS if shapes is TINY else ALIGNED_LENGTHS
    output = model(view_of(lengths, tuple(shapes.lengths)))
    terms = [output.log_probs_BC[:, 0].sum(), *(r.pow(2).sum() for r in output.reconstruction)]
    sum(terms).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []


def test_utterance_without_frames_gives_finite_predictions_and_gradients():
    model = tiny_model().train()
    output = model(view_of([(5, 0, 8), (7, 3, 0), (3, 0, 0)], (7, 3, 8)))
    output.log_probs_BC.sum().backward()
    assert torch.isfinite(output.log_probs_BC).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_frozen_text_encoder_keeps_weights_and_dropout_off():
    encoder = TextEncoder(build_from_scratch(TextEncoderConfig(width=16), 120, 16), fine_tune=False)
    encoder.train()
    assert not encoder.backbone.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
