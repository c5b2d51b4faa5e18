"""CIDer with the behaviour ``released`` against recordings of the published implementation."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from cider.behaviour import with_behaviour
from cider.data.batch import Batch, TokenIds, View
from cider.losses import attention_loss, joint_loss, reconstruction_loss, task_loss
from cider.modality import Modality, PerModality
from cider.models.cider.config import Config
from cider.models.cider.published import from_published
from cider.models.emotion import EmotionModel, build_head
from cider.models.interface import InputShapes
from cider.modules.text import TextEncoder
from cider.spec import LossConfig, MaciConfig, RunSpec
from cider.training.optim import build_optimizer
from cider.training.update import TwoStepUpdate
from cider.views import incomplete_view

NO_DROPOUT = {
    f"{name}_dropout": 0.0 for name in ("attention", "embedding", "output", "relu", "residual")
}


class Recording:
    """One recorded case: its tensors, and our model with the recorded weights."""

    def __init__(self, path):
        self.tensors = load_file(path)
        self.facts = json.loads(path.with_suffix(".json").read_text())
        case = self.case = self.facts["case"]
        spec = RunSpec(
            model=Config(layers=case["layers"], heads=case["heads"], width=case["d"], **NO_DROPOUT),
            loss=LossConfig(
                reconstruction=case["alpha"], attention=case["beta"], joint=case["gamma"]
            ),
            maci=MaciConfig(layer_norm="on" if case["cross_dataset"] else "off"),
        )
        self.spec = with_behaviour(spec, "released")
        self.published = self.below("weights/")
        self.model = self.build()

    def below(self, prefix):
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def build(self):
        case, given = self.case, self.below("in/")
        widths = [case["d_l"], case["d_a"], case["d_v"]]
        shapes = InputShapes(
            PerModality(*widths),
            PerModality(case["T_l"], case["T_a"], case["T_v"]),
            case["aligned"],
        )
        backbone = self.spec.model.build(shapes)
        encoder = BertModel(BertConfig(**self.facts["bert"]), add_pooling_layer=False)
        head = build_head(
            backbone,
            self.spec.maci,
            PerModality(*given["class_features"].split(widths, dim=1)),
            given["class_prior"],
            layer_norm=case["cross_dataset"],
        )
        model = EmotionModel(TextEncoder(encoder, fine_tune=True), backbone, head)
        model.load_state_dict(from_published(self.published), strict=True)
        # The recordings apply the training split's prior and class means, as training mode does;
        # every dropout is 0.
        return model.train()

    def view(self, text="text_ids", audio="audio", vision="vision"):
        given = self.below("in/")
        valid = PerModality(
            given["text_mask"].bool(), given["audio_mask"].bool(), given["vision_mask"].bool()
        )
        return View(given[text].long(), given[audio], given[vision], valid)

    @property
    def observed(self):
        return PerModality(
            *(self.tensors[f"in/{modality.value}_keep"].bool() for modality in Modality)
        )

    @property
    def labels(self):
        return self.tensors["in/labels"]

    def incomplete(self):
        return self.view("text_ids_incomplete", "audio_incomplete", "vision_incomplete")


@pytest.fixture
def recording(golden_case):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Recording(golden_case)
    torch.set_num_threads(threads)


def close(got, expected, tolerance=1e-5):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def scores(output):
    return output.attention.scores_BHLL.flatten(0, 1)


def test_parameter_count_equals_recorded(recording):
    assert recording.model.num_parameters() == recording.facts["parameters"]


def test_position_table_equals_published(recording):
    table = recording.published["multimodal_transformer.embed_positions.pe"][0]
    close(recording.model.backbone.positions_ND[: len(table)], table, 1e-6)


def test_complete_view_equals_recorded(recording):
    with torch.no_grad():
        output = recording.model(recording.view())
    close(output.text_BTF, recording.tensors["out/text_features"])
    close(scores(output), recording.tensors["out/attention_scores"])
    close(output.joint_BJ, recording.tensors["out/joint"])
    close(output.log_probs_BC, recording.tensors["out/log_prob"])


def test_incomplete_view_equals_recorded(recording):
    view = incomplete_view(recording.view(), recording.observed, TokenIds())
    expected = recording.incomplete()
    assert torch.equal(view.token_ids_BT, expected.token_ids_BT)
    assert torch.equal(view.audio_BSF, expected.audio_BSF)
    assert torch.equal(view.vision_BSF, expected.vision_BSF)
    with torch.no_grad():
        output = recording.model(view)
    out = recording.below("out/incomplete/")
    close(scores(output), out["attention_scores"])
    close(output.joint_BJ, out["joint"])
    close(output.log_probs_BC, out["log_prob"])
    for modality in Modality:
        close(output.reconstruction[modality], out[f"{modality.value}_recon"])


def test_counterfactual_view_equals_recorded(recording):
    view = recording.view("text_ids_counterfactual", "audio_incomplete", "vision_incomplete")
    with torch.no_grad():
        output = recording.model(view)
    close(output.log_probs_BC, recording.tensors["out/counterfactual/log_prob"])


def test_loss_terms_equal_recorded(recording):
    with torch.no_grad():
        complete = recording.model(recording.view())
        incomplete = recording.model(recording.incomplete())
    expected = recording.below("loss/")
    close(task_loss(complete.log_probs_BC, recording.labels), expected["task_complete"])
    close(task_loss(incomplete.log_probs_BC, recording.labels), expected["task_incomplete"])
    close(attention_loss(incomplete.attention, complete.attention), expected["attention"])
    close(joint_loss(incomplete.joint_BJ, complete.joint_BJ), expected["joint"])
    view = recording.view()
    targets = PerModality(complete.text_BTF, view.audio_BSF, view.vision_BSF)
    for modality in Modality:
        term = reconstruction_loss(
            incomplete.reconstruction[modality],
            targets[modality],
            view.valid[modality] & ~recording.observed[modality],
        )
        close(term, expected[f"recon_{modality.value}"])


def by_published_name(recording, values):
    """Return our tensors (by our name) under the published names."""
    ours = from_published(
        {name: torch.tensor(0) for name in recording.published if one_to_one(name)}
    )
    names = dict(zip(ours, (n for n in recording.published if one_to_one(n)), strict=True))
    return {names[name]: value for name, value in values.items() if name in names}


def one_to_one(name):
    constants = ("version", "embed_positions", "pooler", "position_ids", "token_type_ids")
    return "_compress.in_proj" not in name and not any(part in name for part in constants)


def test_gradients_of_step_one_equal_recorded(recording):
    expected = recording.below("grad/stage1/")
    output = recording.model(recording.view())
    task_loss(output.log_probs_BC, recording.labels).backward()
    gradients = by_published_name(
        recording, {name: p.grad for name, p in recording.model.named_parameters()}
    )
    assert expected
    for name, gradient in expected.items():
        close(gradients[name], gradient, 1e-4)


def test_three_rounds_of_the_two_step_update_equal_recorded(recording):
    if "train/trace" not in recording.tensors:
        pytest.skip("this recording holds no training trace")
    spec = recording.spec
    optimizer = build_optimizer(recording.model, spec.optimizer, from_scratch=False)
    update = TwoStepUpdate(recording.model, optimizer, spec.training, spec.loss, TokenIds())
    batch = Batch(torch.arange(len(recording.labels)).numpy(), recording.view(), recording.labels)
    for task, total in recording.tensors["train/trace"]:
        losses = update(batch, recording.observed)
        assert losses["task_complete"] == pytest.approx(float(task), abs=1e-4)
        assert losses["total"] == pytest.approx(float(total), abs=1e-4)
    weights = by_published_name(recording, recording.model.state_dict())
    expected = recording.below("train/weights_after_3/")
    assert expected
    for name, tensor in expected.items():
        close(weights[name], tensor, 1e-4)


def test_clearing_gradients_changes_the_trace(recording):
    """The recorded trace tells the two update rules apart, so the test above is one of both."""
    spec = recording.spec
    training = replace(spec.training, clear_gradients=True)
    optimizer = build_optimizer(recording.model, spec.optimizer, from_scratch=False)
    update = TwoStepUpdate(recording.model, optimizer, training, spec.loss, TokenIds())
    batch = Batch(torch.arange(len(recording.labels)).numpy(), recording.view(), recording.labels)
    traces = [update(batch, recording.observed)["total"] for _ in range(3)]
    released = recording.tensors["train/trace"][:, 1].tolist()
    assert max(abs(a - b) for a, b in zip(traces, released, strict=True)) > 1e-4
