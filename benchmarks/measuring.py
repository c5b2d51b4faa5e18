"""What every benchmark shares: options, paired timing, peak memory, machine facts, output.

A number of a benchmark means something beside another one of the same run: forms that are compared
take turns, and ratios are taken turn by turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]
FORMAT = "cider-benchmark/1"
LIBRARIES = ("torch", "transformers", "pyarrow", "ray", "numpy")
MIB = 2**20


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description.split("\n\n", maxsplit=1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of tables")
    made.add_argument("--threads", type=int, default=0, help="threads of torch; 0: its own choice")
    made.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn")
    return made


def set_threads(args: argparse.Namespace) -> None:
    if args.threads:
        import torch  # noqa: PLC0415 - some benchmarks run without torch

        torch.set_num_threads(args.threads)


def interleaved(
    forms: dict[str, Callable[[int], object]], repetitions: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of every call of every form.

    Each repetition calls all forms once, and each begins with the next one, so that what else the
    machine does meets all alike.

    Args:
        forms: by name, a function of the number of the repetition.
        repetitions: calls that count; they are numbered from 0.
        warmup: calls of each form before those, all with number 0.
    """
    for _ in range(warmup):
        for form in forms.values():
            form(0)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    names = list(forms)
    for repetition in range(repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            forms[name](repetition)
            seconds[name].append(time.perf_counter() - started)
        progress(f"repetition {repetition + 1} of {repetitions}")
    return seconds


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the median, the extremes and the values themselves."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, Any]:
    """Return the spread of the ratios of values that were measured in the same repetition."""
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])


def scaled(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def text_of(found: dict[str, Any], digits: int = 1) -> str:
    """Return ``median (min-max)``."""
    low, middle, high = (f"{found[name]:.{digits}f}" for name in ("min", "median", "max"))
    return f"{middle} ({low}-{high})"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class PeakMemory:
    """Context manager: how far resident memory rose above what it was at the beginning.

    Linux only: the high-water mark of the process is reset at the beginning. What the allocator
    keeps in reserve would hide a rise; ``child_environment`` makes it keep little.
    """

    rise_bytes = 0

    def __enter__(self) -> PeakMemory:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = _status_bytes("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.rise_bytes = max(0, _status_bytes("VmHWM") - self._before)


def _status_bytes(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, flags=re.MULTILINE)
    assert found, f"this kernel does not tell {field}"
    return int(found[1]) * 1024


def import_lazy_modules() -> None:
    """Let pyarrow import pandas, if there is one: it would with the first conversion."""
    pyarrow.array([0]).to_numpy()


def memory_rollup() -> dict[str, int]:
    """Return the bytes of this process by kind: Rss, Pss, Pss_Anon, Private_Dirty, ..."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def mapped_bytes(folder: Path) -> int:
    """Return this process's proportional part (PSS) of the mapped files of a folder."""
    prefix, inside, total = f"{folder.resolve()}/", False, 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if " " in name:  # the first line of a mapping: addresses, access, ..., file
            inside = prefix in line
        elif inside and name == "Pss":
            total += int(value.split()[0]) * 1024
    return total


def child_environment() -> dict[str, str]:
    """Return the environment of a process whose memory is measured.

    It finds the same modules, and its allocator gives large blocks back when they are freed.
    """
    path = os.pathsep.join(place for place in sys.path if place)
    return {**os.environ, "PYTHONPATH": path, "MALLOC_MMAP_THRESHOLD_": str(64 * 1024)}


def child_command(script: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *arguments]


def run_child(script: str, arguments: Sequence[str]) -> Any:
    """Run a benchmark in a process of its own and return the JSON of its last line."""
    done = subprocess.run(
        child_command(script, arguments),
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def machine_facts() -> dict[str, Any]:
    """Return what a reader must know about where the numbers come from."""
    torch = sys.modules.get("torch")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "threads": torch.get_num_threads() if torch else None,
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found[1] if found else platform.processor()


def _commit() -> str | None:
    """Return the commit of the checkout, with ``+`` where files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


class Report:
    """What a benchmark found: values for machines, tables for people."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name = name
        self.args = args
        self.results: dict[str, Any] = {}
        self._lines: list[str] = []

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._lines += ["", title, "", *_table([header, *rows])]

    def note(self, text: str) -> None:
        self._lines += ["", text]

    def show(self) -> None:
        """Print the results as tables or, with ``--json``, as one line of JSON."""
        settings = {
            name: value if isinstance(value, (int, float, bool, list, tuple)) else str(value)
            for name, value in vars(self.args).items()
            if name != "json" and value is not None
        }
        machine = machine_facts()
        if self.args.json:
            values = {"format": FORMAT, "benchmark": self.name, "machine": machine}
            print(json.dumps({**values, "settings": settings, "results": self.results}))
            return
        print(f"# {self.name}")
        for title, facts in (("machine", machine), ("settings", settings)):
            print(f"\n{title}: " + ", ".join(f"{name} {fact}" for name, fact in facts.items()))
        print("\n".join(self._lines))


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, padded so that it reads well as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    header, *others = (
        "| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows
    )  # every cell is text
    yield header
    yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    yield from others
