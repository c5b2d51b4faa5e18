"""Memory that loader processes of one store add, each of which reads every batch of every split.

Counted are each process's proportional set size (PSS: of a shared page, its part) of anonymous
memory and of the store's mapped files. Not counted are the files of interpreter and libraries,
whose parts depend on what else runs on the machine, and the anonymous memory of processes that have
imported everything and opened nothing: that sum is the baseline. One process after the other then
opens the store and reads it through. What the n-th adds is the rise of the sum over all processes:
pages of the store that others have mapped too are not counted again, copies would be.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpora
import measuring
from measuring import MIB, Report, mapped_bytes, memory_rollup

if TYPE_CHECKING:
    import argparse


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    corpora.add_options(parser, "mosei")
    parser.add_argument("--rows", type=int, default=8000, help="training utterances")
    parser.add_argument("--store", type=Path, help="folder of a stored corpus to read instead")
    parser.add_argument("--loaders", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--padding", choices=("batch", "full"), default="batch")
    parser.add_argument("--child", type=Path, metavar="STORE", help="be one of the loaders")
    return parser


class Loader:
    """What a loader process does, told by lines of its standard input."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.held: list[Any] = []

    def read(self) -> dict[str, Any]:
        """Open the store, make every batch of every split, and keep the last one."""
        from cider.data.loader import BatchSource  # noqa: PLC0415 - the parent needs no torch
        from cider.data.store import FeatureStore  # noqa: PLC0415
        from cider.modality import PerModality  # noqa: PLC0415

        started, batches, last = time.perf_counter(), 0, None
        store = FeatureStore.open(self.args.child)
        for split in ("train", "valid", "test"):
            longest = store.manifest.padded_lengths(split)
            source = BatchSource(
                store.split(split),
                None,  # labels are a few bytes, and those of the test split sealed
                widths=store.manifest.widths,
                longest=PerModality(longest["text"], longest["audio"], longest["vision"]),
                full_padding=self.args.padding == "full",
            )
            for batch in source.batches(self.args.batch_size):
                batches += 1
                last = batch
        self.held = [store, last]
        return {"batches": batches, "seconds": time.perf_counter() - started}

    def release(self) -> dict[str, Any]:
        """Drop the last batch; the store stays open."""
        self.held = self.held[:1]
        return {}

    def measure(self) -> dict[str, Any]:
        gc.collect()
        whole = memory_rollup()
        return {
            "anonymous_bytes": whole["Pss_Anon"] + whole["Pss_Shmem"],
            "store_bytes": mapped_bytes(self.args.child),
            "whole_pss_bytes": whole["Pss"],
        }


def serve(args: argparse.Namespace) -> None:
    """Import what a training imports, then do what each line asks for and answer in JSON."""
    import cider.data.loader  # noqa: PLC0415
    import cider.data.store  # noqa: F401, PLC0415

    measuring.import_lazy_modules()
    loader = Loader(args)
    actions = {"read": loader.read, "release": loader.release, "measure": loader.measure}
    for line in sys.stdin:
        print(json.dumps(actions[line.strip()]()), flush=True)


class Process:
    """A loader process, seen by the parent."""

    def __init__(self, store: Path, args: argparse.Namespace) -> None:
        options_ = ["--batch-size", str(args.batch_size), "--padding", args.padding]
        self._process = subprocess.Popen(
            measuring.child_command("loaders_memory", ["--child", str(store), *options_]),
            env=measuring.child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes its input, which ends it, and waits
            pass

    def ask(self, action: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{action}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def measure(args: argparse.Namespace, store: Path) -> dict[str, Any]:
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(store, args)) for _ in range(args.loaders)]

        def total() -> int:
            each = [process.ask("measure") for process in processes]
            return sum(found["anonymous_bytes"] + found["store_bytes"] for found in each)

        total()  # the first measurement takes some memory itself
        baseline = total()
        before = baseline
        loaders = []
        for number, process in enumerate(processes, start=1):
            facts = process.ask("read")
            holding = total()
            process.ask("release")
            after = total()
            own = process.ask("measure")
            loaders.append(
                {
                    "added_bytes": after - before,
                    "added_bytes_holding_a_batch": holding - before,
                    "sum_bytes": after - baseline,
                    "own": own,
                    **facts,
                }
            )
            before = after
            measuring.progress(f"loader {number} of {args.loaders}")
    store_bytes = sum(file.stat().st_size for file in store.iterdir())
    return {
        "store_bytes": store_bytes,
        "baseline_bytes": baseline,
        "loaders": loaders,
        "last_added_over_store": loaders[-1]["added_bytes"] / store_bytes,
        "last_added_over_store_holding_a_batch": (
            loaders[-1]["added_bytes_holding_a_batch"] / store_bytes
        ),
    }


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    if args.child is not None:
        serve(args)
        return
    report = Report("loaders_memory", args)
    with tempfile.TemporaryDirectory() as folder:
        store = args.store
        if store is None:
            measuring.progress("writing the store")
            rows = {"train": args.rows, "valid": args.batch_size, "test": args.batch_size}
            store = corpora.write_corpus(Path(folder), args, rows)
        report.results = measure(args, store)
    _describe(report)
    report.show()


def _describe(report: Report) -> None:
    found = report.results
    store = found["store_bytes"]
    report.table(
        "Rise of the sum over all processes (anonymous memory and the store's pages), MiB",
        [
            "loaders",
            "sum",
            "added by the last",
            "% of the store",
            "% while it holds a batch",
            "seconds to read all",
        ],
        [
            [
                str(number),
                f"{each['sum_bytes'] / MIB:.1f}",
                f"{each['added_bytes'] / MIB:.1f}",
                f"{100 * each['added_bytes'] / store:.2f}",
                f"{100 * each['added_bytes_holding_a_batch'] / store:.2f}",
                f"{each['seconds']:.2f}",
            ]
            for number, each in enumerate(found["loaders"], start=1)
        ],
    )
    report.note(
        f"Store {store / MIB:.1f} MiB. Not counted: {found['baseline_bytes'] / MIB:.0f} MiB of "
        f"anonymous memory that the {len(found['loaders'])} processes had before they opened it, "
        "and the files of interpreter and libraries."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
