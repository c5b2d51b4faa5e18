"""Import of an MMSA-shaped pickle: speed, size of the store, peak memory, verification.

Every timing is of a new process; the file is in the page cache unless ``--cold`` drops it from
there. Beside the import are timed, of the same file: reading its bytes, their SHA-256, and
``pickle.load``, which all do a part of what the import does: it hashes, checks, cuts off padding
and writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpora
import measuring
import mmsa_pickles
from measuring import MIB, PeakMemory, Report, paired_ratio, spread, text_of

from cider.data.import_plan import ImportFile
from cider.data.ingest import import_pickle
from cider.data.schema import StoreKey
from cider.data.verify import verify_corpus

if TYPE_CHECKING:
    import argparse

    from cider.spec import FrameDtype

CHUNK_BYTES = 2**20


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    corpora.add_options(parser, "mosei")
    mmsa_pickles.add_options(parser)
    parser.add_argument("--store-dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--cold", action="store_true", help="read the file from the disk each time")
    parser.add_argument("--actions", nargs="+", choices=list(ACTIONS), default=list(ACTIONS))
    parser.add_argument("--folder", type=Path, help="where the files lie for the while")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--child",
        nargs=3,
        metavar=("ACTION", "FOLDER", "DTYPE"),
        help="do one thing in a folder that is prepared: what the child processes are for",
    )
    return parser


KEY = StoreKey(dataset=corpora.DATASET, alignment="unaligned", distribution="iid")


def path_in(folder: Path) -> Path:
    return folder / "features.pkl"


def import_once(folder: Path, dtype: FrameDtype) -> None:
    file = ImportFile(path=path_in(folder))
    import_pickle(
        folder, file, dataset=KEY.dataset, distribution="iid", dtype=dtype, overwrite=True
    )


def read_once(folder: Path, _: FrameDtype) -> None:
    buffer = bytearray(CHUNK_BYTES)
    with path_in(folder).open("rb", buffering=0) as file:
        while file.readinto(buffer):
            continue


def hash_once(folder: Path, _: FrameDtype) -> None:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES))
    with path_in(folder).open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])


def load_once(folder: Path, _: FrameDtype) -> None:
    with path_in(folder).open("rb") as file:
        pickle.load(file)


def verify_once(folder: Path, _: FrameDtype) -> None:
    faults = verify_corpus(KEY.folder(folder)).faults
    assert not faults, faults


ACTIONS = {
    "import": import_once,
    "read": read_once,
    "sha256": hash_once,
    "pickle.load": load_once,
    "verify": verify_once,
}


def act(action: str, folder: Path, dtype: FrameDtype) -> dict[str, float]:
    """Do one thing in this process; return its seconds and the rise of resident memory."""
    measuring.import_lazy_modules()
    with PeakMemory() as peak:
        started, cpu_started = time.perf_counter(), time.process_time()
        ACTIONS[action](folder, dtype)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    return {"seconds": seconds, "processor_seconds": cpu, "peak_bytes": peak.rise_bytes}


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    measuring.progress("writing the pickle")
    path = path_in(folder)
    largest_bytes = mmsa_pickles.write_pickle(path, args)
    found: dict[str, list[dict[str, float]]] = {action: [] for action in args.actions}
    for repetition in range(args.repetitions):
        for action, values in found.items():
            if args.cold:
                forget(path)
            child = ["--child", action, str(folder), args.store_dtype]
            values.append(measuring.run_child("data_import", child))
        measuring.progress(f"repetition {repetition + 1} of {args.repetitions}")
    pickle_bytes = path.stat().st_size
    store_bytes = sum(file.stat().st_size for file in KEY.folder(folder).iterdir())
    seconds = {action: [each["seconds"] for each in values] for action, values in found.items()}
    peak = {action: max(each["peak_bytes"] for each in found[action]) for action in found}
    mib = {action: pickle_bytes / MIB for action in found} | {"verify": store_bytes / MIB}
    return {
        "pickle_bytes": pickle_bytes,
        "store_bytes": store_bytes,
        "store_over_pickle": store_bytes / pickle_bytes,
        "largest_array_bytes": largest_bytes,
        "seconds": {action: spread(values) for action, values in seconds.items()},
        "processor_seconds": {
            action: spread([each["processor_seconds"] for each in values])
            for action, values in found.items()
        },
        "mib_per_second": {
            action: spread([mib[action] / each for each in values])
            for action, values in seconds.items()
        },
        "import_over": {
            action: paired_ratio(seconds["import"], values)
            for action, values in seconds.items()
            if action not in ("import", "verify")
        },
        "peak_bytes": peak,
        "import_peak_over_largest_array": peak["import"] / largest_bytes,
    }


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    if args.child is not None:
        action, folder, dtype = args.child
        print(json.dumps(act(action, Path(folder), dtype)))
        return
    report = Report("data_import", args)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        report.results = measure(args, Path(folder))
    _describe(report)
    report.show()


def _describe(report: Report) -> None:
    found = report.results
    report.table(
        "Median (min-max); MiB/s of the pickle, of the store for verify",
        ["", "seconds", "of these in the processor", "MiB/s", "peak rise of memory, MiB"],
        [
            [
                action,
                text_of(found["seconds"][action], 2),
                text_of(found["processor_seconds"][action], 2),
                text_of(found["mib_per_second"][action], 0),
                f"{peak_bytes / MIB:.0f}",
            ]
            for action, peak_bytes in found["peak_bytes"].items()
        ],
    )
    ratios = "; ".join(
        f"over {action} {text_of(each, 2)}" for action, each in found["import_over"].items()
    )
    report.note(
        f"Pickle {found['pickle_bytes'] / MIB:.0f} MiB, store {found['store_bytes'] / MIB:.0f} MiB "
        f"({found['store_over_pickle']:.3f} of it). Peak of the import over the largest array of "
        f"the file ({found['largest_array_bytes'] / MIB:.0f} MiB): "
        f"{found['import_peak_over_largest_array']:.2f}. Import {ratios}."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
