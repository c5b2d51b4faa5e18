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
import subprocess
import sys
import tempfile
import time
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
    parser.add_argument("--scale", type=float, default=0.05, help="size of the synthetic corpus")
    return parser


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cider_platform", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
            "CIDER_STORE": str(folder / "store"),
            "CIDER_RESULTS": str(folder / "results"),
        },
        capture_output=True,
        text=True,
        check=True,
    )


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
    calls = {
        name: lambda _, arguments=arguments: command(folder, *arguments)
        for name, arguments in HELP.items()
    }
    results: dict[str, Any] = {
        "help": {name: spread(each) for name, each in interleaved(calls, args.repetitions).items()}
    }
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
    rows = [[name, text_of(each, 2)] for name, each in report.results["help"].items()]
    for name, each in report.results.get("search", {}).items():
        label = "until the first training step" if name == "first_step" else "whole command"
        rows.append([f"tune, one trial of one epoch: {label}", text_of(each, 1)])
    report.table("Seconds: median (min-max)", ["command", "seconds"], rows)
    report.show()


if __name__ == "__main__":
    main(sys.argv[1:])
