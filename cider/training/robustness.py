"""Predictions of a split under many missing conditions, in one pass over its utterances.

Each batch is read once. Its masks are drawn once per protocol and thresholded at every rate. Under
many conditions an utterance often looks the same: rate 0 of all protocols is the complete view,
rate 1 keeps nothing, rmm has as many views as smm, and neighbouring rates of a short utterance drop
the same words. So the *distinct* views of a batch, factual and counterfactual, become the rows of
what the model reads, and every distinct text is encoded once.

Where the model promises to read no padding (``Backbone.reads_padding``), utterances are taken in
the order of their lengths and every pass is cut to its own longest sequences. Otherwise batches are
those of an evaluation of one condition, padded as far. Predictions are those of
``Predictor.predict`` either way, up to the rounding of sums of other sizes.

Shapes: M conditions, K kinds of text (factual, counterfactual), N utterances, B batch, R rows of a
pass, X distinct texts, T text steps, S frames, C classes, D bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cider.data.batch import View
from cider.missing import EvaluationMasks
from cider.modality import PerModality
from cider.training.evaluation import Masks, Predictions, as_bool
from cider.views import counterfactual_text, incomplete_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import BoolTensor

    from cider.condition import Condition
    from cider.data.batch import Batch
    from cider.data.loader import BatchSource
    from cider.spec import MissingConfig
    from cider.training.evaluation import Predictor

MEMORY_MIB = 512
"""Default for what the rows of one pass may hold."""

_DIGEST_BYTES = 8

_FLOATS_PER_TEXT_FEATURE = 14
"""Assumed per token and encoder feature: a layer's input, queries, keys, values, reads, its four
times wider hidden layer before and after the activation, and what is kept of the layer before."""

_FLOATS_PER_TOKEN = 2048
"""Assumed per token beside the encoder: three fused steps, and what fusion layers keep of them."""

_FLOATS_PER_FRAME = 256
"""Assumed per frame of audio or vision beside its features: projections, keys, values, weights."""


class SplitMasks:
    """Which positions are observed under each of several conditions, for one split.

    Args:
        source: the split.
        conditions: the conditions.
        missing: where masks come from.
        seed: the run's seed.
    """

    def __init__(
        self,
        source: BatchSource,
        conditions: Sequence[Condition],
        missing: MissingConfig,
        seed: int,
    ) -> None:
        self.source = source
        self.conditions = list(conditions)
        self.seed = seed
        self._released = [
            Masks(source, condition, missing, seed).split_masks for condition in conditions
        ]

    def of(self, batch: Batch) -> PerModality[np.ndarray]:
        """Return bool (M, B, T) per modality, True = observed."""
        widths = batch.complete.valid.map(lambda valid_BT: valid_BT.shape[1])
        lengths = self.source.split.lengths.map(lambda lengths_N: lengths_N[batch.index_B])
        drawn: dict[tuple[str, str], EvaluationMasks] = {}
        found = []
        for condition, split_masks in zip(self.conditions, self._released, strict=True):
            if split_masks is not None:
                found.append(
                    split_masks.zip_map(
                        widths, lambda mask_NT, width: mask_NT[batch.index_B, :width]
                    )
                )
                continue
            key = (condition.protocol, condition.kept)
            if key not in drawn:
                drawn[key] = EvaluationMasks(
                    condition.protocol,
                    lengths,
                    batch.index_B,
                    seed=self.seed,
                    pad_to=widths,
                    kept=condition.kept,
                )
            found.append(drawn[key].at(condition.rate))
        return PerModality(*map(np.stack, zip(*found, strict=True)))


@dataclass(frozen=True, slots=True)
class SplitPredictions:
    """What a model says of a split under every condition, and what it saw of it."""

    predictions: list[Predictions]
    """One per condition."""
    mask_hashes: list[str]
    """One per condition: 16 hexadecimal digits over the masks of all utterances in stored order,
    whatever the batches and the padding; equal for models that met the same masks."""
    rows: int
    """Distinct views that the model read."""
    texts: int
    """Distinct texts that the encoder read."""
    tokens: int
    """Tokens of those texts, padding left out."""


@torch.no_grad()
def predict_conditions(
    predictor: Predictor,
    source: BatchSource,
    masks: SplitMasks,
    *,
    memory_mib: int = MEMORY_MIB,
    on_batch: Callable[[int, int], None] | None = None,
) -> SplitPredictions:
    """Return a model's predictions of a split under every condition.

    Whoever calls it reads the whole split: workers do not share it.

    Args:
        predictor: the model and how to run it.
        source: the split.
        masks: the conditions.
        memory_mib: about what the rows of one pass may hold, in MiB; at least one row is read.
            Changes nothing but the rounding of the last digits.
        on_batch: called with the utterances done and their number after every batch.
    """
    model = predictor.model
    trims = not model.backbone.reads_padding
    num_kinds = 1 if predictor.kept_words is None else 2
    was_training = model.training
    model.eval()
    digests_MND = np.zeros((len(masks.conditions), len(source), _DIGEST_BYTES), dtype=np.uint8)
    table_KMNC: np.ndarray | None = None
    rows = texts = tokens = done = 0
    order_N = _by_length(source) if trims else None
    for batch in source.batches(predictor.batch_size, order_N):
        views = _distinct(predictor, batch, masks.of(batch))
        digests_MND[:, batch.index_B] = views.digest_MBD
        complete = batch.to(predictor.device).complete
        log_probs_RC = np.concatenate(
            [
                _read(predictor, batch, complete, views, part, trims=trims)
                for part in _passes(predictor, batch, views, memory_mib)
            ]
        )
        if table_KMNC is None:
            shape = (num_kinds, len(masks.conditions), len(source), log_probs_RC.shape[1])
            table_KMNC = np.empty(shape)
        table_KMNC[:, :, batch.index_B] = log_probs_RC[views.row_KMB]
        rows += len(views.sample_R)
        texts += len(views.text_XT)
        tokens += int(batch.complete.valid.text.sum(dim=1).numpy()[views.sample_X].sum())
        done += len(batch.index_B)
        if on_batch is not None:
            on_batch(done, len(source))
    model.train(was_training)
    assert table_KMNC is not None, "a split has at least one utterance"
    return SplitPredictions(
        [
            Predictions(table_KMNC[0, number], table_KMNC[1, number] if num_kinds > 1 else None)
            for number in range(len(masks.conditions))
        ],
        [hashlib.sha256(digest_ND.tobytes()).hexdigest()[:16] for digest_ND in digests_MND],
        rows,
        texts,
        tokens,
    )


def _by_length(source: BatchSource) -> np.ndarray:
    """Return the row numbers by number of tokens, those alike by number of frames."""
    lengths = source.split.lengths
    return np.lexsort((lengths.audio + lengths.vision, lengths.text))


@dataclass(frozen=True, slots=True)
class _Views:
    """The distinct views of a batch, those of one utterance next to each other."""

    sample_R: np.ndarray
    """Utterance of the batch."""
    text_R: np.ndarray
    """Which distinct text."""
    condition_R: np.ndarray
    """A condition whose audio and vision it has."""
    text_XT: np.ndarray
    """int64 token ids of the distinct texts."""
    sample_X: np.ndarray
    """Utterance of the batch that each distinct text is a form of."""
    row_KMB: np.ndarray
    """Row of every utterance under every condition, factual and counterfactual."""
    observed: PerModality[np.ndarray]
    """The masks, bool (M, B, T) per modality."""
    digest_MBD: np.ndarray
    """Hash of the masks of every utterance, 8 bytes."""


def _distinct(predictor: Predictor, batch: Batch, observed: PerModality[np.ndarray]) -> _Views:
    """Return the distinct views of a batch under some conditions."""
    texts_KMBT = _texts(predictor, batch, observed)
    num_kinds, num_conditions, num_samples, _ = texts_KMBT.shape
    packed = observed.map(lambda mask_MBT: np.packbits(mask_MBT, axis=2))
    row_KMB = np.empty((num_kinds, num_conditions, num_samples), dtype=np.int64)
    digest_MBD = np.empty((num_conditions, num_samples, _DIGEST_BYTES), dtype=np.uint8)
    text_numbers: dict[tuple[int, bytes], int] = {}
    row_numbers: dict[tuple[int, bytes], int] = {}
    first: list[tuple[int, int, int]] = []
    text_XT: list[np.ndarray] = []
    sample_X: list[int] = []
    for sample in range(num_samples):
        for number in range(num_conditions):
            text, audio, vision = (mask_MBP[number, sample].tobytes() for mask_MBP in packed)
            digest_MBD[number, sample] = _digest(text, audio, vision)
            frames = audio + vision
            for kind in range(num_kinds):
                text_T = texts_KMBT[kind, number, sample]
                text_number = text_numbers.setdefault((sample, text_T.tobytes()), len(text_XT))
                if text_number == len(text_XT):
                    text_XT.append(text_T)
                    sample_X.append(sample)
                row = row_numbers.setdefault((text_number, frames), len(first))
                if row == len(first):
                    first.append((sample, text_number, number))
                row_KMB[kind, number, sample] = row
    sample_R, text_R, condition_R = np.array(first).T
    return _Views(
        sample_R,
        text_R,
        condition_R,
        np.stack(text_XT),
        np.array(sample_X),
        row_KMB,
        observed,
        digest_MBD,
    )


def _texts(predictor: Predictor, batch: Batch, observed: PerModality[np.ndarray]) -> np.ndarray:
    """Return the token ids int64 (K, M, B, T): factual, and counterfactual if asked for."""
    view, ids = batch.complete, predictor.token_ids
    factual_MBT = incomplete_text(
        view.token_ids_BT, view.valid.text, torch.from_numpy(observed.text), ids
    )
    if predictor.kept_words is None:
        return factual_MBT.unsqueeze(0).numpy()
    counterfactual_MBT = counterfactual_text(factual_MBT, predictor.kept_words.cpu(), ids)
    return torch.stack([factual_MBT, counterfactual_MBT]).numpy()


def _digest(*packed: bytes) -> np.ndarray:
    """Return 8 bytes over an utterance's packed masks; padding, which is zeros, does not count."""
    hashed = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for mask in packed:
        content = mask.rstrip(b"\0")
        hashed.update(len(content).to_bytes(4, "little") + content)
    return np.frombuffer(hashed.digest(), dtype=np.uint8)


