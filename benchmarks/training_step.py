"""One two-step update and one evaluation pass over unaligned data, by how batches are padded.

Forms: ``plain`` is ``tests/reference/ref_step.py``, padded to the corpus's longest sequences: the
same mathematics as the published code does it; ``full`` pads alike and is otherwise this project's;
``batch`` pads to the longest of the batch; ``groups``, the default, cuts a batch into groups of
similar text length; ``bucketed`` also puts such utterances into one batch; ``bfloat16`` is
``groups`` with the text encoder's products in that precision; ``uncached`` is ``groups`` whose
encoder, if it is ``--frozen``, reads complete texts anew in every epoch. A step is what the trainer
does for a batch: collate it, draw its masks, update twice.

Shapes: N utterances, B batch.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpora
import measuring
import numpy as np
import specs
import torch
from measuring import MIB, PeakMemory, Report, interleaved, paired_ratio, scaled, spread, text_of
from plain_forms import plain_encoder_in, plain_predict, plain_update

from cider.condition import Condition
from cider.missing import training_masks
from cider.modules.text_cache import TextCache
from cider.seeding import batch_order, bucketed_order
from cider.training.evaluation import Masks, as_bool
from cider.training.texts import read_texts
from cider.training.update import TwoStepUpdate
from cider_platform.runs.assembly import (
    Runtime,
    assemble,
    batch_source,
    open_store,
    resolve,
    two_step_update,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from cider.modality import PerModality

FORMS = {
    "plain": {"padding": "full"},
    "full": {"padding": "full"},
    "batch": {"padding": "batch"},
    "groups": {"padding": "groups"},
    "bucketed": {"padding": "groups", "batching": "bucketed"},
    "bfloat16": {"padding": "groups"},
    "uncached": {"padding": "groups"},
}
EVALUATED = ("plain", "groups")  # no form changes how the model is evaluated but the plain one
CONDITION = Condition("rmfm", 0.5)


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    corpora.add_options(parser, "mosi")
    specs.add_options(parser)
    parser.add_argument("--rows", type=int, default=1280, help="training utterances")
    parser.add_argument("--evaluated-rows", type=int, default=128, help="validation utterances")
    parser.add_argument("--steps", type=int, default=2, help="steps per form and repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS)[:5])
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--peaks", action="store_true", help="only peak memory: the child process")
    return parser


class Bench:
    """One model over one corpus; the forms differ in how its batches are made."""

    def __init__(self, args: argparse.Namespace, root: Path) -> None:
        rows = {"train": args.rows, "valid": args.evaluated_rows, "test": 8}
        corpora.write_corpus(root, args, rows)
        runtime = Runtime(root, root / "results")
        spec = resolve(specs.run_spec(args), runtime)
        self.args, self.spec = args, spec
        self.store = open_store(spec, runtime)
        self.assembled = assemble(spec, self.store, runtime)
        if args.encoder == "none":
            specs.leave_encoder_out(self.assembled.model)
        self.update = two_step_update(spec, self.assembled, self.store)
        encoder = self.assembled.model.text_encoder
        self.cache, self.no_cache = encoder.cache, TextCache(0)
        read_texts(
            self.assembled.model, batch_source(self.store, spec, "train"), torch.device("cpu")
        )
        self.forms = {name: Form(self, name) for name in args.forms}


class Form:
    """One way to make batches, over the bench's model."""

    def __init__(self, bench: Bench, name: str) -> None:
        args = bench.args
        self.bench, self.name = bench, name
        spec = specs.run_spec(args, **FORMS[name])
        self.batching = spec.training.batching
        shared = bench.update
        self.update = TwoStepUpdate(
            shared.model, shared.optimizer, spec.training, spec.loss, shared.token_ids
        )
        self.train = batch_source(bench.store, spec, "train")
        self.valid = batch_source(bench.store, spec, "valid")
        self.forget_shares()

    def manner(self) -> Any:
        model, bench = self.bench.assembled.model, self.bench
        model.text_encoder.cache = bench.no_cache if self.name == "uncached" else bench.cache
        model.text_encoder.precision = "bfloat16" if self.name == "bfloat16" else "float32"
        return plain_encoder_in(model) if self.name == "plain" else nullcontext()

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the row numbers of an epoch's full batches, shortest text first."""
        size, text_N = self.bench.spec.training.batch_size, self.train.split.lengths.text
        if self.batching == "bucketed":
            order_N = bucketed_order(text_N, size, self.bench.spec.seed, epoch)
        else:
            order_N = batch_order(len(text_N), self.bench.spec.seed, epoch)
        full = np.split(order_N, range(size, len(order_N), size))[: len(order_N) // size]
        return sorted(full, key=lambda index_B: int(text_N[index_B].max()))

    def sample(self, repetition: int) -> list[np.ndarray]:
        """Return ``steps`` batches, evenly from short to long; repetitions share out the epoch."""
        args, batches = self.bench.args, self.batches(epoch=1)
        offset = (repetition + 0.5) / args.repetitions
        places = (np.arange(args.steps) + offset) * len(batches) / args.steps
        return [batches[int(place)] for place in places]

    def steps(self, repetition: int) -> None:
        self.bench.assembled.model.train()
        began = time.process_time()
        with self.manner():
            for index_B in self.sample(repetition):
                self.step(index_B)
        self.processor_seconds.append(time.process_time() - began)

    def step(self, index_B: np.ndarray) -> None:
        """Do what ``Trainer`` does for one batch."""
        began = time.perf_counter()
        batch = self.train.batch(index_B)
        collated = time.perf_counter()
        lengths = self.train.split.lengths.map(lambda lengths_N: lengths_N[index_B])
        padded = batch.complete.valid.map(lambda valid_BT: valid_BT.shape[1])
        spec = self.bench.spec
        masks = training_masks(
            spec.missing, lengths, index_B, seed=spec.seed, epoch=1, pad_to=padded
        )
        observed = masks.map(as_bool)
        drawn = time.perf_counter()
        if self.name == "plain":
            plain_update(self.update, batch, observed)
        else:
            self.update(batch, observed)
        self.padded.append(padded)
        self.seconds["collate"].append(collated - began)
        self.seconds["masks"].append(drawn - collated)
        self.seconds["update"].append(time.perf_counter() - drawn)

    def evaluate(self, _: int) -> None:
        spec = self.bench.spec
        masks = Masks(self.valid, CONDITION, spec.missing, spec.seed)
        with self.manner():
            predictor = self.bench.assembled.predictor
            if self.name == "plain":
                plain_predict(predictor, self.valid, masks)
            else:
                predictor.predict(self.valid, masks)

    def forget_shares(self) -> None:
        self.seconds: dict[str, list[float]] = {"collate": [], "masks": [], "update": []}
        self.padded: list[PerModality[int]] = []
        self.processor_seconds: list[float] = []

    def facts(self) -> dict[str, Any]:
        """Return the mean padded lengths of the steps, and where their time went."""
        # Medians: a collection of garbage, half a second, falls into any part of any step.
        seconds = {name: statistics.median(each) for name, each in self.seconds.items()}
        whole = sum(seconds.values())
        return {
            "padded_steps": [float(np.mean(sizes)) for sizes in zip(*self.padded, strict=True)],
            "share": {name: each / whole for name, each in seconds.items()},
        }


def measure(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    bench = Bench(args, root)
    for form in bench.forms.values():
        form.steps(0)
        form.forget_shares()
    measuring.progress("training steps")
    calls: dict[str, Callable[[int], object]] = {n: f.steps for n, f in bench.forms.items()}
    seconds = interleaved(calls, args.repetitions, warmup=0)
    evaluated = {n: bench.forms[n].evaluate for n in EVALUATED if n in bench.forms}
    measuring.progress("evaluation passes")
    passes = interleaved(evaluated, args.repetitions) if evaluated else {}
    results: dict[str, Any] = {}
    first = args.forms[0]
    for name, form in bench.forms.items():
        results[name] = {
            "step_seconds": spread(scaled(seconds[name], 1 / args.steps)),
            f"{first}_over_this": paired_ratio(seconds[first], seconds[name]),
            # Of all threads: what other work on the machine takes from this one is not in it.
            f"{first}_over_this_processor": paired_ratio(
                bench.forms[first].processor_seconds, form.processor_seconds
            ),
            **form.facts(),
        }
        if name in passes:
            results[name]["evaluation_seconds"] = spread(passes[name])
    return results


def peaks(args: argparse.Namespace, root: Path) -> dict[str, int]:
    """Return by form how far the step with the longest texts raises resident memory, in bytes."""
    bench = Bench(args, root)
    found = {}
    for name, form in bench.forms.items():
        bench.assembled.model.train()
        longest_B = form.batches(epoch=1)[-1]
        with form.manner():
            form.step(longest_B)
            with PeakMemory() as peak:
                form.step(longest_B)
        found[name] = peak.rise_bytes
    return found


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    measuring.set_threads(args)
    if args.rows < args.steps * args.batch_size:
        sys.exit(f"--rows must be at least {args.steps} batches of {args.batch_size}")
    with tempfile.TemporaryDirectory() as folder:
        if args.peaks:
            print(json.dumps(peaks(args, Path(folder))))
            return
        report = Report("training_step", args)
        report.results = measure(args, Path(folder))
    if not args.no_memory:
        measuring.progress("peak memory")
        for name, rise in measuring.run_child("training_step", [*argv, "--peaks"]).items():
            report.results[name]["peak_bytes"] = rise
    _describe(report, args.forms[0])
    report.show()


def _describe(report: Report, first: str) -> None:
    rows = []
    for name, found in report.results.items():
        shares = found["share"]
        evaluated = found.get("evaluation_seconds")
        peak = found.get("peak_bytes")
        rows.append(
            [
                name,
                text_of(found["step_seconds"], 3),
                text_of(found[f"{first}_over_this"], 2),
                text_of(found[f"{first}_over_this_processor"], 2),
                " / ".join(f"{size:.0f}" for size in found["padded_steps"]),
                " / ".join(f"{100 * shares[part]:.1f}" for part in ("collate", "masks")),
                "" if peak is None else f"{peak / MIB:.0f}",
                "" if evaluated is None else text_of(evaluated, 3),
            ]
        )
    report.table(
        "Seconds of a training step and of an evaluation pass: median (min-max)",
        [
            "form",
            "step",
            f"{first} / this",
            "in processor time",
            "padded text / audio / vision",
            "collate / masks, % of step",
            "peak rise, MiB",
            "evaluation pass",
        ],
        rows,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
