"""How MACI corrects one prediction, step by step (the paper's Fig. 9), for any utterance of a run.

The steps: what the training split's statistics say before any model, the prediction with the label
bias still in it, the factual prediction, the counterfactual one, and their difference (Eq. 25).

Shapes: C classes, T text steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cider.counterfactual import subtract
from cider.data.bias_words import special_ids
from cider.errors import UsageError
from cider.modules.intervention import CausalHead
from cider_platform.explaining.words import Vocabulary, WordCounts, vocabulary_of
from cider_platform.runs.prediction import CLASS_NAMES, probabilities
from cider_platform.tables import flat

if TYPE_CHECKING:
    from cider.condition import Condition
    from cider.data.batch import View
    from cider_platform.explaining.opened import OpenedRun, Sample, Tau


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the correction."""

    name: str
    """Key in the JSON document."""
    says: str
    """The same for people."""
    scores_C: np.ndarray
    """float64 log-probabilities; of the corrected step Eq. 25's scores in the run's space."""
    probabilities_C: np.ndarray
    """float64, sums to 1; of the corrected step the scores as ``predict`` writes them."""

    @property
    def answer(self) -> int:
        """The class with the largest score."""
        return int(self.scores_C.argmax())


@dataclass(frozen=True, slots=True)
class Word:
    """A distinct word of an utterance that the model was shown."""

    token_id: int
    token: str
    is_bias: bool
    """Kept in the counterfactual text."""
    utterances_C: np.ndarray
    """Training utterances of each class that contain it."""
    count: int | None
    """How often it occurs in the training split; of bias words only."""
    cv: float | None
    """Coefficient of variation of its counts over classes (Eq. 26); of bias words only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Everything that is said of one utterance under one condition."""

    sample: Sample
    condition: Condition
    mask_seed: int
    classes: tuple[str, ...]
    label: int
    transcript: str
    texts: dict[str, str]
    """``complete``, ``read`` (what is missing is [UNK]) and ``counterfactual`` as lines."""
    observed: dict[str, tuple[int, int]]
    """Modality -> steps that were observed, and steps there are."""
    tau: Tau
    steps: list[Step]
    words: list[Word]
    num_bias_words: int
    vocabulary: Vocabulary

    def step(self, name: str) -> Step | None:
        """Return a step by name."""
        return next((each for each in self.steps if each.name == name), None)


class Corrector:
    """Makes corrections of a run's utterances; counts the training split's words once.

    Args:
        opened: the run.
        without_mcm: a run that is the same without MCM, for the step it adds.

    Raises:
        UsageError: if the second run is not one without MCM on the same corpus and task.
    """

    def __init__(self, opened: OpenedRun, without_mcm: OpenedRun | None = None) -> None:
        self.opened = opened
        self.without_mcm = without_mcm
        self.differs = [] if without_mcm is None else _check_pair(opened, without_mcm)
        self.classes: tuple[str, ...] = CLASS_NAMES[opened.spec.data.task]
        manifest = opened.store.manifest
        self.vocabulary = vocabulary_of(opened.store, opened.spec.text_encoder.source)
        self.counts = WordCounts(
            opened.source("train"), len(self.classes), manifest.tokenizer.vocab_size
        )

    @torch.no_grad()
    def correct(
        self, sample: Sample, condition: Condition, tau: Tau, seed: int | None = None
    ) -> Correction:
        """Return the correction of an utterance.

        Args:
            sample: the utterance.
            condition: what is missing.
            tau: from ``OpenedRun.tau`` under that condition.
            seed: of the masks; None: the run's.
        """
        opened = self.opened
        view, observed = opened.view(sample, condition, seed)
        counterfactual = opened.counterfactual(view)
        opened.run.model.eval()
        split = opened.store.split(sample.split)
        return Correction(
            sample=sample,
            condition=condition,
            mask_seed=opened.mask_seed(seed),
            classes=self.classes,
            label=opened.label(sample),
            transcript=split.texts[sample.row],
            texts=self._texts(sample, view, counterfactual),
            observed={
                name: (int(mask.sum()), len(mask))
                for name, mask in zip(("text", "audio", "vision"), observed, strict=True)
            },
            tau=tau,
            steps=self._steps(sample, condition, seed, view, counterfactual, tau),
            words=self._words(view),
            num_bias_words=len(opened.run.statistics.bias_words) if counterfactual else 0,
            vocabulary=self.vocabulary,
        )

    def _texts(self, sample: Sample, view: View, counterfactual: View | None) -> dict[str, str]:
        ids = {"complete": self.opened.store.split(sample.split).token_ids(sample.row)}
        for name, each in (("read", view), ("counterfactual", counterfactual)):
            if each is not None:
                ids[name] = each.token_ids_BT[each.valid.text].cpu().numpy()
        return {name: self.vocabulary.text(line[1:-1].tolist()) for name, line in ids.items()}

    def _steps(
        self,
        sample: Sample,
        condition: Condition,
        seed: int | None,
        view: View,
        counterfactual: View | None,
        tau: Tau,
    ) -> list[Step]:
        run, space = self.opened.run, self.opened.spec.maci.counterfactual_space
        with np.errstate(divide="ignore"):  # a class that the training split lacks
            prior_C = np.log(run.statistics.prior_C.astype(np.float64))
        found = [
            _step("prior", "classes of the training split", prior_C),
            _step("words", "words of the text, counted in training",
                  self.counts.log_probs(self._word_ids(view))),
        ]  # fmt: skip
        if self.without_mcm is not None:
            other, _ = self.without_mcm.view(sample, condition, seed)
            self.without_mcm.run.model.eval()
            log_probs = self.without_mcm.run.model(other).log_probs_BC
            found.append(_step("without_mcm", "model without MCM", _row(log_probs)))
        output = run.model(view)
        factual_C = _row(output.log_probs_BC)
        if isinstance(run.model.head, CausalHead):
            biased = run.model.head.with_training_priors(output.joint_BJ)
            found.append(_step("training_priors", "MCM with the training priors", _row(biased)))
            found.append(_step("factual", "MCM, priors alike: factual text", factual_C))
        else:
            found.append(_step("factual", "no MCM in this run: factual text", factual_C))
        if counterfactual is None:
            return found
        counterfactual_C = _row(run.model(counterfactual).log_probs_BC)
        found.append(_step("counterfactual", "counterfactual text", counterfactual_C))
        scores_1C = subtract(factual_C[None], counterfactual_C[None], tau.value, space)
        says = f"factual less {tau.value:g} x counterfactual"
        found.append(Step("corrected", says, scores_1C[0], probabilities(scores_1C, space)[0]))
        return found

    def _word_ids(self, view: View) -> list[int]:
        """Return the distinct words that a view shows, in the order of the text."""
        special = special_ids(self.opened.run.predictor.token_ids)
        ids = view.token_ids_BT[view.valid.text].tolist()
        return [each for each in dict.fromkeys(ids) if each not in special]

    def _words(self, view: View) -> list[Word]:
        bias = self.opened.run.statistics.bias_words
        place = {int(token_id): number for number, token_id in enumerate(bias.ids)}
        if self.opened.run.predictor.kept_words is None:
            place = {}
        return [
            Word(
                token_id=each,
                token=self.vocabulary.word(each),
                is_bias=each in place,
                utterances_C=self.counts.counts_WC[each],
                count=int(bias.counts[place[each]]) if each in place else None,
                cv=float(bias.cv[place[each]]) if each in place else None,
            )
            for each in self._word_ids(view)
        ]


