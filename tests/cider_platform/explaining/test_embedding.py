"""Representations are the model's, and the numbers beside their t-SNE are what they claim."""

from __future__ import annotations

import json
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from figure_words import outside, overlapping

from cider.condition import Condition
from cider.errors import CiderError, UsageError
from cider_platform.explaining.draw_embedding import draw_embedding
from cider_platform.explaining.embedding import (
    Projection,
    distillation,
    linear_cka,
    nearest_centroid,
    panels,
    representations,
    separation,
)
from cider_platform.explaining.opened import COMPLETE, OpenedRun
from cider_platform.figure_files import STYLE

FEW = Projection(points=10, perplexity=3)


def test_representations_are_the_models_in_stored_order(opened):
    condition = Condition("rmfm", 0.5)
    found = representations(opened, "test", condition)
    for sample in opened.find(["test$0", "test$7", "test$11"]):
        view, _ = opened.view(sample, condition)
        with torch.no_grad():
            expected = opened.run.model(view).joint_BJ[0].numpy()
        np.testing.assert_allclose(found[sample.row], expected, atol=1e-5)


def test_centroid_accuracy_of_groups_apart_and_of_noise():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [10, 30, 5])
    apart = rng.normal(size=(45, 4)) + 20 * np.eye(4)[labels]
    assert nearest_centroid(apart, labels) == 1
    noise = [nearest_centroid(rng.normal(size=(45, 4)), labels) for _ in range(200)]
    assert np.mean(noise) == pytest.approx(1 / 3, abs=0.03)


def test_own_centroid_is_made_without_the_utterance():
    # With it, 0 would lie at distance 2 from its own and 2.9 from the other: right.
    joint = np.array([[0.0], [4.0], [2.9], [2.9]])
    assert nearest_centroid(joint, np.array([0, 0, 1, 1])) == pytest.approx((0 + 1) / 2)
    assert np.isnan(nearest_centroid(joint, np.array([0, 0, 0, 0])))


def test_cka_is_one_up_to_rotation_and_small_for_strangers():
    rng = np.random.default_rng(1)
    joint = rng.normal(size=(300, 5))
    turned = 3 * joint @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 7
    assert linear_cka(joint, turned) == pytest.approx(1)
    assert linear_cka(joint, rng.normal(size=(300, 5))) < 0.1
    assert np.isnan(linear_cka(joint, np.ones((300, 5))))


def test_complete_input_is_its_own_reference_and_one_class_has_no_silhouette():
    rng = np.random.default_rng(2)
    joint, labels = rng.normal(size=(20, 3)), np.arange(20) % 2
    assert separation(joint, labels, joint).cka == pytest.approx(1)
    assert np.isnan(separation(joint, 0 * labels, joint).silhouette)


def test_same_seed_gives_the_same_points_of_the_same_utterances(tiny, opened):
    plain = OpenedRun(tiny.plain, tiny.runtime)
    rates = [0.1, 0.5]
    found = panels([opened, plain], "test", "rmfm", rates, FEW)
    again = panels([opened, plain], "test", "rmfm", rates, FEW)
    assert [(each.run_id, each.condition.rate) for each in found] == [
        (tiny.full.run_id, 0.1), (tiny.full.run_id, 0.5),
        (tiny.plain.run_id, 0.1), (tiny.plain.run_id, 0.5),
    ]  # fmt: skip
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.points_N2, other.points_N2)
        np.testing.assert_array_equal(one.labels_N, found[0].labels_N)
        assert one.points_N2.shape == (10, 2)
    seeded = panels([opened], "test", "rmfm", [0.1], Projection(points=10, perplexity=3, seed=5))
    assert not np.allclose(seeded[0].points_N2, found[0].points_N2)
    assert seeded[0].separation == found[0].separation
    with mpl.rc_context(STYLE):
        names = [f"run {run.folder.run_id}, {distillation(run)}" for run in (opened, plain)]
        figure = draw_embedding(found, names, "three_class", ["tiny/aligned-iid", "t-SNE"])
        assert outside(figure) == []
        assert overlapping(figure) == []
    assert names[0].endswith("self-distillation: alpha 0.5, beta 0.5, gamma 0.5")
    assert names[1].endswith("without self-distillation")


def test_what_cannot_be_shown_is_refused(tiny, opened, monkeypatch):
    with pytest.raises(UsageError, match="below the number of points, got 30 with 12 points"):
        panels([opened], "test", "", [0.1], Projection())
    with pytest.raises(UsageError, match="--points must be at least 4, got 3"):
        Projection(points=3)
    with pytest.raises(UsageError, match="--perplexity must be above 0, got 0"):
        Projection(perplexity=0)
    late = OpenedRun(tiny.late, tiny.runtime)
    with pytest.raises(UsageError, match="must be of one corpus and task"):
        panels([opened, late], "test", "", [0.1], FEW)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(CiderError, match=r"pip install 'cider-platform\[figures\]'"):
        panels([opened], "test", "", [0.1], FEW)


def test_representation_of_complete_input_does_not_hang_on_the_protocol(opened):
    np.testing.assert_allclose(
        representations(opened, "valid", Condition("rmm", 0.0)),
        representations(opened, "valid", COMPLETE),
        atol=1e-6,
    )


def test_command_draws_and_prints_the_numbers(tiny, run_cli, tmp_path):
    call = ("draw", "representations", tiny.full.run_id, tiny.plain.run_id, *tiny.roots,
            "--out", tmp_path, "--rates", "0.3", "--points", "12", "--perplexity", "3")  # fmt: skip
    code, out, err = run_cli(*call, "--json")
    data = json.loads(out)["data"]
    assert (code, err) == (0, "")
    assert [each["run"] for each in data["found"]] == [tiny.full.run_id, tiny.plain.run_id]
    assert all(0 <= each["cka_with_complete"] <= 1 for each in data["found"])
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".svg"}
    code, out, _ = run_cli(*call)
    assert code == 0
    assert "centroid accuracy" in out
    code, _, err = run_cli(*call, "--rates", "0:1:0.1")
    assert code == 2
    assert "at most 4 rates, got 11" in " ".join(err.split())
