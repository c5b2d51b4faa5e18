"""Every known cause of failure is recognised in what the failure itself leaves."""

import errno
import os
import shutil
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.exceptions import OutOfMemoryError
from tiny_corpus import write_tiny_corpus

from cider.data.store import FeatureStore
from cider.models.cider.config import Config
from cider.modules.text import locate_encoder
from cider.spec import DataConfig, OptimizerConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider.training.checkpoint import read_checkpoint
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.run_log import OOM_KILLED
from cider_platform.runs.trial import train_run
from cider_platform.search.diagnosis import CAUSES, Evidence, cause_of, traceback_of

TINY = RunSpec(
    data=DataConfig(dataset="tiny"),
    model=Config(width=8, heads=2, layers=1),
    text_encoder=TextEncoderConfig(width=8, layers=1),
    training=TrainingConfig(epochs=2, batch_size=12),
)


@pytest.fixture
def runtime(tmp_path):
    write_tiny_corpus(tmp_path / "store")
    return Runtime(tmp_path / "store", tmp_path / "results", threads=1)


def left_by(work):
    """Return what a run's log has after ``work`` failed, and the error."""
    try:
        work()
    except Exception as error:
        return traceback.format_exc(), error
    raise AssertionError("it did not fail")


def raiser(error):
    def work():
        raise error

    return work


def full_disk():
    with Path("/dev/full").open("w") as file:
        file.write("x")


def use_missing_package():
    import no_package_has_this_name  # noqa: F401


TORCH_OOM = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"
RAY_OOM = "Task was killed due to the node running low on memory.\nMemory on the node was 15.9GB"

RAISED = {
    "GPU out of memory": [
        raiser(torch.OutOfMemoryError(TORCH_OOM)),
        raiser(RuntimeError("CUDA error: out of memory")),
        raiser(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")),
    ],
    "out of memory": [
        lambda: np.empty(2**50),
        lambda: torch.empty(2**58),
        raiser(OutOfMemoryError(RAY_OOM)),
        raiser(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))),
    ],
    "disk full": [full_disk, raiser(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)))],
    "not permitted": [
        raiser(PermissionError(errno.EACCES, os.strerror(errno.EACCES), "runs")),
        raiser(OSError(errno.EROFS, os.strerror(errno.EROFS), "runs")),
    ],
    "too many open files": [raiser(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))],
    "GPU fault": [
        raiser(RuntimeError("CUDA error: device-side assert triggered")),
        raiser(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")),
    ],
    "no GPU": [raiser(RuntimeError("No CUDA GPUs are available"))],
    "package missing": [use_missing_package],
}


@pytest.mark.parametrize(
    ("name", "work"), [(name, work) for name, each in RAISED.items() for work in each]
)
def test_cause_of_an_exception_is_named(name, work):
    text, _ = left_by(work)
    assert cause_of(Evidence(text=text)).name == name


