"""Measures one model on one corpus: parameters, FLOPs, peak memory, seconds per epoch, latency.

Shapes: B batch, T text steps.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cider.training.evaluation import Masks
from cider.training.trainer import Trainer, selection_conditions
from cider.views import counterfactual_view, incomplete_view
from cider_platform.complexity.flops import count_flops
from cider_platform.complexity.tensors import TensorPeak
from cider_platform.grids.calibrate import synchronised_now, time_epoch
from cider_platform.runs.assembly import (
    Assembled,
    Runtime,
    assemble,
    batch_source,
    open_store,
    resolve,
    two_step_update,
)

if TYPE_CHECKING:
    from cider.data.batch import Batch, View
    from cider.data.loader import BatchSource
    from cider.spec import RunSpec
    from cider.training.update import TwoStepUpdate

WARM_UPS = 5
"""Predictions before the first that is timed."""
COUNTED = 16
"""Utterances over which the FLOPs of a prediction are averaged."""
BY_TENSORS = "storages of all tensors alive at once"
BY_CUDA = "torch.cuda.max_memory_allocated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a model costs on one corpus, device and text encoder."""

    parameters: int
    """Without the text encoder."""
    text_encoder_parameters: int
    prediction_flops: float
    """Of one utterance, factual and counterfactual text, mean over utterances; no text encoder."""
    prediction_flops_with_text_encoder: float
    training_flops_with_text_encoder: float
    """Per utterance of a training step: both views, forward and backward."""
    peak_bytes: int
    """Of a training step on the longest utterances, with parameters, gradients and optimiser."""
    peak_method: str
    seconds_per_epoch: float
    """Training steps and the validation passes; steps are timed and extrapolated."""
    steps_per_epoch: int
    steps_timed: int
    latency_median_seconds: float
    """From one padded utterance on the device to its scores, text encoder included."""
    latency_p95_seconds: float
    latencies: int
    """Predictions that were timed."""
    batch_size: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def measure(spec: RunSpec, runtime: Runtime, *, steps: int = 10, predictions: int = 50) -> Cost:
    """Train some steps of a spec and predict some utterances of validation; nothing is kept.

    Args:
        spec: resolved or not.
        runtime: where; its results are not written to.
        steps: optimisation steps to time after one that is not; an epoch of fewer is timed whole.
        predictions: utterances to predict one by one, after ``WARM_UPS``.

    Raises:
        StoreError: if the corpus or the encoder cannot be found.
    """
    with tempfile.TemporaryDirectory(prefix="cider-complexity-") as place:
        return _Measuring(spec, replace(runtime, results=Path(place))).cost(steps, predictions)


