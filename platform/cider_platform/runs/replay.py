"""Train the first steps of a stored run again and compare their losses with its fingerprint."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cider.errors import CiderError, TrainingError
from cider.spec import RunSpec
from cider.training.trainer import Trainer
from cider_platform.layout import read_json
from cider_platform.runs.assembly import (
    Runtime,
    assemble,
    batch_source,
    open_store,
    two_step_update,
)
from cider_platform.runs.fingerprint import (
    Comparison,
    Steps,
    compare,
    environment,
    read_fingerprint,
)

if TYPE_CHECKING:
    from cider_platform.layout import RunFolder


def replay(
    folder: RunFolder, store: Path, *, device: str | None = None, threads: int | None = None
) -> Comparison:
    """Train a run's first steps again; neither the run nor anything beside it is changed.

    Args:
        folder: a run with a fingerprint.
        store: root of the feature stores.
        device: where to compute; None is the kind of device it was recorded on.
        threads: CPU threads; None is as many as were used.

    Raises:
        NothingMatchedError: if the run has no fingerprint.
        CiderError: if several workers trained it, its spec is not the one it was trained with, the
            corpus has changed or is gone, or the device is not there.
    """
    spec = _spec_of(folder)
    recorded, before = read_fingerprint(folder)
    if before["workers"] > 1:
        raise CiderError(
            f"run {folder.run_id} was trained by {before['workers']} workers, each with its own "
            "dropout, which one process cannot repeat; replay a run of one worker"
        )
    had_threads = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory(prefix="cider-replay-") as place:
            runtime = Runtime(
                store,
                Path(place),
                device=device or before["device"],
                threads=before["threads"] if threads is None else threads,
            )
            replayed = _first_steps(spec, runtime, len(recorded))
            after = environment(runtime.torch_device)
    finally:
        torch.set_num_threads(had_threads)
    changed = [name for name in after if after[name] != before.get(name)]
    is_exact = not changed and after["device"] == "cpu"
    return compare(recorded, replayed, changed=changed, is_exact=is_exact)


def _spec_of(folder: RunFolder) -> RunSpec:
    """Return the spec that a run's worker wrote down, if it is still that."""
    try:
        spec = RunSpec.from_dict(read_json(folder.spec))
    except FileNotFoundError:
        raise CiderError(f"run {folder.run_id} has no {folder.spec.name}; restore it") from None
    if spec.run_id != folder.run_id:
        raise CiderError(
            f"{folder.spec} describes run {spec.run_id}, not {folder.run_id}: it was changed after "
            "the training, or this version of the program means something else by it"
        )
    return spec


def _first_steps(spec: RunSpec, runtime: Runtime, count: int) -> Steps:
    store = open_store(spec, runtime)
    assembled = assemble(spec, store, runtime)
    trainer = Trainer(
        spec,
        two_step_update(spec, assembled, store),
        assembled.predictor,
        train=batch_source(store, spec, "train"),
        valid=batch_source(store, spec, "valid"),
        device=runtime.torch_device,
    )
    steps: Steps = []
    try:
        steps += [terms for _, terms in islice(trainer.steps(1), count)]
    except TrainingError as error:
        raise TrainingError(f"the replay cannot be compared: {error}") from error
    if len(steps) < count:
        raise CiderError(
            f"the fingerprint has {count} steps, an epoch of this corpus only {len(steps)}: the "
            "training split has changed"
        )
    return steps


def sentence(run_id: str, found: Comparison) -> str:
    """Return the outcome of a replay as one sentence."""
    where = f" ({', '.join(found.changed)} not as recorded)" if found.changed else ""
    if found.outcome == "identical":
        return (
            f"identical: the first {found.steps} steps of run {run_id} have the same losses to the "
            f"last digit{where}"
        )
    at = f"step {found.step}, {found.term}: {found.recorded!r} recorded, {found.replayed!r} now"
    if found.outcome == "equal":
        return (
            f"equal within rounding: the first {found.steps} steps of run {run_id} differ by at "
            f"most {found.difference:.1e} ({at}){where}"
        )
    return (
        f"different: run {run_id} leaves its recorded losses at {at}{where}; the code, a library "
        "or the corpus is not what the run was trained with"
    )
