"""What models cost: counts against hand-made ones and the printed ones; times only exist."""

import json

import pytest
import torch
from tiny_corpus import write_tiny_corpus
from torch import nn

from cider.errors import UsageError
from cider.models import names
from cider_platform.complexity.flops import count_flops
from cider_platform.complexity.parameters import maci_parameters, parameters_as_published
from cider_platform.complexity.tensors import TensorPeak
from cider_platform.complexity.variants import CHANGES_COST, variants

MEGA = 250_000  # float32 numbers in a million bytes
SMALL = ("--set", "model.width=8", "--set", "text_encoder.width=8", "--set",
         "text_encoder.layers=1", "--set", "training.batch_size=6")  # fmt: skip


def by_name():
    return {each.name: each for each in variants()}


def test_parameters_are_the_printed_ones():
    cider = by_name()["cider"]
    assert parameters_as_published(cider) == cider.published["parameters"] == 247_946
    assert maci_parameters() == 37_405


def test_every_registered_model_and_every_option_that_costs_is_measured():
    assert set(by_name()) == {*names(), *CHANGES_COST}
    assert [each.name for each in variants(["w/o MCT"])] == ["w/o MCT"]
    assert by_name()["w/o MCT"].published == {}
    with pytest.raises(UsageError, match="unknown model 'dmd'"):
        variants(["dmd"])


def test_options_change_the_number_of_parameters_as_they_should():
    found = {name: parameters_as_published(each) for name, each in by_name().items()}
    linear = (96 + 1) * (3 + 7) / 2
    assert found["w/o MCM"] == found["cider"] - maci_parameters() + linear
    assert found["w/o counterfactual text"] == found["cider"]
    assert found["w/o MACI"] == found["w/o MCM"]


def test_flops_are_two_per_multiply_add_forward_and_backward():
    layer, x_BF = nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    forward = 2 * 3 * 5 * 7
    assert count_flops(lambda: layer(x_BF)) == forward
    # Backward: one product for the weight's gradient, one for the input's.
    assert count_flops(lambda: layer(x_BF).sum().backward()) == 3 * forward


def test_flops_count_the_steps_of_a_recurrence_and_attention():
    gru = nn.GRU(4, 6, batch_first=True)
    # Three gates of 4 inputs and 6 states, at each of 9 steps.
    assert count_flops(lambda: gru(torch.randn(1, 9, 4))) == 2 * 9 * 3 * 6 * (4 + 6)
    q_BHTD = torch.randn(1, 2, 5, 8)
    with torch.no_grad():
        found = count_flops(
            lambda: nn.functional.scaled_dot_product_attention(q_BHTD, q_BHTD, q_BHTD)
        )
    assert found == 2 * (2 * 2 * 5 * 5 * 8)


def test_peak_counts_every_storage_once_and_until_it_is_freed():
    with TensorPeak() as memory:
        first = torch.zeros(MEGA)
        second = first + 1
        view = second.view(500, 500)
        assert memory.now == 2_000_000
        del second
        assert memory.now == 2_000_000
        del view
        assert memory.now == 1_000_000
    assert memory.peak == 2_000_000


def test_peak_counts_what_backward_keeps_and_what_was_held_before():
    weight = torch.ones(MEGA, requires_grad=True)
    with TensorPeak([weight]) as memory:
        kept = weight.exp()
        assert memory.now == 2_000_000
        kept.sum().backward()
        assert memory.now >= 3_000_000
    assert memory.peak >= 3_000_000


def test_command_measures_and_says_how(run_cli, tmp_path):
    write_tiny_corpus(tmp_path)
    words = ("complexity", "--dataset", "tiny", "--store", tmp_path, "--device", "cpu", "--steps",
             2, "--predictions", 3, *SMALL)  # fmt: skip
    code, out, err = run_cli(*words, "--json", "--only", "cider", "--only", "late_fusion")
    assert code == 0, err
    data = json.loads(out)["data"]
    cider, late = data["models"]
    assert (cider["model"], late["model"]) == ("cider", "late_fusion")
    assert cider["published"]["parameters"] == 247_946
    assert data["maci"]["published"] == data["maci"]["parameters_at_published_shapes"] == 37_405
    for each in (cider, late):
        assert each["latencies"] == 3
        assert 0 < each["latency_median_seconds"] <= each["latency_p95_seconds"]
        assert each["seconds_per_epoch"] > 0
        flops = each["prediction_flops"], each["prediction_flops_with_text_encoder"]
        assert 0 < flops[0] < flops[1] < each["training_flops_with_text_encoder"]
        assert each["peak_bytes"] > 12 * (each["parameters"] + each["text_encoder_parameters"])
    assert (tmp_path / "tiny").is_dir()
    assert not (tmp_path / "runs").exists()
    code, out, err = run_cli(*words, "--only", "w/o MCM")
    assert "w/o MCM" in out
    assert "37,405" in out
    assert "2 per multiply-add" in err
    assert "published memory and times are of another machine" in err


def test_flops_of_late_fusion_are_those_of_its_layers(run_cli, tmp_path):
    write_tiny_corpus(tmp_path)
    code, out, _ = run_cli("complexity", "--dataset", "tiny", "--store", tmp_path, "--device",
                           "cpu", "--steps", 1, "--predictions", 1, "--json", "--only",
                           "late_fusion", "--set", "maci.mcm=false", "--set",
                           "maci.counterfactual=false", *SMALL[2:])  # fmt: skip
    assert code == 0
    (found,) = json.loads(out)["data"]["models"]
    width, joint = 32, 96
    layers = 2 * (width * (8 + 5 + 7) + joint * joint + joint * 3)
    # Means over the valid steps are products of (1, steps) and (steps, features).
    steps = found["prediction_flops"] - layers
    assert 0 < steps <= 2 * (8 * 8 + 12 * 5 + 15 * 7)
