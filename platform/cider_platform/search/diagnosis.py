"""Why runs fail: a table of known causes, how each is recognised, and what to do about it.

``traceback_of`` and ``cause_of`` read what a run has left (its error, its log); nothing here knows
where that was stored. A cause is recognised by words that the system, a library or this program
writes into its messages; the first cause of the table that fits is the answer, so the particular
ones stand above the general ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cider
import cider_platform
from cider_platform.runs.run_log import OOM_KILLED

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a run or trial that went wrong has left."""

    text: str
    """Its error, the traceback of its last attempt, what was said of dead workers."""
    has_run: bool = True
    """False for a trial whose configuration was refused before a run could begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A known cause of failure."""

    name: str
    fits: Callable[[Evidence], bool]
    remedy: str
    """What to do, without a capital and a full stop."""
    is_memory: bool = False
    """True if memory ran out, of the machine or of a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstError:
    """The error that began it all: of chained exceptions, the first."""

    type: str
    message: str
    where: str | None
    """``cider/training/update.py:78 in _step``: the innermost line that is no library's."""


def _says(*patterns: str) -> Callable[[Evidence], bool]:
    pattern = re.compile("|".join(patterns))
    return lambda evidence: bool(pattern.search(evidence.text))


CAUSES: tuple[Cause, ...] = (
    Cause(
        name="configuration refused",
        fits=lambda evidence: not evidence.has_run,
        remedy="these values do not go together: narrow the search space with --space, or fix one "
        "of the fields with --set",
    ),
    Cause(
        name="GPU out of memory",
        fits=_says(
            r"CUDA out of memory",
            r"CUDA error: out of memory",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"HIP out of memory",
            r"torch\.(?:cuda\.)?OutOfMemoryError",
        ),
        remedy="take a smaller training.batch_size, or let fewer trials share a GPU (a larger "
        "--gpus-per-trial, fewer --slots)",
        is_memory=True,
    ),
    Cause(
        name="out of memory",
        fits=_says(
            r"MemoryError\b",
            r"Unable to allocate",
            r"can't allocate memory",
            r"Cannot allocate memory",
            r"running low on memory",
            r"ray\.exceptions\.OutOfMemoryError",
            r"NODE_OUT_OF_MEMORY",
            r"out of memory \(",
            re.escape(OOM_KILLED),
        ),
        remedy="run fewer trials at a time (--slots) or take a smaller training.batch_size",
        is_memory=True,
    ),
    Cause(
        name="disk full",
        fits=_says(
            r"\[Errno 28\]",
            r"\[Errno 122\]",
            r"No space left on device",
            r"no space is left on the disk",
            r"Disk quota exceeded",
        ),
        remedy="free space where --results lies, or name another folder",
    ),
    Cause(
        name="not finite",
        fits=_says(
            r"the loss is not finite",
            r"the validation score is not finite",
            r"predictions must be numbers, got NaN",
            r"predictions on the \w+ split are NaN",
        ),
        remedy="the model diverged: lower optimizer.lr (or the upper end of its range in --space), "
        "or set training.gradient_clip; cider-platform data verify checks the features",
    ),
    Cause(
        name="hung",
        fits=_says(r"made no progress for"),
        remedy="it stood still and was stopped: its log tells what it did last; if an epoch simply "
        "takes that long, allow more time",
    ),
    Cause(
        name="corpus missing or changed",
        fits=_says(
            r"is not in the feature store",
            r"import the (?:former )?corpus again",
            r"Stale file handle",
        ),
        remedy="the corpus is not in the feature store as it was: import it again, or point "
        "--store at it (cider-platform data list shows what is there)",
    ),
    Cause(
        name="text encoder missing",
        fits=_says(r"the text encoder .* (?:cannot be loaded|has no config\.json|is neither)"),
        remedy="download the encoder where there is a network and name its folder with --encoder, "
        "or use --encoder scratch",
    ),
    Cause(
        name="checkpoint damaged",
        fits=_says(
            r"the checkpoint .* cannot be read",
            r"is not a checkpoint of this version",
            r"the weights do not fit the model",
            r"SafetensorError",
        ),
        remedy="remove the checkpoint that the message names; the same command then trains the run "
        "from its beginning",
    ),
    Cause(
        name="another version of the code",
        fits=_says(r"its code is of another version"),
        remedy="the code was changed while the search ran: end the search and begin it anew",
    ),
    Cause(
        name="test split protected",
        fits=_says(r"SealedTestError", r"the test labels of .* (?:are sealed|open for)"),
        remedy="code that trains or selects asked for test labels: choose on the validation split",
    ),
    Cause(
        name="not permitted",
        fits=_says(
            r"\[Errno 13\]", r"Permission denied", r"\[Errno 30\]", r"Read-only file system"
        ),
        remedy="let this user write to the file or folder that the message names",
    ),
    Cause(
        name="too many open files",
        fits=_says(r"\[Errno 24\]", r"Too many open files"),
        remedy="raise the limit (ulimit -n 65536) or run fewer trials at a time (--slots)",
    ),
    Cause(
        name="no GPU",
        fits=_says(
            r"torch sees no CUDA device",
            r"No CUDA GPUs are available",
            r"no CUDA-capable device",
            r"driver version is insufficient",
        ),
        remedy="the process saw no usable GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use "
        "--device cpu",
    ),
    Cause(
        name="GPU fault",
        fits=_says(r"CUDA error", r"cuDNN error", r"CUBLAS_STATUS_", r"NCCL"),
        remedy="try again; if it fails at the same place, CUDA_LAUNCH_BLOCKING=1 makes the "
        "traceback name the true line, and another GPU tells whether this one is broken",
    ),
    Cause(
        name="crash in a library",
        fits=_says(r"Fatal Python error: (?!Aborted)", r"Segmentation fault", r"Bus error"),
        remedy="a compiled library crashed (its stack is in the log): install the versions of "
        "constraints.txt; a bus error means that a disk or /dev/shm was full, or a file of the "
        "store was changed while it was read",
    ),
    Cause(
        name="package missing",
        fits=_says(r"ModuleNotFoundError", r"\bImportError"),
        remedy="install what the message names, on every machine that trains, in the versions of "
        "constraints.txt",
    ),
    Cause(
        name="worker died",
        fits=_says(
            r"worker process died",
            r"Ray Tune lost it",
            r"actor died",
            r"Worker .*exit",
            r"WorkerLostError",
            r"the workers of the run ended",
            r"Ray's \w+ died",
        ),
        remedy="something ended the worker from outside: memory limits of the machine, a container "
        "or a batch system end processes so, and so does kill; give the trials more memory or run "
        "fewer at a time (--slots)",
    ),
    Cause(
        name="nothing trained",
        fits=_says(r"the run ended without an epoch", r"its worker ended without a result"),
        remedy="the training yielded no epoch: training.epochs must be at least 1, and a model of "
        "your own must train",
    ),
)

