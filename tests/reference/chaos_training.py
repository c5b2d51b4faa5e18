"""A training without a network: real run folders and checkpoints, scores computed from the spec.

Its scores are a function of spec and epoch. Every epoch that is computed leaves a line in
``<results>/computed/<run id>``, before anything else is written, so that work done twice shows.
Faults are planned in the environment and happen in every run whose ``loss.joint`` they name.
"""

import hashlib
import json
import math
import os
import platform
import sys
import time

import torch

from cider.training.checkpoint import read_checkpoint, write_checkpoint
from cider.training.trainer import EpochResult, Progress
from cider_platform.layout import RunFolder, write_json_atomic, write_text_atomic

EPOCH_SECONDS = "CHAOS_EPOCH_SECONDS"
FAULTS = "CHAOS_FAULTS"
"""JSON object: value of ``loss.joint`` -> name of a fault of ``FAULT``."""


def score(spec, epoch):
    """Return the validation score after an epoch, in (0, 1): a learning curve with some noise."""
    quality = math.exp(-((math.log10(spec.optimizer.lr) + 2) ** 2)) * (1 - 0.3 * spec.loss.joint)
    digest = hashlib.sha256(f"{spec.run_id} {epoch}".encode()).digest()
    noise = int.from_bytes(digest[:4], "big") / 2**32
    return 0.9 * quality * (1 - math.exp(-epoch / 3)) + 0.05 * noise


def train(spec, runtime):
    """Yield epoch results like ``cider_platform.runs.trial.train_run``, without a network."""
    folder = RunFolder.of(runtime.results, spec.run_id)
    if folder.read_status().get("state") == "COMPLETE":
        return
    folder.root.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder.spec, spec.to_dict())
    folder.write_status("RUNNING", host=platform.node(), pid=os.getpid())
    progress = Progress()
    if folder.last.exists():
        _, facts = read_checkpoint(folder.last)
        progress = Progress.from_dict(facts["progress"])
    if folder.epochs.exists():
        lines = folder.epochs.read_text().splitlines(keepends=True)
        write_text_atomic(folder.epochs, "".join(lines[: progress.epoch]))
    while progress.epoch < spec.training.epochs:
        result, progress = _epoch(spec, runtime, progress)
        with folder.epochs.open("a") as file:
            file.write(json.dumps(result.to_dict()) + "\n")
        if progress.epoch % runtime.checkpoint_every == 0:
            state = {"weights": torch.full((64,), result.score)}
            write_checkpoint(folder.last, state, {"progress": progress.to_dict()})
        yield result
    write_json_atomic(folder.frozen, {"epoch": progress.best_epoch, "score": progress.best_score})
    folder.write_status("COMPLETE")
    folder.last.unlink(missing_ok=True)


def _epoch(spec, runtime, progress):
    epoch = progress.epoch + 1
    computed = runtime.results / "computed"
    computed.mkdir(exist_ok=True)
    with (computed / spec.run_id).open("a") as file:
        file.write(f"{epoch} {os.getpid()}\n")
    time.sleep(float(os.environ.get(EPOCH_SECONDS, "0")))
    fault = json.loads(os.environ.get(FAULTS, "{}")).get(str(spec.loss.joint))
    if fault is not None and epoch == 2:
        FAULT[fault]()
    value = score(spec, epoch)
    is_best = value > progress.best_score
    after = Progress(
        epoch,
        value if is_best else progress.best_score,
        epoch if is_best else progress.best_epoch,
    )
    result = EpochResult(
        epoch=epoch, train={}, valid={"acc2": value}, score=value, tau=0.0,
        best_score=after.best_score, best_epoch=after.best_epoch, is_best=is_best, seconds=0.0,
    )  # fmt: skip
    return result, after


def _hang():
    while True:
        time.sleep(3600)


def _hang_holding_the_interpreter():
    # A regular expression that backtracks for ever: no Python thread of the process runs again.
    import re

    re.match(r"(a+)+$", "a" * 60 + "b")


def _stop():
    import signal

    os.kill(os.getpid(), signal.SIGSTOP)


def _die():
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def _raise():
    raise ValueError("the third hidden layer is shy\nand says so in two lines")


FAULT = {
    "hang": _hang,
    "hang holding the interpreter": _hang_holding_the_interpreter,
    "stop": _stop,
    "die": _die,
    "raise": _raise,
    "exit": lambda: sys.exit(3),
}
