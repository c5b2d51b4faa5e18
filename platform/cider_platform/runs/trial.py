"""Train one run: from a resolved spec to a frozen, content-addressed run folder.

``train_run`` is a generator of epoch results. It continues from the run's own checkpoint, and once
it is exhausted the run is frozen: epoch, tau and weights are fixed, and only then can the test
split be opened (``cider_platform.runs.evaluation``).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from cider.data.hashing import file_sha256
from cider.data.seal import permit_for_published_selection
from cider.data.statistics import save_statistics
from cider.training.checkpoint import (
    model_weights,
    read_checkpoint,
    restore_training_state,
    training_state,
    write_checkpoint,
)
from cider.training.trainer import EpochResult, Progress, Trainer
from cider_platform.execution.faults import sentence
from cider_platform.layout import (
    RunFolder,
    now,
    read_json,
    write_json_atomic,
    write_text_atomic,
)
from cider_platform.results import read_epochs
from cider_platform.runs.assembly import (
    Assembled,
    Runtime,
    assemble,
    batch_source,
    open_store,
    resolve,
    two_step_update,
)
from cider_platform.runs.fingerprint import Recorder
from cider_platform.runs.provenance import record_session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cider.spec import RunSpec

__all__ = ["Runtime", "read_epochs", "resolve", "train_run"]


def train_run(spec: RunSpec, runtime: Runtime) -> Iterator[EpochResult]:
    """Train a resolved spec, yielding after every epoch; the checkpoint is written before that.

    A finished run yields nothing; an interrupted one goes on after its last checkpoint. Where
    several workers train the run each of them calls this, and the first one writes the files.

    Raises:
        CiderError: if the run cannot go on; its status then says FAILED and why.
    """
    folder = RunFolder.of(runtime.results, spec.run_id)
    if folder.read_status().get("state") == "COMPLETE":
        return
    if not runtime.workers.is_first:
        yield from _train(spec, runtime, folder)
        return
    folder.root.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder.spec, spec.to_dict())
    folder.write_status(
        "RUNNING",
        host=socket.gethostname(),
        pid=os.getpid(),
        workers=runtime.workers.count,
        started=now("milliseconds"),
    )
    try:
        yield from _train(spec, runtime, folder)
    except Exception as error:
        # On a full disk not even this can be written, and the error itself is the better message.
        with contextlib.suppress(OSError):
            folder.write_status(
                "FAILED", error=sentence(error, folder.root), ended=now("milliseconds")
            )
        raise


def _train(spec: RunSpec, runtime: Runtime, folder: RunFolder) -> Iterator[EpochResult]:
    store = open_store(spec, runtime)
    assembled = assemble(spec, store, runtime)
    update = two_step_update(spec, assembled, store, runtime.workers)
    published = spec.selection.rule == "published"
    trainer = Trainer(
        spec,
        update,
        assembled.predictor,
        train=batch_source(store, spec, "train"),
        valid=batch_source(store, spec, "valid"),
        device=runtime.torch_device,
        test=batch_source(store, spec, "test", permit_for_published_selection(spec))
        if published
        else None,
    )
    workers = runtime.workers
    progress = Progress()
    if folder.last.exists():
        tensors, facts = read_checkpoint(folder.last)
        restore_training_state(tensors, assembled.model, update.optimizer, runtime.torch_device)
        progress = Progress.from_dict(facts["progress"])
    if workers.is_first:
        steps = trainer.steps_per_epoch
        trainer.on_step = Recorder(folder, runtime.torch_device, steps, workers.count)
        record_session(folder, runtime, store, after_epoch=progress.epoch)
    workers.begin(assembled.model, progress.epoch)
    if not workers.is_first:
        for result, _ in trainer.epochs(progress):
            yield result
        return
    _keep_epochs(folder.epochs, progress.epoch)
    for result, reached in trainer.epochs(progress):
        progress = reached
        _append(folder.epochs, result)
        if result.is_best:
            write_checkpoint(
                folder.best, dict(assembled.model.state_dict()), {"epoch": result.epoch}
            )
        if result.epoch % runtime.checkpoint_every == 0:
            state = training_state(assembled.model, update.optimizer, runtime.torch_device)
            write_checkpoint(folder.last, state, {"progress": progress.to_dict()})
        yield result
    origin = {"synthetic": store.manifest.synthetic, "workers": workers.count}
    _freeze(spec, folder, progress, assembled, origin)


def _freeze(
    spec: RunSpec,
    folder: RunFolder,
    progress: Progress,
    assembled: Assembled,
    origin: dict[str, Any],
) -> None:
    """Fix what the run came to; from here on nothing about it can be chosen."""
    epochs = read_epochs(folder.epochs)
    freeze_statistics(folder, assembled)
    facts: dict[str, Any] = {
        "run_id": spec.run_id,
        "selection": spec.selection.rule,
        "metric": spec.selection_metric,
        "epoch": progress.best_epoch,
        "score": progress.best_score,
        "tau": progress.best_tau,
        "weights_sha256": file_sha256(folder.best),
        "frozen": now(),
    }
    if spec.selection.rule == "published":
        facts["optimism"] = _optimism(epochs, progress.best_score)
    write_json_atomic(folder.frozen, facts)
    write_json_atomic(
        folder.result,
        {
            "run_id": spec.run_id,
            **origin,
            "parameters": assembled.model.num_parameters(),
            "epochs": len(epochs),
            "seconds": sum(each["seconds"] for each in epochs),
            "valid": epochs[progress.best_epoch - 1]["valid"],
            **facts,
        },
    )
    # When it started stays: plans tell from it what a run spends outside of its epochs.
    folder.write_status(
        "COMPLETE", started=folder.read_status().get("started"), ended=now("milliseconds")
    )
    folder.last.unlink(missing_ok=True)


def freeze_statistics(folder: RunFolder, assembled: Assembled) -> None:
    """Keep beside the weights what the run took from its training split."""
    save_statistics(folder.statistics, assembled.statistics)


def _optimism(epochs: list[dict[str, Any]], chosen_on_test: float) -> dict[str, float]:
    """Return how much better the selection on test looks than the honest one, in the same run."""
    honest = max(epochs, key=lambda epoch: epoch["published"]["valid_score"])["published"]
    return {
        "selected_on_test": chosen_on_test,
        "selected_on_validation": honest["test_at_valid_tau"],
        "optimism": chosen_on_test - honest["test_at_valid_tau"],
    }


def _append(path: Path, result: EpochResult) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result.to_dict()) + "\n")


def _keep_epochs(path: Path, count: int) -> None:
    """Cut the record of epochs that the checkpoint does not know: they will be trained again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text_atomic(path, "".join(lines[:count]))


def run_spec(folder: RunFolder) -> dict[str, Any]:
    """Return the spec a run was started with, as JSON values."""
    values: dict[str, Any] = read_json(folder.spec)
    return values


def best_weights(folder: RunFolder) -> dict[str, Any]:
    """Return the weights of the selected epoch."""
    tensors, _ = read_checkpoint(folder.best)
    return model_weights(tensors) or tensors
