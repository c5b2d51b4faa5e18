"""What every registered model must do; a new model folder is tested here without being named."""

import pytest
import torch

from cider import models
from cider.config import to_dict
from cider.data.batch import View
from cider.modality import PerModality
from cider.models.emotion import EmotionModel, build_head
from cider.models.interface import InputShapes
from cider.modules.text import TextEncoder, build_from_scratch
from cider.spec import MaciConfig, RunSpec, TextEncoderConfig

SHAPES = {
    "unaligned": InputShapes(PerModality(16, 5, 7), PerModality(9, 12, 15), aligned=False),
    "aligned": InputShapes(PerModality(16, 5, 7), PerModality(9, 9, 9), aligned=True),
}


def build(name, shapes, *, mcm=True):
    torch.manual_seed(1)
    backbone = models.config_class(name)().build(shapes)
    text = TextEncoder(build_from_scratch(TextEncoderConfig(width=16), 120, 16), fine_tune=True)
    features = shapes.widths.map(lambda width: torch.rand(3, width))
    maci = MaciConfig(mcm=mcm)
    head = build_head(backbone, maci, features, torch.full((3,), 1 / 3), layer_norm=False)
    return EmotionModel(text, backbone, head)


def view(shapes, num_samples=4):
    torch.manual_seed(2)
    sizes = list(shapes.lengths)
    valid = [torch.arange(size) < torch.randint(2, size + 1, (num_samples, 1)) for size in sizes]
    if shapes.aligned:
        valid = [valid[0]] * 3
    ids = torch.randint(104, 120, (num_samples, sizes[0])) * valid[0]
    frames = [
        torch.randn(num_samples, size, width) * mask.unsqueeze(-1)
        for size, width, mask in zip(sizes[1:], (5, 7), valid[1:], strict=True)
    ]
    return View(ids, *frames, PerModality(*valid))


EVERY = pytest.mark.parametrize("name", models.names())
BOTH = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)


@EVERY
@BOTH
@pytest.mark.parametrize("mcm", [True, False], ids=["maci", "plain"])
def test_model_gives_log_probabilities_and_a_joint_representation(name, shapes, mcm):
    model = build(name, shapes, mcm=mcm).eval()
    with torch.no_grad():
        output = model(view(shapes))
    assert output.log_probs_BC.shape == (4, 3)
    torch.testing.assert_close(output.log_probs_BC.exp().sum(1), torch.ones(4))
    assert output.joint_BJ.shape == (4, model.backbone.joint_width)


@EVERY
@BOTH
def test_model_gives_every_trainable_parameter_a_gradient(name, shapes):
    model = build(name, shapes).train()
    output = model(view(shapes))
    loss = output.log_probs_BC[:, 0].sum()
    for reconstruction in output.reconstruction or ():
        loss = loss + reconstruction.pow(2).sum()
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@EVERY
@BOTH
def test_model_prediction_follows_its_sample_when_the_batch_is_permuted(name, shapes):
    model = build(name, shapes).eval()
    given, order = view(shapes), torch.tensor([3, 1, 0, 2])
    turned = View(
        given.token_ids_BT[order],
        given.audio_BSF[order],
        given.vision_BSF[order],
        given.valid.map(lambda mask: mask[order]),
    )
    with torch.no_grad():
        torch.testing.assert_close(model(turned).log_probs_BC, model(given).log_probs_BC[order])


@EVERY
@BOTH
def test_model_ignores_what_lies_in_padding(name, shapes):
    model = build(name, shapes).eval()
    given = view(shapes)
    noisy = View(
        torch.where(given.valid.text, given.token_ids_BT, 7),
        torch.where(given.valid.audio.unsqueeze(-1), given.audio_BSF, 99.0),
        torch.where(given.valid.vision.unsqueeze(-1), given.vision_BSF, -99.0),
        given.valid,
    )
    with torch.no_grad():
        torch.testing.assert_close(model(noisy).log_probs_BC, model(given).log_probs_BC)


@EVERY
def test_model_state_dict_round_trip_gives_the_same_predictions(name):
    shapes = SHAPES["unaligned"]
    model, other = build(name, shapes).eval(), build(name, shapes).eval()
    for parameter in other.parameters():
        parameter.data.add_(0.1)
    other.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        given = view(shapes)
        assert torch.equal(model(given).log_probs_BC, other(given).log_probs_BC)


@EVERY
def test_model_config_survives_the_spec_and_bears_identity(name):
    spec = RunSpec(model=models.config_class(name)())
    assert RunSpec.from_dict(spec.to_dict()) == spec
    assert set(to_dict(spec.model)) | {"name"} == set(spec.to_dict()["model"])


@EVERY
@BOTH
def test_model_that_promises_to_read_no_padding_predicts_the_same_however_far_it_is_padded(
    name, shapes
):
    model = build(name, shapes).eval()
    given = view(shapes)
    row = int(given.valid.text.sum(dim=1).argmin())
    steps = given.valid.map(lambda mask: int(mask[row].sum()))
    alone = slice(row, row + 1)
    cut = View(
        given.token_ids_BT[alone, : steps.text],
        given.audio_BSF[alone, : steps.audio],
        given.vision_BSF[alone, : steps.vision],
        given.valid.zip_map(steps, lambda mask, count: mask[alone, :count]),
    )
    assert sum(steps) < sum(shapes.lengths)
    with torch.no_grad():
        whole, short = model(given).log_probs_BC[alone], model(cut).log_probs_BC
    close = torch.allclose(short, whole, atol=1e-6)
    assert close or model.backbone.reads_padding


@EVERY
@BOTH
def test_model_predicts_the_same_when_nothing_but_the_prediction_is_asked_for(name, shapes):
    model = build(name, shapes).eval()
    given = view(shapes)
    with torch.no_grad():
        output = model(given)
        torch.testing.assert_close(model.log_probs(given, output.text_BTF), output.log_probs_BC)
