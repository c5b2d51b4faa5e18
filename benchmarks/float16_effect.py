"""What storing frames in float16 changes: the values, a trained model's answers, and training.

One corpus is imported twice, as float32 and as float16. Runs of the same seed are trained on both;
and the weights trained on float32 read both test splits. Small CIDers with a frozen text encoder of
random weights: frames have to say what they can.

Shapes: N utterances, S frames, F feature width, C classes.
"""

from __future__ import annotations

import csv
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import measuring
import numpy as np
from measuring import Report, progress, set_threads

from cider.condition import Condition
from cider.data.label_table import read_label_table
from cider.data.seal import permit_for_frozen_run
from cider.data.synthetic import canonical_name
from cider.data.table import import_table
from cider.data.writer import StoreWriter
from cider.models.cider.config import Config
from cider.spec import (
    SPLITS,
    DataConfig,
    RunSpec,
    SelectionConfig,
    TextEncoderConfig,
    TrainingConfig,
)
from cider.training.evaluation import all_metrics
from cider_platform.layout import RunFolder, read_json
from cider_platform.runs.assembly import Runtime, batch_source, open_store, resolve
from cider_platform.runs.evaluation import FrozenRun
from cider_platform.runs.trial import train_run

if TYPE_CHECKING:
    import argparse

    from cider.data.loader import BatchSource
    from cider.data.store import FeatureStore
    from cider.spec import FrameDtype

DTYPES: tuple[FrameDtype, ...] = ("float32", "float16")
CONDITIONS = (
    Condition("none", 0.0),
    Condition("rmfm", 0.5),
    Condition("smm", 0.0, "AV"),
)
"""Everything is there, half of it, and audio and vision alone."""
METRICS = ("acc2", "acc3", "f1")
_SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}
_NORMAL_FROM = float(np.finfo(np.float16).tiny)


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    parser.add_argument("--scale", type=float, default=0.5, help="of synthetic-mosi")
    parser.add_argument(
        "--wordlevel",
        type=Path,
        metavar="FILE.npz",
        help="real features instead: length (N,), words (N,), label (N,), and audio and vision, "
        "the frames of all utterances one after the other",
    )
    parser.add_argument("--encoder", help="tokenizer of those: a folder or a Hugging Face name")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=6, help="paired trainings")
    return parser


def base_spec(dataset: str, args: argparse.Namespace) -> RunSpec:
    return RunSpec(
        data=DataConfig(
            dataset=dataset, alignment="aligned" if not args.wordlevel else "unaligned"
        ),
        model=Config(layers=1, heads=4),
        text_encoder=TextEncoderConfig(source="scratch", layers=1, width=32, fine_tune=False),
        training=TrainingConfig(
            epochs=args.epochs, patience=args.epochs, batch_size=32, batching="bucketed"
        ),
        selection=SelectionConfig(rates=(0.0,)),
    )


def import_synthetic(args: argparse.Namespace, runtime: Runtime) -> dict[FrameDtype, str]:
    """Generate a corpus and store its rows twice; return the names."""
    spec = base_spec(canonical_name("synthetic-mosi", scale=args.scale), args)
    source = open_store(spec, runtime)
    manifest = source.manifest
    names: dict[FrameDtype, str] = {dtype: f"copy-{dtype}" for dtype in DTYPES}
    for dtype, name in names.items():
        with StoreWriter(
            runtime.store,
            replace(manifest.key, dataset=name),
            tokenizer=manifest.tokenizer,
            widths=manifest.widths,
            max_lengths=manifest.max_lengths,
            source=manifest.source,
            default_encoder=manifest.default_encoder,
            synthetic=True,
            dtype=dtype,
        ) as writer:
            for split in SPLITS:
                view, labels = source.split(split), read_label_table(source.folder, split)
                rows = range(len(view))
                writer.add(
                    split,
                    view.ids,
                    view.texts,
                    [view.token_ids(row) for row in rows],
                    [view.frames("audio", row) for row in rows],
                    [view.frames("vision", row) for row in rows],
                    labels.labels,
                )
            writer.finish()
    return names


def import_wordlevel(args: argparse.Namespace, runtime: Runtime) -> dict[FrameDtype, str]:
    """Write the table and the features of a real corpus, and import them twice."""
    with np.load(args.wordlevel, allow_pickle=False) as given:
        length_N, words_N, label_N = (given[name] for name in ("length", "words", "label"))
        frames = {name: given[name] for name in ("audio", "vision")}
    rng = np.random.default_rng(args.seed)
    split_N = rng.choice(list(_SHARES), size=len(label_N), p=list(_SHARES.values()))
    folder = runtime.store.parent
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "split", "label", "text"])
        for row, (split, label, words) in enumerate(zip(split_N, label_N, words_N, strict=True)):
            table.writerow([f"row{row}", split, np.clip(label, -3, 3), words])
    np.savez(folder / "features.npz", **frames, lengths=length_N)
    names: dict[FrameDtype, str] = {dtype: f"real-{dtype}" for dtype in DTYPES}
    for dtype, name in names.items():
        import_table(
            runtime.store,
            folder / "table.csv",
            folder / "features.npz",
            dataset=name,
            encoder=args.encoder,
            dtype=dtype,
        )
    return names


def rounding(exact: FeatureStore, rounded: FeatureStore) -> dict[str, dict[str, float]]:
    """Return what happened to the values of each modality, over all splits."""
    found = {}
    for name in ("audio", "vision"):
        pairs = [
            (store_split.frames(name, row), rounded.split(split).frames(name, row))
            for split in SPLITS
            for store_split in [exact.split(split)]
            for row in range(len(store_split))
        ]
        before, after = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
        size, error = np.abs(before), np.abs(after - before)
        normal = size >= _NORMAL_FROM
        found[name] = {
            "values": before.size,
            "largest": float(size.max()),
            "not_zero_became_zero": float(((before != 0) & (after == 0)).mean()),
            "below_float16_normal": float(((before != 0) & ~normal).mean()),
            "largest_relative_error": float((error[normal] / size[normal]).max()),
            "root_mean_square_over_deviation": float(np.sqrt((error**2).mean()) / before.std()),
        }
    return found


