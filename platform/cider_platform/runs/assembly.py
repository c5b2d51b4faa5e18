"""The composition root: builds data sources, model and trainer from a spec. Nothing else does.

Shapes: N utterances, C classes, F feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cider.data.batch import TokenIds
from cider.data.bias_words import keep_table
from cider.data.labels import class_labels
from cider.data.loader import BatchSource
from cider.data.statistics import (
    TrainingStatistics,
    cached_statistics,
    class_means,
    statistics_key,
    training_statistics,
)
from cider.errors import UsageError
from cider.modality import PerModality
from cider.models.emotion import EmotionModel, build_head
from cider.models.interface import InputShapes
from cider.modules.text import SCRATCH, TextEncoder, build_text_encoder
from cider.modules.text_cache import DEFAULT_MIB as TEXT_CACHE_MIB
from cider.seeding import torch_seed
from cider.training.evaluation import Predictor
from cider.training.optim import build_optimizer
from cider.training.robustness import MEMORY_MIB
from cider.training.update import TwoStepUpdate
from cider.training.workers import ALONE, Workers
from cider_platform.runs.resolving import open_corpus, resolve_spec

if TYPE_CHECKING:
    from pathlib import Path

    from cider.data.seal import TestPermit
    from cider.data.store import FeatureStore
    from cider.spec import RunSpec, Split


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how runs execute; nothing of it changes a number."""

    store: Path
    """Root of the feature stores."""
    results: Path
    """Root of runs and studies."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:N``."""
    threads: int = 0
    """Threads of torch's operators on the CPU; 0 leaves torch's own choice."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    workers: Workers = ALONE
    """The processes that train the run together."""
    memory_mib: int = MEMORY_MIB
    """About what an evaluation's stacked rows may hold at once."""
    text_cache_mib: int = TEXT_CACHE_MIB
    """Most memory for what a frozen text encoder says of texts that every epoch reads again."""

    @property
    def torch_device(self) -> torch.device:
        """The device, checked to be there.

        Raises:
            UsageError: for an unknown device, or a GPU that is not there. Nothing falls back.
        """
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise UsageError(f"device must be cpu, cuda or cuda:N, got {self.device!r}") from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UsageError(
                f"device {self.device!r} was asked for, but torch sees no CUDA device; use "
                "--device cpu, or install a torch build with CUDA"
            )
        return device


def open_store(spec: RunSpec, runtime: Runtime) -> FeatureStore:
    """Return the corpus a spec names; a synthetic one is generated on first use.

    Raises:
        StoreError: if it is not in the store.
        UsageError: if it is not the content the spec was resolved with.
    """
    return open_corpus(spec, runtime.store)


def resolve(spec: RunSpec, runtime: Runtime) -> RunSpec:
    """Return the spec with everything filled in that its identity depends on.

    The content hash of the corpus, the text encoder (the corpus's own unless one is named) and the
    hash of its pre-trained weights.

    Raises:
        StoreError: if the corpus or the encoder cannot be found.
    """
    return resolve_spec(spec, runtime.store)


def batch_source(
    store: FeatureStore, spec: RunSpec, split: Split, permit: TestPermit | None = None
) -> BatchSource:
    """Return the batches of one split, with class labels where they may be read.

    Args:
        store: the corpus.
        spec: the task and the padding.
        split: train, valid or test.
        permit: leave to read test labels; without it the test split has none.
    """
    view = store.split(split)
    labels = None
    if split != "test":
        labels = view.labels
    elif permit is not None:
        labels = store.test_labels(permit)
    lengths = store.manifest.padded_lengths(split)
    return BatchSource(
        view,
        None if labels is None else class_labels(labels, spec.data.task),
        widths=store.manifest.widths,
        longest=PerModality(lengths["text"], lengths["audio"], lengths["vision"]),
        full_padding=spec.training.padding == "full",
    )


def token_ids(store: FeatureStore) -> TokenIds:
    """Return the special tokens of a corpus."""
    return TokenIds(**store.manifest.tokenizer.special_ids)


