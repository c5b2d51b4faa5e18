"""Generate a synthetic corpus into the feature store, on first use.

Every block of utterances has random generators of its own, seeded by corpus, distribution, split
and block, so memory does not grow with the scale and the content is the same in any process.
Aligned and unaligned corpora share utterances, words and labels and differ in frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from cider.config import to_dict
from cider.data.schema import MANIFEST_FILE, StoreKey, read_manifest
from cider.data.synthetic.ceiling import best_accuracy
from cider.data.synthetic.facts import CORPORA
from cider.data.synthetic.model import CorpusModel
from cider.data.synthetic.name import parse_name
from cider.data.synthetic.parameters import Parameters
from cider.data.synthetic.text import NO_WORD
from cider.data.synthetic.vocabulary import BIAS_KINDS, VOCABULARY, WORDS
from cider.data.writer import StoreWriter
from cider.errors import StoreError, UsageError
from cider.spec import SPLITS, Alignment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cider.data.synthetic.name import SyntheticName
    from cider.spec import Distribution, Split

    Progress = Callable[[int, int], None]

GENERATOR_VERSION = 1
"""Raised whenever the same name would hold other content than before."""
BLOCK = 256
"""Utterances drawn at once."""
CEILING_SAMPLES = 40_000
"""Utterances over which the best accuracies are averaged: standard errors below 0.004."""
_DISTRIBUTIONS = ("iid", "ood")
# What a generator draws; words must not depend on how many frames were drawn.
_LABELS, _WORDS, _AUDIO, _VISION, _CEILING = range(5)


def ensure(
    root: Path,
    dataset: str,
    alignment: Alignment,
    distribution: Distribution,
    *,
    scale: float | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the folder of a synthetic corpus, generating it if the store does not hold it.

    Several processes may ask for the same corpus at once; each gets a complete one.

    Args:
        root: the store's root folder.
        dataset: a synthetic name; see ``cider.data.synthetic.name``.
        alignment: ``unaligned`` or ``aligned``.
        distribution: ``iid`` or ``ood``.
        scale: share of the real corpus's size in (0, 1]; the same as ``-x<scale>`` in the name.
        seed: the same as ``-s<seed>`` in the name.
        progress: called with utterances done and in all, after every block.

    Raises:
        UsageError: for a name, alignment, distribution or scale that does not exist.
        StoreError: if the store cannot be written.
    """
    name = parse_name(dataset, scale=scale, seed=seed)
    if distribution not in _DISTRIBUTIONS:
        raise UsageError(
            f"synthetic corpora have the distributions {', '.join(_DISTRIBUTIONS)}, "
            f"got {distribution!r}"
        )
    if alignment not in get_args(Alignment):
        raise UsageError(
            f"alignment must be one of {', '.join(get_args(Alignment))}, got {alignment!r}"
        )
    key = StoreKey(dataset=str(name), alignment=alignment, distribution=distribution)
    parameters = Parameters(validation_shift=name.validation_shift)
    if not _is_current(key.folder(root), parameters):
        _generate(root, key, name, parameters, progress)
    return key.folder(root)


def split_counts(name: SyntheticName) -> dict[Split, int]:
    """Return how many utterances each split has.

    Raises:
        UsageError: if the scale leaves a split empty.
    """
    real = CORPORA[name.corpus].counts
    counts = {split: round(n * name.scale) for split, n in zip(SPLITS, real, strict=True)}
    if min(counts.values()) < 1:
        raise UsageError(
            f"scale {name.scale:g} leaves a split of {name} without utterances; "
            f"the smallest useful scale is {1 / min(real):.4f}"
        )
    return counts


def _is_current(folder: Path, parameters: Parameters) -> bool:
    """Return whether the store holds what would be generated; anything else is made anew."""
    if not (folder / MANIFEST_FILE).exists():
        return False
    generator = read_manifest(folder).generator or {}
    made_by = (generator.get("version"), generator.get("parameters"))
    return made_by == (GENERATOR_VERSION, to_dict(parameters))