UNKNOWN_REMEDY = (
    "no known cause fits: the log has the whole traceback, and cider-platform train with the same "
    "options repeats it alone"
)


def cause_of(evidence: Evidence) -> Cause | None:
    """Return the first known cause that fits, or None."""
    return next((cause for cause in CAUSES if cause.fits(evidence)), None)


_BLOCK = re.compile(r"^Traceback \(most recent call last\):\n(?P<frames>(?: .*\n?|\n)*)", re.M)
_FRAME = re.compile(r'^  File "(?P<path>.+)", line (?P<line>\d+)(?:,? in (?P<name>\S+))?', re.M)
_CRASH = re.compile(
    r"^Fatal Python error: (?P<what>.*)\n(?:.*\n)*?"
    r"(?:Current thread|Stack) .*\n(?P<frames>(?:  .*\n?)*)",
    re.M,
)
_LIBRARY = re.compile(r"(?:site|dist)-packages/|/lib/python3|^<")
# On another machine the packages lie elsewhere.
_OURS = re.compile(r"(?:.*?/)??((?:cider|cider_platform)/(?!.*(?:site|dist)-packages/).+\.py)")
_ROOTS = [Path(module.__path__[0]).parent for module in (cider, cider_platform)]


def traceback_of(text: str) -> FirstError | None:
    """Return the first error of the first traceback in a text, or None without one.

    Of exceptions raised from one another Python prints the first one first. Without a traceback,
    the stack that a crash inside a library left (``faulthandler``) is read.

    Args:
        text: what ``traceback.format_exc`` gives; other text may stand around it.
    """
    block = _BLOCK.search(text)
    if block is None:
        return _crash_of(text)
    told = text[block.end() :].split("\n\n", maxsplit=1)[0].strip()
    first, _, more = told.partition("\n")
    kind, _, message = first.partition(": ")
    places = [_place(found) for found in _FRAME.finditer(block["frames"])]
    ours = [place for place in places if place is not None]
    return FirstError(
        type=kind or "unknown error",
        message=" ".join(f"{message} {more}".split()),
        where=ours[-1] if ours else None,
    )


def _crash_of(text: str) -> FirstError | None:
    crash = _CRASH.search(text)
    if crash is None:
        return None
    places = [_place(found) for found in _FRAME.finditer(crash["frames"])]
    ours = [place for place in places if place is not None]
    return FirstError(
        type="Fatal Python error", message=crash["what"], where=ours[0] if ours else None
    )


def _place(frame: re.Match[str]) -> str | None:
    """Return a frame as ``path:line in name``, or None if it is a library's."""
    path = frame["path"]
    root = next((root for root in _ROOTS if Path(path).is_relative_to(root)), None)
    ours = _OURS.fullmatch(path if root is None else str(Path(path).relative_to(root)))
    if ours is None and _LIBRARY.search(path):
        return None
    return f"{ours[1] if ours else path}:{frame['line']} in {frame['name'] or '?'}"
