"""Evaluations on disk made without a model: rows and predictions as ``evaluate`` stores them."""

import numpy as np

from cider.data.seal import _NEEDED
from cider.training.evaluation import Predictions
from cider_platform.layout import write_json_atomic
from cider_platform.runs.conditions import evaluation_name
from cider_platform.runs.predictions import Answers, write_predictions


def store(folder, condition, scores_NC, labels_N, *, counterfactual_NC=None, tau=0.0, test=None,
          names="u"):  # fmt: skip
    """Freeze a made-up run and store one evaluation of it.

    Args:
        folder: the run's folder.
        condition: protocol, rate and kept set.
        scores_NC: log-probabilities of the test split.
        labels_N: its labels.
        counterfactual_NC: log-probabilities of the counterfactual text, if there are any.
        tau: as if chosen on validation.
        test: test metrics of the row.
        names: beginning of the utterances' ids.
    """
    write_json_atomic(folder.frozen, dict.fromkeys(_NEEDED, "made up"))
    ids = [f"{names}{number}" for number in range(len(labels_N))]
    answers = Answers(ids, labels_N, Predictions(np.asarray(scores_NC), counterfactual_NC))
    name = evaluation_name(condition)
    path = folder.predictions_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(path, condition, {"valid": answers, "test": answers}, {})
    row = {"protocol": condition.protocol, "rate": condition.rate, "kept": condition.kept,
           "tau": tau, "test": test or {}}  # fmt: skip
    write_json_atomic(folder.evaluation_file(name), row)