def test_cause_of_what_this_program_raises_is_named(runtime, tmp_path):
    resolved = resolve(TINY, runtime)
    hot = resolve(replace(TINY, optimizer=OptimizerConfig(lr=1e30)), runtime)
    (tmp_path / "encoder").mkdir()
    damaged = tmp_path / "last.safetensors"
    damaged.write_bytes(b"not a checkpoint")
    store = FeatureStore.open(next((tmp_path / "store").glob("*/*")))

    def without_store():
        shutil.rmtree(tmp_path / "store")
        list(train_run(resolved, runtime))

    def other_store():
        write_tiny_corpus(tmp_path / "store", seed=1)
        list(train_run(resolved, runtime))

    found = {}
    for name, work in {
        "diverged": lambda: list(train_run(hot, runtime)),
        "sealed": lambda: store.split("test").labels,
        "encoder": lambda: locate_encoder(str(tmp_path / "encoder")),
        "checkpoint": lambda: read_checkpoint(damaged),
        "store gone": without_store,
        "store changed": other_store,
    }.items():
        _, error = left_by(work)
        cause = cause_of(Evidence(text=str(error)))  # as the study keeps it
        found[name] = str(error) if cause is None else cause.name
    assert found == {
        "diverged": "not finite",
        "sealed": "test split protected",
        "encoder": "text encoder missing",
        "checkpoint": "checkpoint damaged",
        "store gone": "corpus missing or changed",
        "store changed": "corpus missing or changed",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cause_of_a_gpu_that_is_not_there_is_named(runtime):
    text, _ = left_by(lambda: replace(runtime, device="cuda").torch_device)
    assert cause_of(Evidence(text=text)).name == "no GPU"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("made no progress for 1800 s, so its worker was stopped", "hung"),
        ("no space is left on the disk of results: make room there", "disk full"),
        ("out of memory (Unable to allocate 8 EiB); lower training.batch_size", "out of memory"),
        ("the validation score is not finite: nan", "not finite"),
        ("epoch 2, after step 9: predictions on the valid split are NaN", "not finite"),
        ("run 1: its code is of another version; end it", "another version of the code"),
        ("its worker process died 3 times: Worker exit type: SYSTEM_ERROR", "worker died"),
        ("Ray Tune lost it", "worker died"),
        (f"its worker process died 3 times\n{OOM_KILLED} (1 since the run began)", "out of memory"),
        ("Worker exit type: NODE_OUT_OF_MEMORY Worker exit detail: killed", "out of memory"),
        ("Fatal Python error: Segmentation fault", "crash in a library"),
        ("Fatal Python error: Bus error", "crash in a library"),
        ("the run ended without an epoch", "nothing trained"),
        ("its worker ended without a result", "nothing trained"),
    ],
)  # fmt: skip
def test_cause_of_what_the_driver_notes_is_named(text, name):
    assert cause_of(Evidence(text=text)).name == name


def test_configuration_that_was_refused_before_a_run_is_a_cause_of_its_own():
    refused = Evidence(text="model.heads must divide model.width, got 8 and 4", has_run=False)
    assert cause_of(refused).name == "configuration refused"


def test_every_cause_is_told_apart_and_says_what_to_do():
    names = [cause.name for cause in CAUSES]
    assert len(set(names)) == len(names)
    assert all(len(cause.remedy) > 40 and not cause.remedy.endswith(".") for cause in CAUSES)
    assert [cause.name for cause in CAUSES if cause.is_memory] == [
        "GPU out of memory",
        "out of memory",
    ]


def test_fault_of_a_program_has_no_known_cause():
    text, _ = left_by(lambda: [][1])
    assert cause_of(Evidence(text=text)) is None


def test_first_error_is_the_first_of_a_chain_and_names_our_innermost_line(runtime):
    resolved = resolve(TINY, runtime)
    (next(runtime.store.glob("*/*")) / "train.arrow").unlink()
    text, error = left_by(lambda: list(train_run(resolved, runtime)))
    found = traceback_of(f"2026-01-01T00:00:00+00:00 error peak memory 9 MB\n{text}")
    assert str(error).endswith("is missing; import the corpus again")
    assert found.where.startswith("cider/data/")
    assert ".py:" in found.where


def test_first_error_of_chained_exceptions_is_where_it_began():
    def work():
        try:
            int("seven")
        except ValueError as error:
            raise RuntimeError("two lines:\n  of a message") from error

    text, _ = left_by(work)
    found = traceback_of(text)
    assert (found.type, found.message) == (
        "ValueError",
        "invalid literal for int() with base 10: 'seven'",
    )
    assert found.where.endswith("in work")


def test_message_of_several_lines_is_one_line():
    text, _ = left_by(raiser(RuntimeError("two lines:\n  of a message")))
    assert traceback_of(text).message == "two lines: of a message"


def test_lines_of_libraries_are_passed_over_wherever_they_are_installed():
    text = (
        "Traceback (most recent call last):\n"
        '  File "/opt/env/lib/python3.11/site-packages/cider/training/trainer.py", line 7, in go\n'
        "    self.step()\n"
        '  File "/opt/cider/env/lib/python3.11/site-packages/torch/nn/module.py", line 9, in f\n'
        "    return x\n"
        "RuntimeError: shape\n"
    )
    assert traceback_of(text).where == "cider/training/trainer.py:7 in go"


def test_text_without_a_traceback_has_no_first_error():
    assert traceback_of("its worker process died 3 times") is None