class _Measuring:
    def __init__(self, spec: RunSpec, runtime: Runtime) -> None:
        spec = resolve(spec, runtime)
        store = open_store(spec, runtime)
        self.spec, self.device = spec, runtime.torch_device
        self.assembled: Assembled = assemble(spec, store, runtime)
        self.update: TwoStepUpdate = two_step_update(spec, self.assembled, store)
        self.train = batch_source(store, spec, "train")
        self.valid = batch_source(store, spec, "valid")

    def cost(self, steps: int, predictions: int) -> Cost:
        model = self.assembled.model
        peak, method = self._peak()
        trainer = Trainer(
            self.spec,
            self.update,
            self.assembled.predictor,
            train=self.train,
            valid=self.valid,
            device=self.device,
        )
        timed = time_epoch(trainer, self.device, steps)
        latencies = self._latencies(predictions)
        alone, whole = self._prediction_flops()
        return Cost(
            parameters=model.num_parameters(),
            text_encoder_parameters=sum(each.numel() for each in model.text_encoder.parameters()),
            prediction_flops=alone,
            prediction_flops_with_text_encoder=whole,
            training_flops_with_text_encoder=self._training_flops(),
            peak_bytes=peak,
            peak_method=method,
            seconds_per_epoch=timed.seconds_per_epoch,
            steps_per_epoch=trainer.steps_per_epoch,
            steps_timed=timed.steps,
            latency_median_seconds=median(latencies),
            latency_p95_seconds=float(np.quantile(latencies, 0.95)),
            latencies=len(latencies),
            batch_size=self.spec.training.batch_size,
        )

    def _peak(self) -> tuple[int, str]:
        """Return the most bytes of an update on the longest utterances, and how it was found."""
        self.assembled.model.train()
        batch, observed = self._longest_batch()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.update(batch, observed)
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device), BY_CUDA
        model, view = self.assembled.model, batch.complete
        held = [*model.parameters(), *model.buffers(), view.audio_BSF, view.vision_BSF]
        with TensorPeak([*held, view.token_ids_BT]) as tensors:
            self.update(batch, observed)
        return tensors.peak, BY_TENSORS

    def _longest_batch(self) -> tuple[Batch, Any]:
        """Return one batch of the training utterances with most steps, and what it observes."""
        lengths = self.train.split.lengths
        total_N = lengths.text + lengths.audio + lengths.vision
        size = self.spec.training.batch_size
        index_B = np.sort(np.argsort(-total_N, kind="stable")[:size])
        return self._batch(self.train, index_B)

    def _batch(self, source: BatchSource, index_B: np.ndarray) -> tuple[Batch, Any]:
        batch = source.batch(index_B)
        condition = selection_conditions(self.spec)[-1]
        observed = Masks(source, condition, self.spec.missing, self.spec.seed).of(batch)
        return batch.to(self.device), observed.map(lambda mask: mask.to(self.device))

    def _views(self, count: int) -> list[View]:
        """Return single incomplete utterances of validation, spread evenly."""
        chosen = np.linspace(0, len(self.valid) - 1, count).round().astype(int)
        views = []
        for index in chosen:
            batch, observed = self._batch(self.valid, np.array([index]))
            ids = self.assembled.predictor.token_ids
            views.append(incomplete_view(batch.complete, observed, ids))
        return views

    def _both(self, view: View) -> list[View]:
        """Return what a prediction reads: the view and, with MACI, its counterfactual text."""
        predictor = self.assembled.predictor
        if predictor.kept_words is None:
            return [view]
        words = predictor.kept_words.to(view.token_ids_BT.device)
        return [view, counterfactual_view(view, words, predictor.token_ids)]

    @torch.no_grad()
    def _predict(self, view: View) -> None:
        model = self.assembled.model
        for each in self._both(view):
            model.log_probs(each, model.text_encoder(each.token_ids_BT, each.valid.text))

    def _latencies(self, count: int) -> list[float]:
        self.assembled.model.eval()
        views = self._views(count)
        for view in views[:WARM_UPS]:
            self._predict(view)
        found = []
        for view in views:
            before = synchronised_now(self.device)
            self._predict(view)
            found.append(synchronised_now(self.device) - before)
        return found

    def _to_cpu(self) -> None:
        self.device = torch.device("cpu")
        self.assembled.model.to(self.device)

    @torch.no_grad()
    def _prediction_flops(self) -> tuple[float, float]:
        """Return the FLOPs of a prediction without and with the text encoder."""
        self._to_cpu()
        model = self.assembled.model.eval()
        alone, text = [], []
        for view in self._views(COUNTED):
            for each in self._both(view):
                states: list[torch.Tensor] = []

                def encode(each: View = each, states: list[torch.Tensor] = states) -> None:
                    states.append(model.text_encoder(each.token_ids_BT, each.valid.text))

                text.append(count_flops(encode))
                alone.append(count_flops(lambda each=each, s=states: model.log_probs(each, s[0])))  # type: ignore[misc]
        passes = len(alone) / COUNTED
        return passes * mean(alone), passes * (mean(alone) + mean(text))

    def _training_flops(self) -> float:
        self._to_cpu()
        self.assembled.model.train()
        self.update.optimizer.state.clear()  # it may hold tensors of another device
        size = min(self.spec.training.batch_size, len(self.train))
        batch, observed = self._batch(self.train, np.arange(size))
        return count_flops(lambda: self.update(batch, observed)) / size


__all__ = ["BY_CUDA", "BY_TENSORS", "Cost", "measure"]
