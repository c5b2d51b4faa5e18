"""Reading a results folder of many runs: as a list, by a condition, as tables.

The runs are written with the files of real ones (spec, result, status, one row per condition) and
invented numbers. Files are read from the page cache: they were just written.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import measuring
from measuring import Report, interleaved, spread, text_of

from cider.metrics import METRICS
from cider.spec import DataConfig, RunSpec
from cider_platform.layout import RunFolder, write_json_atomic
from cider_platform.results import find_runs, load
from cider_platform.runs.conditions import evaluation_name, full_conditions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=3)
    return parser


def write_run(root: Path, number: int) -> None:
    """Write a complete run that was evaluated under the full set of conditions."""
    metrics = {name: number / 1e4 for name, each in METRICS.items() if each.task == "three_class"}
    spec = RunSpec(data=DataConfig(dataset="speed"), seed=number)
    folder = RunFolder.of(root, f"{number:016x}")
    write_json_atomic(folder.spec, spec.to_dict())
    write_json_atomic(folder.result, {"score": 0.5, "epochs": 3, "valid": metrics})
    folder.write_status("COMPLETE")
    for condition in full_conditions("unaligned"):
        row = {
            "protocol": condition.protocol,
            "rate": condition.rate,
            "kept": condition.kept,
            "selection": "validation",
            "tau": 0.3,
            "valid": metrics,
            "test": metrics,
            "confusion": [[1, 2, 3]] * 3,
        }
        write_json_atomic(folder.evaluation_file(evaluation_name(condition)), row)


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    report = Report("results_table", args)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(args.runs):
            write_run(root, number)
        measuring.progress(f"{args.runs} runs written")
        forms: dict[str, Callable[[int], object]] = {
            "list": lambda _: find_runs(root),
            "where seed<10": lambda _: find_runs(root, ["seed<10"]),
            "where test.rmm.acc2@0.5>0": lambda _: find_runs(root, ["test.rmm.acc2@0.5>0"]),
            "load runs": lambda _: load(root),
            "load evaluations": lambda _: load(root, "evaluations"),
        }
        seconds = interleaved(forms, args.repetitions)
        shapes = {name: load(root, name).shape for name in ("runs", "evaluations")}
    report.results = {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "shapes": shapes,
    }
    report.table(
        f"{args.runs} runs of {len(full_conditions('unaligned'))} conditions: median (min-max)",
        ["what", "seconds"],
        [[name, text_of(found, 2)] for name, found in report.results["seconds"].items()],
    )
    report.note("; ".join(f"{name}: {rows} rows, {columns} columns" for name, (rows, columns) in
                          shapes.items()))  # fmt: skip
    report.show()


if __name__ == "__main__":
    main(sys.argv[1:])
