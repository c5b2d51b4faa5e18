"""How words go with labels in the training and the test split of corpora: what OOD changes.

The measure is ``cider.data.word_shift``'s, by which ``data split-ood`` makes test splits. Test
labels are read by leave of a frozen run of each corpus.

Shapes: N utterances, W words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.data.word_shift import MIN_COUNT, build_word_table, label_distance
from cider.errors import NothingMatchedError
from cider.spec import SPLITS
from cider_platform.explaining.words import Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider_platform.explaining.opened import OpenedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """Words of one corpus and the labels they go with."""

    corpus: str
    run_id: str
    """The run by whose leave test labels were read, and whose bias words are marked."""
    synthetic: bool
    token_W: np.ndarray
    """Token ids of the words that at least ``MIN_COUNT`` utterances of both splits contain that are
    not neutral."""
    train_W: np.ndarray
    """Share of positive among the training utterances with the word that are not neutral."""
    test_W: np.ndarray
    """The same of the test split."""
    count_W: np.ndarray
    """Utterances of the test split it is the share of."""
    is_bias_W: np.ndarray
    """True for the run's bias words."""
    shift: float
    """Mean |train - test| over the words."""
    chance: float
    """What random sets of the two splits' sizes give."""
    common_shift: float
    """The shift over the first corpus's words; a word too rare here counts as 0."""
    label_distance: float
    """Total variation distance between the class distributions of training and test."""
    resplit: dict[str, Any] | None
    """The report of the re-partition that made the corpus, if one did."""
    vocabulary: Vocabulary


def associations(runs: Sequence[OpenedRun], seed: int = 0) -> list[Association]:
    """Return one association per distinct corpus of some runs, in their order.

    Args:
        runs: frozen runs.
        seed: of the random sets that chance is measured with.

    Raises:
        NothingMatchedError: if a corpus has no word that is frequent enough.
    """
    found: list[Association] = []
    seen: set[str] = set()
    for opened in runs:
        content = opened.store.manifest.content_sha256
        if content in seen:
            continue
        seen.add(content)
        found.append(_association(opened, found[0] if found else None, seed))
    return found


def _association(opened: OpenedRun, first: Association | None, seed: int) -> Association:
    views = [opened.store.split(split) for split in SPLITS]
    labels_N = np.concatenate([opened.polarity(split) for split in SPLITS])
    split_N = np.repeat(np.arange(len(SPLITS)), [len(view) for view in views])
    train_N, test_N = (split_N == SPLITS.index(split) for split in ("train", "test"))
    special = set(opened.store.manifest.tokenizer.special_ids.values())
    token_ids = [view.token_ids(row) for view in views for row in range(len(view))]
    table = build_word_table(token_ids, labels_N, special, train_N, test_N)
    if not table.num_words:
        raise NothingMatchedError(
            f"{opened.store.manifest.key} is too small to show: no word is in {MIN_COUNT} training "
            f"and {MIN_COUNT} test utterances that are not neutral"
        )
    (train_total_W, train_positive_W), (test_total_W, test_positive_W) = (
        table.counts(member_N) for member_N in (train_N, test_N)
    )
    train_W, test_W = train_positive_W / train_total_W, test_positive_W / test_total_W
    rng = np.random.default_rng(seed)
    chance = table.chance_shift(int(train_N.sum()), int(test_N.sum()), rng)
    apart_W = np.abs(train_W - test_W)
    listed = table.token_W if first is None else first.token_W
    generator = opened.store.manifest.generator or {}
    return Association(
        corpus=str(opened.store.manifest.key),
        run_id=opened.folder.run_id,
        synthetic=opened.store.manifest.synthetic,
        token_W=table.token_W,
        train_W=train_W,
        test_W=test_W,
        count_W=test_total_W,
        is_bias_W=np.isin(table.token_W, opened.run.statistics.bias_words.ids),
        shift=table.shift(train_N, test_N),
        chance=chance,
        common_shift=float(apart_W[np.isin(table.token_W, listed)].sum() / len(listed)),
        label_distance=label_distance(train_N, test_N, table.stratum_N),
        resplit=generator.get("report") if generator.get("kind") == "split_ood" else None,
        vocabulary=vocabulary_of(opened.store, opened.spec.text_encoder.source),
    )


def as_json(found: Association) -> dict[str, Any]:
    """Return an association as JSON values, its words by how far they shift."""
    order = np.argsort(-np.abs(found.train_W - found.test_W), kind="stable")
    return {
        "corpus": found.corpus,
        "run": found.run_id,
        "synthetic": found.synthetic,
        "word_shift_train_test": found.shift,
        "chance_shift_train_test": found.chance,
        "word_shift_of_the_first_corpus_words": found.common_shift,
        "label_distance_train_test": found.label_distance,
        "resplit": found.resplit,
        "vocabulary": found.vocabulary.origin,
        "words": [
            {
                "token_id": int(found.token_W[word]),
                "token": found.vocabulary.word(int(found.token_W[word])),
                "positive_train": float(found.train_W[word]),
                "positive_test": float(found.test_W[word]),
                "test_utterances": int(found.count_W[word]),
                "bias_word": bool(found.is_bias_W[word]),
            }
            for word in order
        ],
    }
