"""The two-step update in groups of similar length against its plain form on the whole batch."""

import copy
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from ref_step import forward, two_step

from cider.data.batch import Batch, TokenIds, View
from cider.modality import PerModality
from cider.models.cider.config import Config
from cider.models.emotion import EmotionModel, build_head
from cider.models.interface import InputShapes
from cider.modules.text import TextEncoder, build_from_scratch
from cider.spec import LossConfig, MaciConfig, TextEncoderConfig, TrainingConfig
from cider.training import groups
from cider.training.groups import LINEAR_STEPS, START, by_length, cuts
from cider.training.update import TwoStepUpdate

WIDTHS = PerModality(16, 5, 7)
SHAPES = {
    "unaligned": InputShapes(WIDTHS, PerModality(24, 30, 40), aligned=False),
    "aligned": InputShapes(WIDTHS, PerModality(24, 24, 24), aligned=True),
}
CASES = {
    "unaligned": ("unaligned", {}),
    "aligned": ("aligned", {}),
    "without word alignment": ("unaligned", {"wsam": False}),
}
NO_DROPOUT = {
    f"{name}_dropout": 0.0 for name in ("attention", "embedding", "output", "relu", "residual")
}
NUM_SAMPLES = 30
LOSS = LossConfig(reconstruction=0.7, attention=0.3, joint=0.6)


def model_of(shapes, fields, dtype):
    torch.manual_seed(5)
    backbone = Config(width=16, heads=2, layers=2, **NO_DROPOUT, **fields).build(shapes)
    encoder = TextEncoderConfig(source="scratch", width=16, layers=1, dropout=0.0)
    text = TextEncoder(build_from_scratch(encoder, 120, 24), fine_tune=True)
    features = WIDTHS.map(lambda width: torch.rand(3, width))
    head = build_head(
        backbone, MaciConfig(), features, torch.tensor([0.5, 0.2, 0.3]), layer_norm=False
    )
    return EmotionModel(text, backbone, head).to(dtype).train()


def batch_of(shapes, dtype, least=1):
    rng = np.random.default_rng(2)
    text = np.minimum(2 + rng.geometric(0.2, NUM_SAMPLES), shapes.lengths.text)
    audio = np.minimum(rng.integers(least, 3, NUM_SAMPLES) * text, shapes.lengths.audio)
    vision = np.minimum(rng.integers(1, 4, NUM_SAMPLES) * text, shapes.lengths.vision)
    if shapes.aligned:
        audio = vision = text
    lengths = [torch.from_numpy(each) for each in (text, audio, vision)]
    valid = [torch.arange(int(each.max())) < each[:, None] for each in lengths]
    ids = torch.from_numpy(rng.integers(104, 120, valid[0].shape)) * valid[0]
    frames = [
        torch.from_numpy(rng.standard_normal((*mask.shape, width))).to(dtype) * mask[..., None]
        for mask, width in zip(valid[1:], (5, 7), strict=True)
    ]
    labels = torch.from_numpy(rng.integers(0, 3, NUM_SAMPLES))
    observed = PerModality(
        *(mask & torch.from_numpy(rng.random(mask.shape) > 0.4) for mask in valid)
    )
    return Batch(np.arange(NUM_SAMPLES), View(ids, *frames, PerModality(*valid)), labels), observed


def descent(model):
    # Adam divides by the gradient's own size, which makes rounding of tiny gradients large.
    return torch.optim.SGD(model.parameters(), lr=0.05)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_update_equals_the_plain_form_in_losses_gradients_and_weights(
    case, dtype, tolerance, monkeypatch
):
    monkeypatch.setattr(groups, "START", 500)  # so that so small a batch falls into groups
    shapes, fields = SHAPES[case[0]], case[1]
    model = model_of(shapes, fields, dtype)
    plain = copy.deepcopy(model)
    batch, observed = batch_of(shapes, dtype, least=int("wsam" in fields))
    assert len(by_length(batch, observed)) > 2
    update = TwoStepUpdate(model, descent(model), TrainingConfig(), LOSS, TokenIds())
    slow = descent(plain)
    for _ in range(3):
        got = update(batch, observed)
        wanted = two_step(plain, slow, batch, observed, LOSS, TokenIds())
        assert got == pytest.approx(wanted, rel=tolerance, abs=tolerance)
        for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
            if theirs.grad is None:  # the last norm's, for instance, where nothing is pooled
                assert ours.grad is None, name
                continue
            for a, b in ((ours.grad, theirs.grad), (ours, theirs)):
                torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_prediction_equals_the_plain_form(case):
    shapes, fields = SHAPES[case[0]], case[1]
    model = model_of(shapes, fields, torch.float64).eval()
    view = batch_of(shapes, torch.float64)[0].complete
    with torch.no_grad():
        output, wanted = model(view), forward(model, view)
    torch.testing.assert_close(output.log_probs_BC, wanted["log_probs"])
    torch.testing.assert_close(output.joint_BJ, wanted["joint"])
    for got, expected, mask in zip(
        output.reconstruction, wanted["reconstruction"], view.valid, strict=True
    ):
        torch.testing.assert_close(got[mask], expected[mask])


def test_groups_hold_every_utterance_once_at_its_own_length(monkeypatch):
    monkeypatch.setattr(groups, "START", 500)
    batch, observed = batch_of(SHAPES["unaligned"], torch.float32)
    found = by_length(batch, observed)
    assert len(found) > 1
    assert sum(group.share for group in found) == pytest.approx(1)
    rows = torch.cat([group.view.row_B for group in found])
    assert sorted(rows.tolist()) == list(range(NUM_SAMPLES))
    for group in found:
        row_R = group.view.row_B
        assert torch.equal(group.labels_R, batch.labels_B[row_R])
        for kept, valid, whole, seen in zip(
            group.observed, group.view.valid, batch.complete.valid, observed, strict=True
        ):
            assert valid.shape[1] == max(int(whole[row_R].sum(1).max()), 1)
            assert torch.equal(valid, whole[row_R, : valid.shape[1]])
            assert torch.equal(kept, seen[row_R, : valid.shape[1]])
            assert not whole[row_R, valid.shape[1] :].any()


def test_cuts_are_those_of_least_work():
    rng = np.random.default_rng(0)
    for lengths in ([7], [50] * 3, *(rng.integers(2, 51, size) for size in (5, 9, 10))):
        lengths = sorted(map(int, lengths), reverse=True)

        def cost(bounds, lengths=lengths):
            return sum(
                START + (stop - start) * lengths[start] * (lengths[start] + LINEAR_STEPS)
                for start, stop in bounds
            )

        inner = range(1, len(lengths))
        ways = [
            list(pairwise([0, *chosen, len(lengths)]))
            for count in range(len(lengths))
            for chosen in combinations(inner, count)
        ]
        found = cuts(lengths)
        assert found in ways
        assert cost(found) == min(map(cost, ways))


def test_texts_of_one_length_are_one_group_and_many_shorter_ones_another():
    assert cuts([20] * 128) == [(0, 128)]
    assert cuts([50] * 10 + [10] * 30) == [(0, 10), (10, 40)]
