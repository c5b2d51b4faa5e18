"""Seconds until a command does its work: help, and the first training step of a search.

A search is the command itself, with Ray started and stopped by it, over a small synthetic corpus
that is stored before. Its first training step begins when its first epoch does: that is the time
its first line of ``epochs.jsonl`` is written, less the seconds the line says the epoch took. The
corpus's training statistics are cached by a search that does not count, as are the files that the
machine reads for the first time.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring
from measuring import ROOT, Report, interleaved, spread, text_of

if TYPE_CHECKING:
    import argparse

HELP = {"--help": ["--help"], "tune --help": ["tune", "--help"]}
CORPUS = "synthetic-mosi"


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="of every help text")
    parser.add_argument("--searches", type=int, default=3, help="0 leaves them out")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="another checkout, whose help takes turns"
    )
    parser.add_argument("--scale", type=float, default=0.05, help="size of the synthetic corpus")
    return parser


def command(folder: Path, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cider_platform", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), str(root / "platform")]),
            "CIDER_STORE": str(folder / "store"),
            "CIDER_RESULTS": str(folder / "results"),
        },
        capture_output=True,
        text=True,
        check=True,
    )


def helps(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the seconds of every help text, by its name: as passed, and in the processor."""
    roots = {"": ROOT} | ({} if args.against is None else {", other checkout": args.against})
    processor: dict[str, list[float]] = {}

    def call(name: str, arguments: list[str], root: Path) -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command(folder, *arguments, root=root.resolve())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        processor.setdefault(name, []).append(spent)

    calls = {
        f"{name}{suffix}": partial(call, f"{name}{suffix}", arguments, root)
        for name, arguments in HELP.items()
        for suffix, root in roots.items()
    }
    forms = {name: lambda _, made=made: made() for name, made in calls.items()}
    seconds = interleaved(forms, args.repetitions)
    # The first call of each does not count.
    return {
        name: {"seconds": spread(each), "processor_seconds": spread(processor[name][1:])}
        for name, each in seconds.items()
    }


def search(folder: Path, args: argparse.Namespace, number: int) -> dict[str, float]:
    """Run a search of one trial; return its seconds until the first step, and in all."""
    before = set((folder / "results").rglob("epochs.jsonl"))
    began, clock = time.time(), time.perf_counter()
    command(
        folder, "tune", "--dataset", CORPUS, "--scale", str(args.scale), "--trials", "1",
        "--epochs", "1", "--seed", str(args.seed + number),
    )  # fmt: skip
    whole = time.perf_counter() - clock
    first_steps = []
    for path in set((folder / "results").rglob("epochs.jsonl")) - before:
        epoch = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
        first_steps.append(path.stat().st_mtime - epoch["seconds"] - began)
    return {"first_step": min(first_steps), "whole": whole}


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {"help": helps(folder, args)}
    if args.searches:
        measuring.progress("a search that does not count")
        search(folder, args, 0)
        found = []
        for number in range(1, args.searches + 1):
            found.append(search(folder, args, number))
            measuring.progress(f"search {number} of {args.searches}")
        results["search"] = {
            name: spread([each[name] for each in found]) for name in ("first_step", "whole")
        }
    return results


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    report = Report("startup", args)
    with tempfile.TemporaryDirectory() as folder:
        report.results = measure(args, Path(folder))
    rows = [
        [name, text_of(each["seconds"], 2), text_of(each["processor_seconds"], 2)]
        for name, each in report.results["help"].items()
    ]
    for name, each in report.results.get("search", {}).items():
        label = "until the first training step" if name == "first_step" else "whole command"
        rows.append([f"tune, one trial of one epoch: {label}", text_of(each, 1), ""])
    report.table(
        "Seconds: median (min-max)", ["command", "seconds", "of these in the processor"], rows
    )
    report.show()


if __name__ == "__main__":
    main(sys.argv[1:])
