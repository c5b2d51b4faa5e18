"""Several workers train a run as one does: the same updates, predictions and files.

Two gloo processes do everything once (``work``); the tests look at what they wrote.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_corpus import write_tiny_corpus
from torch.distributed import FileStore

from cider.behaviour import with_behaviour
from cider.data.loader import part_rows
from cider.errors import CiderError, TrainingError, WorkerLostError
from cider.models.cider.config import Config
from cider.spec import DataConfig, OptimizerConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider.training.trainer import Progress, Trainer
from cider.training.workers import joined
from cider_platform.layout import RunFolder
from cider_platform.runs.assembly import (
    Runtime,
    assemble,
    batch_source,
    open_store,
    resolve,
    two_step_update,
)
from cider_platform.runs.replay import replay
from cider_platform.runs.trial import read_epochs, train_run

NUM_WORKERS = 2
UPDATES = 20
DROPOUTS = ("attention", "embedding", "output", "relu", "residual")


def spec_of(behaviour, batch_size, updates=UPDATES, dropout=0.0):
    """Return a run of so many updates on 24 utterances, with MACI and with clipping."""
    spec = RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(
            width=8, heads=2, layers=1, **{f"{name}_dropout": dropout for name in DROPOUTS}
        ),
        text_encoder=TextEncoderConfig(width=8, layers=1, dropout=dropout),
        training=TrainingConfig(
            epochs=updates // -(-24 // batch_size),
            batch_size=batch_size,
            gradient_clip=0.5,
            patience=99,
        ),
        optimizer=OptimizerConfig(lr=1e-3),
    )
    return with_behaviour(spec, behaviour)


CASES = {
    # Batches of 5, three utterances for one worker and two for the other, and a last one of 4.
    "corrected": spec_of("corrected", 5),
    "released": spec_of("released", 5),
    # A last batch of one utterance: none is left for the second worker.
    "corrected-one-left": spec_of("corrected", 23),
    "released-one-left": spec_of("released", 23),
}
DTYPES = {"single": torch.float32, "double": torch.float64}
TRAINED = [(name, "double") for name in CASES] + [(name, "single") for name in list(CASES)[:2]]


def train(spec, runtime, dtype):
    """Return weights and epoch results of a run, from this worker's memory."""
    spec = resolve(spec, runtime)
    store = open_store(spec, runtime)
    assembled = assemble(spec, store, runtime)
    assembled.model.to(dtype)
    trainer = Trainer(
        spec,
        two_step_update(spec, assembled, store, runtime.workers),
        assembled.predictor,
        train=source_of(store, spec, "train", dtype),
        valid=source_of(store, spec, "valid", dtype),
        device=runtime.torch_device,
    )
    runtime.workers.begin(assembled.model, 0)
    results = [replace(result, seconds=0.0).to_dict() for result, _ in trainer.epochs(Progress())]
    return assembled.model.state_dict(), results


def source_of(store, spec, split, dtype):
    """Return the batches of a split with features of another precision."""
    source = batch_source(store, spec, split)
    as_stored = source.batch

    def batch(*arguments):
        found = as_stored(*arguments)
        view = found.complete
        frames = {name: getattr(view, name).to(dtype) for name in ("audio_BSF", "vision_BSF")}
        return replace(found, complete=replace(view, **frames))

    source.batch = batch
    return source


# What the two processes do

WORKER = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
from test_workers import work
work(Path(sys.argv[2]), int(sys.argv[3]))
"""
RANDOM = spec_of("corrected", 5, updates=25, dropout=0.2)


def work(root, rank):
    """Do one worker's part of everything, and write what this one holds."""
    with joined(FileStore(str(root / "meeting"), NUM_WORKERS), rank, NUM_WORKERS) as workers:
        runtime = Runtime(root / "store", root / "whole", threads=1, workers=workers)
        for name, precision in TRAINED:
            weights, results = train(CASES[name], runtime, DTYPES[precision])
            save_file(weights, root / f"{name}-{precision}-{rank}.safetensors")
            (root / f"{name}-{precision}-{rank}.json").write_text(json.dumps(results))

        run(RANDOM, runtime)
        stopped = replace(runtime, results=root / "stopped", checkpoint_every=2)
        run(RANDOM, stopped, epochs=3)
        run(RANDOM, stopped)

        with pytest.raises(TrainingError, match="of different epochs, 0 and 1; all of them must"):
            workers.begin(torch.nn.Linear(1, 1), rank)
        lose_one(replace(runtime, results=root / "lost"), rank)


def run(spec, runtime, epochs=99):
    """Train a run to its end, or stop it after some epochs."""
    results = train_run(resolve(spec, runtime), runtime)
    for _, _result in zip(range(epochs), results, strict=False):
        pass
    results.close()


