"""How near a plan comes: the wall time that ``plan`` foretells and the one that ``run`` then takes.

A past grid is run first, on one slot, so that there are times to plan from. Then, for every number
of slots, a grid of the same cells with another seed is planned and run: nothing that is foretold
has been measured. Wall time is that of the whole command.
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
from measuring import Report

if TYPE_CHECKING:
    import argparse

PROGRAM = (sys.executable, "-m", "cider_platform")


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    parser.add_argument("--job", default="smoke")
    parser.add_argument("--axis", action="append", default=[], help="narrow an axis of the job")
    parser.add_argument("--slots", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--repetitions", type=int, default=1, help="grids per number of slots")
    parser.add_argument(
        "--folder", type=Path, help="of store and results; default: a temporary one"
    )
    return parser


class Bench:
    """A store, results, and the command line on them."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args = args
        self._where = ["--store", folder / "store", "--results", folder / "results"]
        path = os.pathsep.join([str(measuring.ROOT), str(measuring.ROOT / "platform")])
        self._environment = {**os.environ, "PYTHONPATH": path}

    def _type(self, command: str, seed: int, slots: int, *words: str) -> tuple[Any, float]:
        axes = [f"--axis={each}" for each in (*self._args.axis, f"seed={seed}")]
        line = [
            *(*PROGRAM, command, self._args.job, *axes, f"--slots={slots}", "--device=cpu"),
            *(*map(str, self._where), *words, "--json"),
        ]
        begun = time.perf_counter()
        done = subprocess.run(
            line, env=self._environment, stdout=subprocess.PIPE, check=True, text=True
        )
        return json.loads(done.stdout)["data"], time.perf_counter() - begun

    def run(self, seed: int, slots: int) -> float:
        """Return the seconds that a grid takes."""
        measuring.progress(f"running a grid of seed {seed} on {slots} slots")
        return self._type("run", seed, slots, "--yes")[1]

    def plan(self, seed: int, slots: int) -> dict[str, Any]:
        """Return what a grid is foretold to take."""
        found, _ = self._type("plan", seed, slots)
        forecast: dict[str, Any] = found["forecast"]
        return {**forecast, "runs": found["to_do"]}


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    bench = Bench(args, folder)
    seed = args.seed
    results: dict[str, Any] = {"past_seconds": bench.run(seed, 1), "grids": []}
    for _ in range(args.repetitions):
        for slots in args.slots:
            seed += 1
            foretold = bench.plan(seed, slots)
            took = bench.run(seed, slots)
            p50 = foretold["wall_p50_seconds"]
            results["grids"].append(
                {
                    "slots": slots,
                    "runs": foretold["runs"],
                    "foretold_p50_seconds": p50,
                    "foretold_p90_seconds": foretold["wall_p90_seconds"],
                    "took_seconds": took,
                    "error": p50 / took - 1,
                }
            )
    return results


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    report = Report("plan_accuracy", args)
    with tempfile.TemporaryDirectory(prefix="cider-plan-") as place:
        report.results = found = measure(args, args.folder or Path(place))
    report.table(
        f"Wall time of {args.job}, seconds",
        ["slots", "runs", "foretold p50", "foretold p90", "took", "foretold / took - 1"],
        [
            [
                *(str(each["slots"]), str(each["runs"]), f"{each['foretold_p50_seconds']:.1f}"),
                *(f"{each['foretold_p90_seconds']:.1f}", f"{each['took_seconds']:.1f}"),
                f"{each['error']:+.1%}",
            ]
            for each in found["grids"]
        ],
    )
    report.note(
        f"The past grid, which the plans are made from, took {found['past_seconds']:.1f} s."
    )
    report.show()


if __name__ == "__main__":
    main(sys.argv[1:])
