"""The log of a run: when, where and how each attempt at it began and ended, for people and `why`.

Every entry is a line of time, kind and text; lines that begin otherwise belong to the entry above
them (a traceback). The process that trains writes ``begin``, ``warning``, ``error`` and ``end``;
the driver of a search writes ``lost`` when that process died without a word. A log that cannot be
written is no reason to end a run, nor may it hide what it was to tell: such faults are passed over.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import resource
import socket
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cider_platform.layout import now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from cider_platform.layout import RunFolder

Kind = Literal["begin", "warning", "error", "end", "lost"]

_ENTRY = re.compile(rf"(\d{{4}}-\d\d-\d\dT[\d:]{{8}}\S*) ({'|'.join(get_args(Kind))}) (.*)")
_BEGIN = re.compile(r"(.*) on (\S+), process (\d+), OOM kills (\d+|\?)")
_LONGEST_READ = 1_000_000
"""Bytes read from the end of a log: more than the tracebacks of one attempt."""
OOM_KILLED = "meanwhile the kernel ended processes here for lack of memory"
MORE_ROOM = "queued again, to go on from its checkpoint"
"""In what the driver of a search notes when memory ran out."""
_LONGEST_REASON = 400
_MOST_WARNINGS = 20
"""Python warnings that one attempt writes down."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a log."""

    time: str
    """ISO 8601, UTC."""
    kind: Kind
    text: str
    """One line, or several when a traceback belongs to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """What the first line of an attempt says."""

    what: str
    """``trial 3`` or ``train``."""
    host: str
    pid: int
    oom_kills: int | None
    """How many processes the kernel had ended for lack of memory by then; None if unknown."""


def note(folder: RunFolder, kind: Kind, text: str) -> None:
    """Append an entry; a log that cannot be written is passed over."""
    with contextlib.suppress(OSError), folder.log.open("a", encoding="utf-8") as log:
        log.write(f"{now()} {kind} {text.rstrip()}\n")


@contextlib.contextmanager
def attempt(folder: RunFolder, what: str, *, in_worker: bool = False) -> Iterator[None]:
    """Write down the beginning, the warnings and the end of an attempt at a run.

    Args:
        folder: the run; made if it is not there.
        what: who trains it: ``trial 3``, ``train``.
        in_worker: True in a process whose stderr nobody keeps: a crash inside a library (a
            segmentation fault) then leaves its stack in the log.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    kills = oom_kills()
    known = "?" if kills is None else kills
    note(folder, "begin", f"{what} on {socket.gethostname()}, process {os.getpid()}, "
         f"OOM kills {known}")  # fmt: skip
    with _warnings_noted(folder), _crashes_noted(folder) if in_worker else contextlib.nullcontext():
        try:
            yield
        except Exception:
            note(folder, "error", f"peak memory {_peak()}\n{traceback.format_exc()}")
            raise
        except BaseException as stop:  # pruned, Ctrl-C, or its consumer has enough
            note(folder, "end", f"stopped ({type(stop).__name__}), peak memory {_peak()}")
            raise
        note(folder, "end", f"finished, peak memory {_peak()}")


def lost(folder: RunFolder, reason: str) -> str:
    """Write down, in the driver, that the process that trained a run died without a word.

    Returns:
        the reason, and whether the kernel has ended processes for lack of memory meanwhile.
    """
    if not folder.root.is_dir():
        return reason
    before, after = last_begin(read(folder)), oom_kills()
    if before is not None and before.host == socket.gethostname():
        more = 0 if before.oom_kills is None or after is None else after - before.oom_kills
        if more > 0:
            reason += f"\n{OOM_KILLED} ({more} since the run began)"
    note(folder, "lost", reason)
    return reason


def read(folder: RunFolder) -> list[Entry]:
    """Return the entries of a run's log, the oldest first; none if there is no log."""
    try:
        with folder.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LONGEST_READ))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    entries: list[Entry] = []
    for line in text.splitlines():
        found = _ENTRY.fullmatch(line)
        if found:
            entries.append(Entry(found[1], found[2], found[3]))  # type: ignore[arg-type]
        # A crash lists every loaded library, which tells nothing.
        elif entries and not line.startswith("Extension modules:"):
            last = entries[-1]
            entries[-1] = Entry(last.time, last.kind, f"{last.text}\n{line}")
    return entries


def last_begin(entries: list[Entry]) -> Begin | None:
    """Return what the latest attempt's first line says, or None without one."""
    for entry in reversed(entries):
        found = _BEGIN.match(entry.text) if entry.kind == "begin" else None
        if found:
            kills = None if found[4] == "?" else int(found[4])
            return Begin(what=found[1], host=found[2], pid=int(found[3]), oom_kills=kills)
    return None


def last_failure(path: Path) -> str:
    """Return in one line how a worker ended last, from the file in which Ray Tune writes it down.

    Ray's advice, which is longer than its facts, is left out.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "no reason is known"
    told = " ".join(re.split(r"^Failure # .*$", text, flags=re.M)[-1].split())
    # What stands before it is Ray's own traceback, longer than a reason may be.
    found = re.search(r"Worker exit type: .*", told) or re.search(r"ray\.exceptions\.\w+: .*", told)
    facts = re.split(
        r" (?:Some common causes|There are some potential)", found[0] if found else told
    )
    return facts[0][:_LONGEST_REASON] or "no reason is known"


def oom_kills() -> int | None:
    """Return how many processes the kernel has ended for lack of memory, here or in this container.

    None where the kernel does not tell.
    """
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        with contextlib.suppress(OSError, ValueError):
            lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
            counts = {line[0]: int(line[1]) for line in lines if len(line) == 2}
            if "oom_kill" in counts:
                return counts["oom_kill"]
    return None


def _peak() -> str:
    # Linux gives kilobytes.
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB"


@contextlib.contextmanager
def _warnings_noted(folder: RunFolder) -> Iterator[None]:
    shown, count = warnings.showwarning, 0

    def note_too(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        nonlocal count
        count += 1
        if count <= _MOST_WARNINGS:
            text = " ".join(str(message).split())
            note(folder, "warning", f"{category.__name__}: {text} ({filename}:{lineno})")
        shown(message, category, filename, lineno, file, line)

    warnings.showwarning = note_too
    try:
        yield
    finally:
        if warnings.showwarning is note_too:
            warnings.showwarning = shown


@contextlib.contextmanager
def _crashes_noted(folder: RunFolder) -> Iterator[None]:
    try:
        log = folder.log.open("a", encoding="utf-8")
    except OSError:
        yield
        return
    with log:
        faulthandler.enable(log, all_threads=False)
        try:
            yield
        finally:
            faulthandler.enable(all_threads=False)  # to stderr again, before the file is closed
