"""Import of an MMSA-shaped pickle: speed, size of the store, peak memory, verification.

Every timing is of a new process, and the file is in the page cache. ``pickle.load`` of the same
file is timed beside it: it only reads, while the import hashes, checks, cuts off padding and
writes.

Shapes: N utterances, S padded frames, F feature width.
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpora
import measuring
import numpy as np
from measuring import MIB, PeakMemory, Report, paired_ratio, spread, text_of

from cider.data.import_plan import ImportFile
from cider.data.ingest import import_pickle
from cider.data.schema import StoreKey
from cider.data.verify import verify_corpus

if TYPE_CHECKING:
    import argparse

SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}
TEXT_FEATURES = 768
"""Width of the BERT features under the key ``text``, which real files have and no import keeps."""


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    corpora.add_options(parser, "mosei")
    parser.add_argument("--rows", type=int, default=2000, help="utterances of all splits")
    parser.add_argument("--folder", type=Path, help="where the files lie for the while")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--child",
        nargs=2,
        metavar=("ACTION", "FOLDER"),
        help="do one thing in a folder that is prepared: what the child processes are for",
    )
    return parser


def write_pickle(path: Path, args: argparse.Namespace) -> int:
    """Write the feature file and return the bytes of its largest array."""
    rng = np.random.default_rng(args.seed)
    lengths = corpora.Lengths(args)
    content = {
        split: mmsa_split(max(2, round(args.rows * share)), split, lengths, rng)
        for split, share in SHARES.items()
    }
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=4)
    return max(
        values.nbytes
        for split in content.values()
        for values in split.values()
        if isinstance(values, np.ndarray)
    )


def mmsa_split(
    count: int, split: str, lengths: corpora.Lengths, rng: np.random.Generator
) -> dict[str, Any]:
    """Return one split as the MMSA project's files have it, padded with zeros."""
    drawn = lengths.draw(count, rng)
    text_bert_N3T = np.zeros((count, 3, lengths.longest["text"]), np.float32)
    frames = {
        name: np.zeros((count, lengths.longest[name], width), np.float32)
        for name, width in lengths.facts.widths.items()
    }
    for row, (text, audio, vision) in enumerate(zip(*drawn, strict=True)):
        text_bert_N3T[row, 0, :text] = corpora.words(int(text), rng)
        text_bert_N3T[row, 1, :text] = 1
        for name, steps in (("audio", audio), ("vision", vision)):
            width = frames[name].shape[2]
            frames[name][row, :steps] = rng.standard_normal((steps, width), np.float32)
    labels_N = corpora.labels(count, rng)
    classes_N = np.sign(labels_N).astype(np.int64) + 1
    text_shape = (count, lengths.longest["text"], TEXT_FEATURES)
    return {
        "raw_text": np.array([f"utterance {row}" for row in range(count)], object),
        "id": [f"{split}$_${row}" for row in range(count)],
        **frames,
        "text": rng.standard_normal(text_shape, np.float32),
        "text_bert": text_bert_N3T,
        "annotations": [("Negative", "Neutral", "Positive")[number] for number in classes_N],
        "classification_labels": classes_N,
        "regression_labels": labels_N,
        "audio_lengths": drawn.audio.tolist(),
        "vision_lengths": drawn.vision.tolist(),
    }


KEY = StoreKey(dataset=corpora.DATASET, alignment="unaligned", distribution="iid")


def import_once(folder: Path) -> None:
    file = ImportFile(path=folder / "features.pkl")
    import_pickle(folder, file, dataset=KEY.dataset, distribution="iid", overwrite=True)


def load_once(folder: Path) -> None:
    with (folder / "features.pkl").open("rb") as file:
        pickle.load(file)


def verify_once(folder: Path) -> None:
    faults = verify_corpus(KEY.folder(folder)).faults
    assert not faults, faults


ACTIONS = {"import": import_once, "pickle.load": load_once, "verify": verify_once}


def act(action: str, folder: Path) -> dict[str, float]:
    """Do one thing in this process; return its seconds and the rise of resident memory."""
    measuring.import_lazy_modules()
    with PeakMemory() as peak:
        started = time.perf_counter()
        ACTIONS[action](folder)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_bytes": peak.rise_bytes}


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    measuring.progress("writing the pickle")
    path = folder / "features.pkl"
    largest_bytes = write_pickle(path, args)
    found: dict[str, list[dict[str, float]]] = {action: [] for action in ACTIONS}
    for repetition in range(args.repetitions):
        for action, values in found.items():
            child = ["--child", action, str(folder)]
            values.append(measuring.run_child("data_import", child))
        measuring.progress(f"repetition {repetition + 1} of {args.repetitions}")
    pickle_bytes = path.stat().st_size
    store_bytes = sum(file.stat().st_size for file in KEY.folder(folder).iterdir())
    seconds = {action: [each["seconds"] for each in values] for action, values in found.items()}
    peak = {action: max(each["peak_bytes"] for each in found[action]) for action in found}
    return {
        "pickle_bytes": pickle_bytes,
        "store_bytes": store_bytes,
        "store_over_pickle": store_bytes / pickle_bytes,
        "largest_array_bytes": largest_bytes,
        "seconds": {action: spread(values) for action, values in seconds.items()},
        "pickle_mib_per_second": {
            action: spread([pickle_bytes / MIB / each for each in seconds[action]])
            for action in ("import", "pickle.load")
        },
        "store_mib_per_second": {
            "verify": spread([store_bytes / MIB / each for each in seconds["verify"]])
        },
        "import_over_load": paired_ratio(seconds["import"], seconds["pickle.load"]),
        "peak_bytes": peak,
        "import_peak_over_largest_array": peak["import"] / largest_bytes,
    }


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    if args.child is not None:
        action, folder = args.child
        print(json.dumps(act(action, Path(folder))))
        return
    report = Report("data_import", args)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        report.results = measure(args, Path(folder))
    _describe(report)
    report.show()


def _describe(report: Report) -> None:
    found = report.results
    rates = {**found["pickle_mib_per_second"], **found["store_mib_per_second"]}
    report.table(
        "Median (min-max); MiB/s of the pickle, of the store for verify",
        ["", "seconds", "MiB/s", "peak rise of memory, MiB"],
        [
            [
                action,
                text_of(found["seconds"][action], 2),
                text_of(rates[action], 0),
                f"{found['peak_bytes'][action] / MIB:.0f}",
            ]
            for action in ACTIONS
        ],
    )
    report.note(
        f"Pickle {found['pickle_bytes'] / MIB:.0f} MiB, store {found['store_bytes'] / MIB:.0f} MiB "
        f"({found['store_over_pickle']:.3f} of it). Peak of the import over the largest array of "
        f"the file ({found['largest_array_bytes'] / MIB:.0f} MiB): "
        f"{found['import_peak_over_largest_array']:.2f}. Import over pickle.load: "
        f"{text_of(found['import_over_load'], 2)}."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