def lose_one(runtime, rank):
    """Kill one worker after its second epoch; the other must say so."""
    results = train_run(resolve(RANDOM, runtime), runtime)
    next(results), next(results)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="worker 0 of 2 lost another one"):
        list(results)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with what two processes came to."""
    root = tmp_path_factory.mktemp("workers")
    write_tiny_corpus(root / "store")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, path, root, str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(NUM_WORKERS)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL], errors
    return root


# The update


@pytest.mark.parametrize(("name", "precision"), TRAINED)
def test_two_workers_make_the_updates_of_one(root, name, precision):
    runtime = Runtime(root / "store", root / "alone", threads=1)
    weights, results = train(CASES[name], runtime, DTYPES[precision])
    first, second = (load_file(root / f"{name}-{precision}-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in weights)
    if precision == "single":
        for state in (first, weights):
            forget_shifts(state)
    tolerance = {"single": 1e-5, "double": 1e-9}[precision]
    for key, tensor in weights.items():
        torch.testing.assert_close(first[key], tensor, rtol=0, atol=tolerance, msg=key)
    reported, also = (
        json.loads((root / f"{name}-{precision}-{rank}.json").read_text()) for rank in (0, 1)
    )
    assert reported == also
    for here, there in zip(results, reported, strict=True):
        assert there["train"] == pytest.approx(here["train"], abs=1e-5)
        assert there["valid"] == here["valid"]
        assert there["tau"] == here["tau"]


def forget_shifts(weights):
    """Set biases to 0 that shift all scores of a softmax alike.

    Their true gradient is 0. Adam divides what rounding leaves of it by its own size, so that in
    single precision they wander, by one process as by two, without a say in any result.
    """
    for name, tensor in weights.items():
        if name.endswith(("key.bias", ".score.bias")):
            tensor.zero_()
        elif name.endswith("scores.joint.bias"):
            tensor.chunk(3)[1].zero_()


def test_updates_are_clipped_and_the_behaviours_differ(root):
    """Without this the test above could compare runs that clip nothing, or one run with itself."""
    runtime = Runtime(root / "store", root / "alone", threads=1)
    spec = CASES["corrected"]
    unclipped = replace(spec, training=replace(spec.training, gradient_clip=0.0))
    weights, _ = train(unclipped, runtime, torch.float64)
    clipped, released = (
        load_file(root / f"{name}-double-0.safetensors") for name in ("corrected", "released")
    )
    key = "head.classifiers.0.weight"
    assert float((weights[key] - clipped[key]).abs().max()) > 1e-4
    assert float((released[key] - clipped[key]).abs().max()) > 1e-4


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 24, 128])
def test_parts_of_a_batch_are_its_rows_in_order_and_differ_by_at_most_one(num_rows, count):
    parts = [np.arange(num_rows)[part_rows(num_rows, number, count)] for number in range(count)]
    assert np.array_equal(np.concatenate(parts), np.arange(num_rows))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_part_of_a_batch_is_padded_as_the_batch_and_counts_its_share(root):
    spec = CASES["corrected"]
    store = open_store(spec, Runtime(root / "store", root / "alone"))
    source = batch_source(store, spec, "train")
    whole = source.batch(np.array([3, 1, 4, 15, 9]))
    parts = [source.batch(np.array([3, 1, 4, 15, 9]), (number, 2)) for number in (0, 1)]
    for name in ("token_ids_BT", "audio_BSF", "vision_BSF"):
        joined_rows = torch.cat([getattr(part.complete, name) for part in parts])
        assert torch.equal(joined_rows, getattr(whole.complete, name))
    assert [(part.share, part.num_whole) for part in parts] == [(3 / 5, 5), (2 / 5, 5)]
    assert [part.complete.first_row for part in parts] == [0, 3]
    left_over = source.batch(np.array([7]), (1, 2))
    assert (left_over.index_B.tolist(), left_over.share, left_over.num_whole) == ([7], 0.0, 1)


# The run


def test_run_of_two_workers_continued_after_a_stop_has_the_same_numbers(root):
    spec = resolve(RANDOM, Runtime(root / "store", root / "whole"))
    whole, stopped = (RunFolder.of(root / name, spec.run_id) for name in ("whole", "stopped"))
    for folder in (whole, stopped):
        assert folder.is_complete
        assert json.loads(folder.result.read_text())["workers"] == NUM_WORKERS
    records = [read_epochs(folder.epochs) for folder in (whole, stopped)]
    for epoch in (*records[0], *records[1]):
        del epoch["seconds"]
    assert records[0] == records[1]
    assert whole.best.read_bytes() == stopped.best.read_bytes()


def test_run_of_two_workers_is_not_replayed_by_one(root):
    spec = resolve(RANDOM, Runtime(root / "store", root / "whole"))
    folder = RunFolder.of(root / "whole", spec.run_id)
    with pytest.raises(CiderError, match="was trained by 2 workers, each with its own dropout"):
        replay(folder, root / "store")


def test_run_that_lost_a_worker_keeps_its_checkpoint_and_says_why_it_ended(root):
    spec = resolve(RANDOM, Runtime(root / "store", root / "lost"))
    folder = RunFolder.of(root / "lost", spec.run_id)
    assert folder.state == "FAILED"
    assert "lost another one" in folder.read_status()["error"]
    assert len(read_epochs(folder.epochs)) == 2
    assert folder.last.exists()