def _row(log_probs_BC: torch.Tensor) -> np.ndarray:
    row_C: np.ndarray = log_probs_BC[0].double().cpu().numpy()
    return row_C


def _step(name: str, says: str, log_probs_C: np.ndarray) -> Step:
    return Step(name, says, log_probs_C, np.exp(log_probs_C))


def _check_pair(opened: OpenedRun, other: OpenedRun) -> list[str]:
    """Refuse a run that cannot be the one without MCM; return what else it differs in."""
    if other.spec.maci.mcm:
        raise UsageError(
            f"--without-mcm takes a run trained with maci.mcm=false, run {other.folder.run_id} has "
            "maci.mcm=true"
        )
    if other.spec.data != opened.spec.data:
        raise UsageError(
            f"--without-mcm takes a run of the same corpus and task, run {other.folder.run_id} is "
            f"of {other.store.manifest.key} ({other.spec.data.task})"
        )
    mine, theirs = dict(flat(opened.spec.to_dict())), dict(flat(other.spec.to_dict()))
    return sorted(
        name for name in {*mine, *theirs} - {"maci.mcm"} if mine.get(name) != theirs.get(name)
    )


def as_json(correction: Correction) -> dict[str, Any]:
    """Return a correction as JSON values; the log-probability of what never occurs is null."""
    classes = correction.classes
    sample, condition = correction.sample, correction.condition
    return {
        "id": sample.id,
        "split": sample.split,
        "condition": {
            "protocol": condition.protocol, "rate": condition.rate, "kept": condition.kept,
            "mask_seed": correction.mask_seed,
        },
        "classes": list(classes),
        "label": classes[correction.label],
        "transcript": correction.transcript,
        "texts": correction.texts,
        "observed": {
            name: {"steps": kept, "of": total}
            for name, (kept, total) in correction.observed.items()
        },
        "tau": correction.tau.value,
        "tau_origin": correction.tau.origin,
        "steps": [
            {
                "name": step.name,
                "says": step.says,
                "scores": [float(x) if np.isfinite(x) else None for x in step.scores_C],
                "probabilities": step.probabilities_C.tolist(),
                "answer": classes[step.answer],
                "right": step.answer == correction.label,
            }
            for step in correction.steps
        ],
        "words": [
            {
                "token_id": word.token_id,
                "token": word.token,
                "bias_word": word.is_bias,
                "training_utterances": word.utterances_C.tolist(),
                "training_count": word.count,
                "cv": word.cv,
            }
            for word in correction.words
        ],
        "bias_words_in_all": correction.num_bias_words,
        "vocabulary": correction.vocabulary.origin,
    }  # fmt: skip