def _generate(
    root: Path,
    key: StoreKey,
    name: SyntheticName,
    parameters: Parameters,
    progress: Progress | None,
) -> None:
    model = CorpusModel(
        name.corpus,
        alignment=key.alignment,
        distribution=key.distribution,
        parameters=parameters,
    )
    counts = split_counts(name)
    streams = _Streams(name, key)
    folder = key.folder(root)
    writer = StoreWriter(
        root,
        key,
        tokenizer=VOCABULARY.tokenizer(),
        widths=model.facts.widths,
        max_lengths=model.max_lengths,
        source={"format": "generated", "file": "", "sha256": "", "bytes": 0},
        default_encoder="scratch",
        synthetic=True,
        generator=_description(model, name, streams),
        overwrite=folder.exists(),
    )
    try:
        with writer:
            done = 0
            for split, count in counts.items():
                for rows in _blocks(model, split, count, streams):
                    writer.add(split, *rows)
                    done += len(rows[0])
                    if progress is not None:
                        progress(done, sum(counts.values()))
            writer.finish()
    except StoreError:
        # Another process may have put the same corpus in place meanwhile.
        if not _is_current(folder, parameters):
            raise


class _Streams:
    """Random generators by what they draw."""

    def __init__(self, name: SyntheticName, key: StoreKey) -> None:
        self._corpus = (
            GENERATOR_VERSION,
            name.seed,
            list(CORPORA).index(name.corpus),
            _DISTRIBUTIONS.index(key.distribution),
        )
        self._alignment = get_args(Alignment).index(key.alignment)

    def generator(self, purpose: int, split: Split, block: int = 0) -> np.random.Generator:
        """Return the generator of one purpose in one block of one split."""
        alignment = self._alignment if purpose in (_AUDIO, _VISION) else 0
        place = (SPLITS.index(split), purpose, alignment, block)
        return np.random.default_rng([*self._corpus, *place])


def _blocks(
    model: CorpusModel, split: Split, count: int, streams: _Streams
) -> Iterator[
    tuple[list[str], list[str], list[np.ndarray], list[np.ndarray], list[np.ndarray], Any]
]:
    """Yield a split's rows as ``StoreWriter.add`` takes them."""
    labels_N = model.sample_labels(split, count, streams.generator(_LABELS, split))
    for block, start in enumerate(range(0, count, BLOCK)):
        own_N = labels_N[start : start + BLOCK]
        rng = streams.generator(_WORDS, split, block)
        words_N = model.sample_word_counts(len(own_N), rng)
        words_NT = model.splits[split].words.sample(own_N, words_N, rng)
        utterances = [row_T[row_T != NO_WORD] for row_T in words_NT]
        frames: dict[str, list[np.ndarray]] = {}
        for modality, purpose in (("audio", _AUDIO), ("vision", _VISION)):
            rng = streams.generator(purpose, split, block)
            frames_N = model.sample_frame_counts(modality, words_N, rng)
            frames[modality] = model.frames[modality].sample(own_N, frames_N, rng)
        yield (
            [f"{split}-{start + row:05d}" for row in range(len(own_N))],
            [VOCABULARY.text(words_T) for words_T in utterances],
            [VOCABULARY.token_ids(words_T) for words_T in utterances],
            frames["audio"],
            frames["vision"],
            model.grid_G[own_N].astype(np.float32),
        )


def _description(model: CorpusModel, name: SyntheticName, streams: _Streams) -> dict[str, Any]:
    """Return what the manifest says about how the corpus was made."""
    rng = streams.generator(_CEILING, "test")
    return {
        "version": GENERATOR_VERSION,
        "corpus": name.corpus,
        "scale": name.scale,
        "seed": name.seed,
        "parameters": to_dict(model.parameters),
        "association": {split: own.association for split, own in model.splits.items()},
        "label_prior": {
            split: own.prior_G.round(6).tolist() for split, own in model.splits.items()
        },
        "labels": model.grid_G.round(6).tolist(),
        "bias_words": {kind.name.lower(): list(WORDS[kind]) for kind in BIAS_KINDS},
        "best_accuracy": best_accuracy(model, samples=CEILING_SAMPLES, rng=rng),
    }
