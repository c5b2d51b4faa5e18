"""The two-step update in groups of similar length against its plain form on the whole batch."""

import copy
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from ref_step import forward, two_step
from step_parts import NUM_SAMPLES, SHAPES, batch_of, descent, model_of

from cider.data.batch import TokenIds
from cider.spec import LossConfig, TrainingConfig
from cider.training import groups
from cider.training.groups import LINEAR_STEPS, START, by_length, cuts
from cider.training.update import TwoStepUpdate

CASES = {
    "unaligned": ("unaligned", {}),
    "aligned": ("aligned", {}),
    "without word alignment": ("unaligned", {"wsam": False}),
}
LOSS = LossConfig(reconstruction=0.7, attention=0.3, joint=0.6)


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
