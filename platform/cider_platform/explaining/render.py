"""A correction as plain text: one block per utterance that explains itself."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider_platform.explaining.correction import Correction, Step, Word

_WIDTH = 100
_INDENT = "  "
MEANINGS = {
    "prior": "shares of the classes, without looking at the utterance",
    "words": "naive Bayes over the words the model is shown: no model, no order, no sound",
    "without_mcm": "another run, trained without the causal module",
    "training_priors": "this model as in training: label bias still in it",
    "factual": "what the model says before the counterfactual is taken off",
    "counterfactual": "what it says of bias words, sound and picture alone",
    "corrected": "Eq. 25; percent as predict writes them",
}
"""Name of every step there is, in order -> what it means, below the table."""


def render(correction: Correction, heading: str) -> str:
    """Return a correction as lines of text.

    Args:
        correction: what is told.
        heading: of which run.
    """
    sample, label = correction.sample, correction.classes[correction.label]
    lines = [f"{sample.id} ({sample.split}) of {heading}"]
    lines += _field("missing", _missing(correction))
    lines += _field("said", correction.transcript)
    lines += _field("read", correction.texts["read"])
    if "counterfactual" in correction.texts:
        lines += _field("counterfactual", correction.texts["counterfactual"])
    lines += _field("true class", label)
    lines += ["", *_table(_step_rows(correction)), ""]
    lines += [f"{_INDENT}{number}  {MEANINGS[step.name]}"
              for number, step in enumerate(correction.steps, start=1)]  # fmt: skip
    lines += ["", *_field("verdict", _verdict(correction))]
    lines += _field("tau", f"{correction.tau.value:g}, {correction.tau.origin}")
    return "\n".join([*lines, "", *_words(correction)])


def _field(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        f"{name:<15}{text}", _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT + " " * 15
    )


def _missing(correction: Correction) -> str:
    parts = ", ".join(
        f"{kept} of {total} {name} steps" for name, (kept, total) in correction.observed.items()
    )
    seed = f"; masks of seed {correction.mask_seed}"
    if correction.condition.protocol == "none":
        return f"nothing: {parts}"
    return f"{correction.condition}: observed {parts}{seed}"


def _step_rows(correction: Correction) -> list[list[str]]:
    rows = [["", *correction.classes, "", *(f"log {name}" for name in correction.classes), "says"]]
    for number, step in enumerate(correction.steps, start=1):
        shares = [f"{100 * share:.1f} %" for share in step.probabilities_C]
        logs = [f"{score:.3f}" if np.isfinite(score) else "never" for score in step.scores_C]
        says = correction.classes[step.answer]
        right = "right" if step.answer == correction.label else "wrong"
        rows.append([f"{number}  {step.says}", *shares, "", *logs, f"{says} ({right})"])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows in columns: the first and the last to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        (
            _INDENT
            + "  ".join(
                cell.ljust(width) if column in (0, last) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        ).rstrip()
        for row in rows
    ]


def _verdict(correction: Correction) -> str:
    """Return what the counterfactual changed, as a sentence."""
    factual, corrected = correction.step("factual"), correction.step("corrected")
    assert factual is not None
    names, label = correction.classes, correction.label
    before = f"{names[factual.answer]} ({_right(factual, label)})"
    if corrected is None:
        return f"{before}; this run subtracts no counterfactual prediction"
    if corrected.answer == factual.answer:
        return f"{before}, and the correction leaves it so"
    return f"{before}, corrected to {names[corrected.answer]} ({_right(corrected, label)})"


def _right(step: Step, label: int) -> str:
    return "right" if step.answer == label else "wrong"


def _words(correction: Correction) -> list[str]:
    if not correction.words:
        return [f"{_INDENT}No word is left to the model."]
    kept = sum(word.is_bias for word in correction.words)
    note = (
        f"Words shown to the model, with the number of training utterances of each class that "
        f"contain them; {kept} of {len(correction.words)} stay in the counterfactual text, being "
        f"among the run's {correction.num_bias_words} bias words; {correction.vocabulary.origin}."
    )
    rows = [["word", *correction.classes, "CV", "counterfactual"]]
    rows += [_word(word) for word in correction.words]
    told = textwrap.wrap(note, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return [*told, *_table(rows)]


def _word(word: Word) -> list[str]:
    cv = "" if word.cv is None else f"{word.cv:.2f}"
    kept = "stays" if word.is_bias else "becomes [MASK]"
    return [word.token, *map(str, word.utterances_C.tolist()), cv, kept]