def _passes(predictor: Predictor, batch: Batch, views: _Views, memory_mib: int) -> Iterator[slice]:
    """Yield which rows are read together, by their longest utterance and the memory."""
    view = batch.complete
    text = view.token_ids_BT.shape[1] * (
        predictor.model.text_encoder.width * _FLOATS_PER_TEXT_FEATURE + _FLOATS_PER_TOKEN
    )
    frames = sum(
        frames_BSF.shape[1] * (frames_BSF.shape[2] + _FLOATS_PER_FRAME)
        for frames_BSF in (view.audio_BSF, view.vision_BSF)
    )
    row_bytes = 4 * (text + frames)
    size = max(1, memory_mib * 2**20 // row_bytes)
    num_rows = len(views.sample_R)
    # Passes of equal size: a small last one would cost almost as much time as a whole one.
    size = -(-num_rows // -(-num_rows // size))
    for start in range(0, num_rows, size):
        yield slice(start, start + size)


def _read(
    predictor: Predictor,
    batch: Batch,
    complete: View,
    views: _Views,
    part: slice,
    *,
    trims: bool,
) -> np.ndarray:
    """Return the log-probabilities float64 (R, C) of some rows.

    Args:
        predictor: the model.
        batch: the batch, on the CPU.
        complete: its complete view, on the model's device.
        views: its distinct views.
        part: which of them.
        trims: cut padding that no row of the part needs.
    """
    device, model = predictor.device, predictor.model
    sample_R = views.sample_R[part]
    samples = np.unique(sample_R)
    steps = complete.valid.map(lambda valid_BT: valid_BT.shape[1])
    if trims:
        steps = batch.complete.valid.map(
            lambda valid_BT: max(1, int(valid_BT[samples].sum(dim=1).max()))
        )
    row_R = torch.from_numpy(sample_R).to(device)
    valid = complete.valid.zip_map(steps, lambda valid_BT, count: valid_BT[:, :count])

    texts_X, text_R = np.unique(views.text_R[part], return_inverse=True)
    tokens_XT = torch.from_numpy(views.text_XT[texts_X][:, : steps.text]).to(device)
    of_sample_X = torch.from_numpy(views.sample_X[texts_X]).to(device)
    valid_XT: BoolTensor = valid.text[of_sample_X]  # type: ignore[assignment]
    (states_XTF,) = model.text_encoder.encode([tokens_XT], [valid_XT], padding=not trims)

    repeat_R = torch.from_numpy(text_R).to(device)
    observed = views.observed.zip_map(
        steps,
        lambda mask_MBT, count: as_bool(mask_MBT[views.condition_R[part], sample_R, :count]).to(
            device
        ),
    )
    view = View(
        tokens_XT[repeat_R],
        complete.audio_BSF[:, : steps.audio][row_R] * observed.audio.unsqueeze(-1),
        complete.vision_BSF[:, : steps.vision][row_R] * observed.vision.unsqueeze(-1),
        valid.map(lambda valid_BT: valid_BT[row_R]),  # type: ignore[arg-type, return-value]
        # Where the utterance stands in the batches of an evaluation of one condition.
        row_B=torch.from_numpy(batch.index_B[sample_R] % predictor.batch_size).to(device),
    )
    log_probs_RC: np.ndarray = model.log_probs(view, states_XTF[repeat_R]).double().cpu().numpy()
    return log_probs_RC
