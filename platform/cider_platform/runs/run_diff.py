"""Two runs beside each other: what was asked for differently, what came out, who answered what.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cider.errors import CiderError
from cider.spec import RunSpec
from cider_platform.layout import read_json
from cider_platform.results import evaluations
from cider_platform.runs.conditions import evaluation_name
from cider_platform.runs.predictions import Stored, read_predictions, stored_conditions
from cider_platform.runs.provenance import sessions_of
from cider_platform.tables import flat

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from cider.condition import Condition
    from cider_platform.results import RunRecord

Row = dict[str, Any]
NUMBERS = ("score", "epoch", "epochs", "tau", "parameters", "seconds")


def diff_runs(first: RunRecord, second: RunRecord) -> dict[str, Any]:
    """Return everything in which two runs differ, and their numbers side by side.

    Returns:
        ``spec`` and ``origin``: fields that differ, as ``{"field", "first", "second"}``, ``origin``
        being code, libraries, hardware and corpus of the last session of each; ``numbers``: the
        results, and the sealed-test metrics of conditions that both were evaluated under, with the
        ``difference`` second - first; ``agreement``: per condition whose predictions both have,
        how many test utterances both, one or neither answered right.
    """
    return {
        "runs": [first.run_id, second.run_id],
        "spec": _differing(first.spec, second.spec),
        "origin": _differing(_origin(first), _origin(second)),
        "numbers": [*_results(first, second), *_tests(first, second)],
        "agreement": [
            agreement(first, second, condition)
            for condition in stored_conditions(first.folder)
            if second.folder.predictions_file(evaluation_name(condition)).is_file()
        ],
    }


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    left, right = dict(flat(first)), dict(flat(second))
    return [
        {"field": name, "first": left.get(name), "second": right.get(name)}
        for name in dict.fromkeys([*left, *right])
        if left.get(name) != right.get(name)
    ]


def _origin(record: RunRecord) -> dict[str, Any]:
    sessions = sessions_of(record.folder)
    if not sessions:
        return {}
    names = ("git", "code_sha256", "versions", "hardware", "corpus")
    # A run outside of a git checkout has None where another one has three values.
    return {name: sessions[-1][name] or {} for name in names}


def _results(first: RunRecord, second: RunRecord) -> list[Row]:
    return [
        _pair(name, first.result.get(name), second.result.get(name))
        for name in NUMBERS
        if name in first.result or name in second.result
    ]


def _tests(first: RunRecord, second: RunRecord) -> list[Row]:
    right = {_condition(row): row for row in evaluations(second)}
    return [
        _pair(f"test {name} {condition}", value, right[condition]["test"].get(name))
        for condition, row in ((_condition(row), row) for row in evaluations(first))
        if condition in right
        for name, value in row["test"].items()
    ]


def _condition(row: Mapping[str, Any]) -> str:
    return f"{row['protocol']} {row['kept'] or format(row['rate'], 'g')}"


def _pair(name: str, first: float | None, second: float | None) -> Row:
    difference = None if first is None or second is None else second - first
    return {"number": name, "first": first, "second": second, "difference": difference}


def agreement(first: RunRecord, second: RunRecord, condition: Condition) -> Row:
    """Return how two runs answered the same test utterances under one condition.

    Each is corrected with the tau of its own evaluation. ``same_masks`` is False where they saw
    other parts of the utterances, as runs of two seeds do. Where they are of other utterances or
    classes, ``utterances`` is 0 and ``why`` says so.
    """
    name = str(condition)
    stored = [read_predictions(each.folder, condition) for each in (first, second)]
    left, right = (each.test for each in stored)
    if left.ids != right.ids or (left.labels_N != right.labels_N).any():
        why = "the runs were tested on other utterances, or on other classes of them"
        return {"condition": name, "utterances": 0, "why": why}
    answer_N, other_N = (
        _answers(each, found) for each, found in zip((first, second), stored, strict=True)
    )
    is_right_N, other_is_right_N = answer_N == left.labels_N, other_N == left.labels_N
    return {
        "condition": name,
        "utterances": len(left.ids),
        "same_masks": stored[0].masks["test"] == stored[1].masks["test"],
        "same_answer": int((answer_N == other_N).sum()),
        "both_right": int((is_right_N & other_is_right_N).sum()),
        "first_right": int((is_right_N & ~other_is_right_N).sum()),
        "second_right": int((~is_right_N & other_is_right_N).sum()),
        "neither_right": int((~is_right_N & ~other_is_right_N).sum()),
    }


def _answers(record: RunRecord, stored: Stored) -> np.ndarray:
    """Return the predicted class of every test utterance, int64 (N,)."""
    path = record.folder.evaluation_file(evaluation_name(stored.condition))
    if not path.is_file():
        raise CiderError(
            f"run {record.run_id} has predictions under {stored.condition}, but no {path.name}; "
            "evaluate it again"
        )
    space = RunSpec.from_dict(record.spec).maci.counterfactual_space
    scores_NC = stored.test.predictions.scores(read_json(path)["tau"], space)
    answers_N: np.ndarray = scores_NC.argmax(axis=1)
    return answers_N