def statistics_of(
    store: FeatureStore, spec: RunSpec, encoder: TextEncoder, runtime: Runtime
) -> TrainingStatistics:
    """Return what MACI takes from the training split, cached by content.

    Args:
        store: the corpus.
        spec: task, encoder and MACI's fields.
        encoder: the encoder before any training.
        runtime: names the cache's root and the device.
    """
    source = batch_source(store, spec, "train")
    # An encoder from scratch has other weights for every seed.
    scratch = f"{spec.text_encoder} seed={spec.seed}"
    identity = spec.text_encoder.weights_sha256 or scratch
    if spec.text_encoder.precision != "float32":
        identity += f" {spec.text_encoder.precision}"
    key = statistics_key(
        content_sha256=store.manifest.content_sha256,
        encoder=identity,
        task=spec.data.task,
        maci=spec.maci,
    )
    return cached_statistics(
        runtime.store / ".cache",
        key,
        lambda: training_statistics(
            store.split("train"),
            task=spec.data.task,
            maci=spec.maci,
            tokens=token_ids(store),
            text_means=lambda: text_class_means(
                encoder, source, spec.num_classes, runtime.torch_device
            ),
        ),
    )


@torch.no_grad()
def text_class_means(
    encoder: TextEncoder, source: BatchSource, num_classes: int, device: torch.device
) -> np.ndarray:
    """Return the mean text state of every class (C, F): over valid tokens, then over utterances."""
    was_training = encoder.training
    encoder.eval()
    means = []
    for batch in source.batches(128):
        valid_BT = batch.complete.valid.text.to(device)
        states_BTF = encoder(batch.complete.token_ids_BT.to(device), valid_BT)
        weight_BT = valid_BT / valid_BT.sum(dim=1, keepdim=True).clamp_min(1)
        means.append(torch.einsum("bt,btf->bf", weight_BT, states_BTF).cpu().numpy())
    encoder.train(was_training)
    assert source.labels_N is not None
    return class_means(np.concatenate(means), source.labels_N, num_classes)


@dataclass(frozen=True, slots=True)
class Assembled:
    """A model with everything that predicting with it needs."""

    model: EmotionModel
    predictor: Predictor
    statistics: TrainingStatistics


def assemble(spec: RunSpec, store: FeatureStore, runtime: Runtime) -> Assembled:
    """Build the model of a resolved spec, on the runtime's device, with its initial weights.

    Seeds torch's global generator: weights and dropout come from it.
    """
    device = runtime.torch_device
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    torch.manual_seed(torch_seed(spec.seed))
    longest = store.manifest.max_lengths
    encoder = build_text_encoder(
        spec.text_encoder,
        store.manifest.tokenizer.vocab_size,
        max(store.manifest.padded_lengths(split)["text"] for split in ("train", "valid", "test")),
        cache_mib=runtime.text_cache_mib,
    )
    encoder.to(device)
    statistics = statistics_of(store, spec, encoder, runtime)
    shapes = InputShapes(
        PerModality(encoder.width, store.manifest.widths["audio"], store.manifest.widths["vision"]),
        PerModality(longest["text"], longest["audio"], longest["vision"]),
        spec.data.alignment == "aligned",
    )
    backbone = spec.model.build(shapes)
    head = build_head(
        backbone,
        spec.maci,
        statistics.class_features.map(torch.from_numpy),
        torch.from_numpy(statistics.prior_C),
        layer_norm=spec.class_encoder_layer_norm,
    )
    model = EmotionModel(encoder, backbone, head).to(device)
    kept_words = None
    if spec.maci.counterfactual:
        specials = token_ids(store)
        kept_words = torch.from_numpy(
            keep_table(statistics.bias_words.ids, encoder.vocabulary_size, specials)
        )
    predictor = Predictor(
        model,
        token_ids=token_ids(store),
        kept_words=kept_words,
        device=device,
        batch_size=spec.training.batch_size,
        workers=runtime.workers,
    )
    return Assembled(model, predictor, statistics)


def two_step_update(
    spec: RunSpec, assembled: Assembled, store: FeatureStore, workers: Workers = ALONE
) -> TwoStepUpdate:
    """Return the optimising half of a training."""
    optimizer = build_optimizer(
        assembled.model, spec.optimizer, from_scratch=spec.text_encoder.source == SCRATCH
    )
    return TwoStepUpdate(
        assembled.model, optimizer, spec.training, spec.loss, token_ids(store), workers
    )
