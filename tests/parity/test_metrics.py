"""Metrics and the choice of tau against the published code's results."""

from __future__ import annotations

import pytest

from cider.counterfactual import choose_tau, subtract
from cider.metrics import METRICS

NAMES = {
    "Has0_acc_2": "has0_acc2",
    "Has0_F1_score": "has0_f1",
    "Non0_acc_2": "acc2",
    "Non0_F1_score": "f1",
    "Acc_3": "acc3",
    "F1_score_3": "f1_3",
    "Acc_7": "acc7",
    "F1_score_7": "f1_7",
}


def _inputs(recordings, recorded_metrics):
    names = ("log_prob", "counterfactual_log_prob", "labels")
    return [recordings.arrays[f"{recorded_metrics}/{name}"] for name in names]


def test_metrics_without_subtraction_equal_recorded_ones(recorded_metrics, recordings):
    log_probs_NC, counterfactual_NC, labels_N = _inputs(recordings, recorded_metrics)
    task = recorded_metrics.removeprefix("metrics/")
    expected = recordings.facts[f"metrics_{task}_tau0"]

    scores_NC = subtract(log_probs_NC, counterfactual_NC, 0.0, "log_probability")
    result = {name: METRICS[NAMES[name]](scores_NC, labels_N) for name in expected}

    assert result == pytest.approx(expected, abs=1e-6)


def test_best_metric_over_tau_equals_recorded_maximum(recorded_metrics, recordings):
    log_probs_NC, counterfactual_NC, labels_N = _inputs(recordings, recorded_metrics)
    task = recorded_metrics.removeprefix("metrics/")
    expected = recordings.facts[f"metrics_{task}_best_tau_on_same_data"]

    result = {
        name: choose_tau(
            [log_probs_NC], [counterfactual_NC], labels_N, NAMES[name], "log_probability"
        )[1]
        for name in expected
    }

    assert result == pytest.approx(expected, abs=1e-6)