def train(spec: RunSpec, runtime: Runtime) -> RunFolder:
    for _ in train_run(spec, runtime):
        pass
    return RunFolder.of(runtime.results, spec.run_id)


def answers(folder: RunFolder, run: FrozenRun, test: BatchSource) -> list[np.ndarray]:
    """Return the scores (N, C) of a test split under every condition."""
    tau, space = read_json(folder.frozen)["tau"], run.spec.maci.counterfactual_space
    return [each.scores(tau, space) for each in run.predict(test, CONDITIONS).predictions]


def one_seed(names: dict[FrameDtype, str], runtime: Runtime, spec: RunSpec) -> list[dict[str, Any]]:
    """Train on both stores; return one row per condition."""
    specs = {
        dtype: resolve(replace(spec, data=replace(spec.data, dataset=name)), runtime)
        for dtype, name in names.items()
    }
    folders = {dtype: train(each, runtime) for dtype, each in specs.items()}
    runs = {dtype: FrozenRun(folder, runtime) for dtype, folder in folders.items()}
    tests = {
        dtype: batch_source(
            run.store, specs[dtype], "test", permit_for_frozen_run(folders[dtype].root)
        )
        for dtype, run in runs.items()
    }
    labels_N = tests["float32"].labels_N
    own = {dtype: answers(folders[dtype], runs[dtype], tests[dtype]) for dtype in DTYPES}
    swapped = answers(folders["float32"], runs["float32"], tests["float16"])
    rows = []
    for number, condition in enumerate(CONDITIONS):
        exact_NC, rounded_NC = own["float32"][number], swapped[number]
        rows.append(
            {
                "condition": str(condition),
                "exact": all_metrics(exact_NC, labels_N),
                "same_weights": all_metrics(rounded_NC, labels_N),
                "trained": all_metrics(own["float16"][number], labels_N),
                "answers_changed": float(
                    (exact_NC.argmax(axis=1) != rounded_NC.argmax(axis=1)).mean()
                ),
                "largest_probability_change": float(
                    np.abs(_softmax(exact_NC) - _softmax(rounded_NC)).max()
                ),
            }
        )
    return rows


def _softmax(scores_NC: np.ndarray) -> np.ndarray:
    raised_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
    return raised_NC / raised_NC.sum(axis=1, keepdims=True)


def measure(args: argparse.Namespace, root: Path) -> Report:
    report = Report("float16_effect", args)
    runtime = Runtime(root / "store", root / "results", threads=args.threads)
    names = (import_wordlevel if args.wordlevel else import_synthetic)(args, runtime)
    spec = base_spec(names["float32"], args)
    stores = {
        dtype: open_store(replace(spec, data=replace(spec.data, dataset=name)), runtime)
        for dtype, name in names.items()
    }
    seeds = []
    for number in range(args.seeds):
        seeds.append(one_seed(names, runtime, replace(spec, seed=args.seed + number)))
        progress(f"seed {number + 1} of {args.seeds}")
    report.results = {
        "counts": stores["float32"].manifest.counts,
        "rounding": rounding(stores["float32"], stores["float16"]),
        "seeds": seeds,
    }
    _describe(report)
    return report


def _difference(rows: list[dict[str, Any]], against: str, metric: str) -> str:
    """Return the mean of the seeds' differences to float32, with its standard error."""
    values = [row[against][metric] - row["exact"][metric] for row in rows]
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean(values):+.4f} ({error:.4f})"


def _describe(report: Report) -> None:
    found = report.results
    report.note(f"Utterances: {found['counts']}.")
    report.table(
        "Values: float16 beside float32",
        ["", "values", "largest", "became zero", "largest relative error",
         "root mean square error / standard deviation"],
        [
            [
                name, str(each["values"]), f"{each['largest']:.4g}",
                f"{each['not_zero_became_zero']:.1e}", f"{each['largest_relative_error']:.2e}",
                f"{each['root_mean_square_over_deviation']:.1e}",
            ]
            for name, each in found["rounding"].items()
        ],
    )  # fmt: skip
    by_condition = list(zip(*found["seeds"], strict=True))
    report.table(
        "The same weights, trained on float32, on the float16 test split: over all seeds",
        ["condition", "answers changed", "largest change of a probability",
         *(f"{metric}: mean difference (standard error)" for metric in METRICS)],
        [
            [
                rows[0]["condition"], f"{mean(row['answers_changed'] for row in rows):.4f}",
                f"{max(row['largest_probability_change'] for row in rows):.1e}",
                *(_difference(rows, "same_weights", metric) for metric in METRICS),
            ]
            for rows in by_condition
        ],
    )  # fmt: skip
    report.table(
        "Trained and tested on float16, less the same seed on float32",
        ["condition", *(f"{metric}: float32, mean" for metric in METRICS),
         *(f"{metric}: mean difference (standard error)" for metric in METRICS)],
        [
            [
                rows[0]["condition"],
                *(f"{mean(row['exact'][metric] for row in rows):.4f}" for metric in METRICS),
                *(_difference(rows, "trained", metric) for metric in METRICS),
            ]
            for rows in by_condition
        ],
    )  # fmt: skip


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    if args.wordlevel and not args.encoder:
        sys.exit("--wordlevel needs --encoder, whose tokenizer reads the words")
    set_threads(args)
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder)).show()


if __name__ == "__main__":
    main(sys.argv[1:])
