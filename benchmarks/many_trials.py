"""What a search costs beside its trainings: no-op trials, proposals, resuming, the driver's memory.

A no-op trial yields one epoch result at once; everything around it is real: ``drive``, the study
on disk, Ray with reused actors. Each part runs in a process of its own.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring
from measuring import MIB, Report, spread, text_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from cider.spec import RunSpec
    from cider.training.trainer import EpochResult
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.driver import Plan
    from cider_platform.search.ledger import Ledger, TrialRecord
    from cider_platform.search.search import Change
    from cider_platform.search.storage import Storage

PARTS = ("study", "ask", "resume")
TEN_MINUTES = 600
NAME = "many"


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--trials", type=int, nargs="+", default=(300,), help="of no-op studies")
    parser.add_argument("--slots", type=int, default=2, help="trials at a time")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--finished", type=int, default=1000, help="trials before an ask")
    parser.add_argument("--asks", type=int, default=21, help="asks that count")
    parser.add_argument("--resumed", type=int, default=5000, help="trials of the resumed study")
    parser.add_argument("--child", choices=PARTS, help="one part, in this process")
    parser.add_argument("--folder", type=Path, help="of the child")
    return parser


def no_op(spec: RunSpec, runtime: Runtime) -> Iterator[EpochResult]:  # noqa: ARG001
    """Yield one epoch result; the score is a function of the run's id."""
    from cider.training.trainer import EpochResult  # noqa: PLC0415 - brings torch

    score = int(spec.run_id[:8], 16) / 2**32
    yield EpochResult(
        epoch=1,
        train={},
        valid={"acc2": score},
        score=score,
        tau=0.0,
        best_score=score,
        best_epoch=1,
        is_best=True,
        seconds=0.0,
    )


class Watch:
    """Listens to a search: when trials end, and the driver's resident memory then."""

    def __init__(self) -> None:
        self.begun = 0.0
        self.first = 0.0
        self.ended = 0.0
        self.ends: list[float] = []
        self.resident: list[int] = []

    def begin(self, trials: list[TrialRecord], total: int) -> None:  # noqa: ARG002
        self.begun = time.perf_counter()

    def change(self, change: Change) -> None:
        self.first = self.first or time.perf_counter()
        if change.state != "RUNNING":
            assert change.state == "COMPLETE", change
            self.ends.append(time.perf_counter())
            self.resident.append(measuring.memory_rollup()["Rss"])


def plan_of(args: argparse.Namespace, total: int) -> Plan:
    """Return a search of the published space (Table II) for trials of one epoch."""
    from cider.spec import RunSpec, TrainingConfig  # noqa: PLC0415
    from cider_platform.execution.capacity import choose_slots  # noqa: PLC0415
    from cider_platform.search.driver import Plan  # noqa: PLC0415
    from cider_platform.search.pruning import pruner_definition  # noqa: PLC0415
    from cider_platform.search.space import TABLE_II  # noqa: PLC0415

    return Plan(
        study=NAME,
        spec=RunSpec(training=TrainingConfig(epochs=1, patience=1), seed=args.seed),
        space=TABLE_II,
        total=total,
        sampler=args.sampler,
        pruner=pruner_definition("asha", 1),
        slots=choose_slots("cpu", slots=args.slots),
    )


def run_study(args: argparse.Namespace, total: int) -> tuple[Watch, float]:
    """Run a study of no-op trials to its total; return what was seen and the seconds of it all."""
    from cider_platform.runs.trial import Runtime  # noqa: PLC0415
    from cider_platform.search.driver import drive  # noqa: PLC0415

    watch = Watch()
    started = time.perf_counter()
    drive(
        plan_of(args, total),
        Runtime(args.folder / "store", args.folder / "results", threads=1),
        train=no_op,
        resolve=lambda spec, _: spec,
        listener=watch,
    )
    watch.ended = time.perf_counter()
    return watch, watch.ended - started


def study_part(args: argparse.Namespace) -> dict[str, Any]:
    (total,) = args.trials
    watch, seconds = run_study(args, total)
    gaps = [after - before for before, after in zip(watch.ends, watch.ends[1:], strict=False)]
    running = watch.ends[-1] - watch.first
    return {
        "seconds": seconds,
        "until_first_trial": watch.first - watch.begun,
        "after_last_trial": watch.ended - watch.ends[-1],
        "seconds_per_trial": running / total,
        # In steady state, without the start of the workers, which the first trials wait for.
        "steady_seconds_per_trial": statistics.mean(gaps[args.slots :]),
        "last_hundred_over_first": statistics.mean(gaps[-100:])
        / statistics.mean(gaps[args.slots :][:100]),
        "resident_bytes": watch.resident,
        "bytes_per_thousand_trials": 1000 * slope(watch.resident[total // 3 :]),
    }


def slope(values: list[int]) -> float:
    """Return the least-squares slope of values over their index."""
    return statistics.linear_regression(range(len(values)), values).slope


def fill(ledger: Ledger, total: int, rng: random.Random) -> None:
    """Give a study so many finished trials, the way a search does."""
    while (proposal := ledger.ask(total)) is not None:
        finish(ledger, proposal.number, rng)


def finish(ledger: Ledger, number: int, rng: random.Random) -> None:
    ledger.note(number, run=f"{number:016x}")
    ledger.report(number, 1, value := rng.random())
    ledger.spend(number, 0.1)
    ledger.complete(number, value)


def write_study(args: argparse.Namespace, total: int, database: Storage | None) -> dict[str, Any]:
    """Write a study of finished trials, drawn at random; return its definition with the sampler.

    Its definition says the sampler that is measured; trials drawn at random are quicker to make and
    are of the same space. A database gets them from a journal: that is quicker, too.
    """
    from cider_platform.search.ledger import Ledger  # noqa: PLC0415
    from cider_platform.search.study import define, keep, write_definition  # noqa: PLC0415

    plan = plan_of(args, total)
    drawn, asked = (
        define(plan.spec, plan.space, sampler=name, pruner=plan.pruner)
        for name in ("random", args.sampler)
    )
    folder = study_folder(args)
    real, os.fsync = os.fsync, lambda _: None  # what is measured later waits for the disk
    try:
        with keep(folder, None) as kept:
            ledger = Ledger(kept.storage, NAME, drawn)
            ledger._study.set_user_attr("sampler", asked["sampler"])
            with ledger.together():
                fill(ledger, total, random.Random(args.seed))
    finally:
        os.fsync = real
    write_definition(folder, asked)
    if database is not None:
        trials = ledger._study.get_trials()
        folder.journal.unlink()
        with keep(folder, database) as kept:
            ledger = Ledger(kept.storage, NAME, asked)
            with ledger.together():
                ledger._study.add_trials(trials)
        write_definition(folder, asked, database)
    return asked


def study_folder(args: argparse.Namespace) -> Any:
    from cider_platform.layout import StudyFolder  # noqa: PLC0415

    return StudyFolder.of(args.folder / "results", NAME)


def ask_part(args: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds of asks, and of what follows until a trial is told, by storage."""
    from cider_platform.search.ledger import Ledger  # noqa: PLC0415
    from cider_platform.search.storage import Storage  # noqa: PLC0415
    from cider_platform.search.study import keep  # noqa: PLC0415

    found: dict[str, Any] = {}
    root = args.folder
    for name in ("journal", "sqlite"):
        args.folder = root / name
        database = Storage.parse(f"sqlite:///{root / 'studies.db'}") if name == "sqlite" else None
        measuring.progress(f"{args.finished} trials in {name}")
        definition = write_study(args, args.finished, database)
        rng = random.Random(args.seed + 1)
        asked, told = [], []
        with keep(study_folder(args), database) as kept:
            ledger = Ledger(kept.storage, NAME, definition)
            for _ in range(args.asks + 2):
                started = time.perf_counter()
                proposal = ledger.ask(10 * args.finished)
                middle = time.perf_counter()
                assert proposal is not None
                finish(ledger, proposal.number, rng)
                asked.append(1e3 * (middle - started))
                told.append(1e3 * (time.perf_counter() - middle))
        found[name] = {"ask": spread(asked[2:]), "rest": spread(told[2:])}
    return found


def resume_part(args: argparse.Namespace) -> dict[str, Any]:
    """Return seconds of continuing the study that lies in the folder with one more trial."""
    started = process_start()
    from cider_platform.search.ledger import Ledger  # noqa: PLC0415

    plan_of(args, 1)
    imported = time.time()
    asked: list[float] = []
    whole = Ledger.ask

    def ask(ledger: Ledger, total: int) -> Any:
        begun = time.perf_counter()
        found = whole(ledger, total)
        asked.append(time.perf_counter() - begun)
        return found

    Ledger.ask = ask  # type: ignore[method-assign]
    begun = time.perf_counter()
    watch, _ = run_study(args, args.resumed + 1)
    reading = watch.begun - begun
    return {
        "imports": imported - started,
        "reading": reading,
        "first_ask": asked[0],
        "reading_and_first_ask": reading + asked[0],
        "ray_and_tune": watch.first - watch.begun - asked[0],
        "journal_bytes": study_folder(args).journal.stat().st_size,
    }


def process_start() -> float:
    """Return when this process was started, in seconds of the epoch."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks = float(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks


CHILDREN = {"study": study_part, "ask": ask_part, "resume": resume_part}


def child(args: argparse.Namespace, part: str, *more: str) -> Any:
    """Run a part in a process of its own."""
    shared = ["--seed", str(args.seed), "--slots", str(args.slots), "--sampler", args.sampler]
    sizes = ["--finished", str(args.finished), "--asks", str(args.asks)]
    return measuring.run_child(
        "many_trials",
        [*shared, *sizes, "--resumed", str(args.resumed), "--child", part, *more],
    )


def studies(args: argparse.Namespace, report: Report, folder: Path) -> None:
    rows = []
    for total in args.trials:
        measuring.progress(f"study of {total} no-op trials")
        place = folder / f"study-{total}"
        found = child(args, "study", "--trials", str(total), "--folder", str(place))
        report.results.setdefault("study", {})[str(total)] = found
        steady = found["steady_seconds_per_trial"]
        resident = found["resident_bytes"]
        rows.append([
            str(total),
            f"{found['seconds']:.1f}",
            f"{found['until_first_trial']:.1f}",
            f"{found['after_last_trial']:.1f}",
            f"{steady:.3f}",
            f"{steady / TEN_MINUTES:.3%}",
            f"{found['last_hundred_over_first']:.2f}",
            f"{resident[0] / MIB:.0f}",
            f"{resident[-1] / MIB:.0f}",
            f"{found['bytes_per_thousand_trials'] / MIB:+.1f}",
        ])  # fmt: skip
    report.table(
        f"No-op studies on {args.slots} slots; s, and MiB of the driver's resident memory",
        ["trials", "whole command", "until first trial", "after last trial", "per trial",
         "of 10 minutes",
         "last / first 100", "memory first", "memory last", "memory per 1,000 trials"],
        rows,
    )  # fmt: skip


def asks(args: argparse.Namespace, report: Report, folder: Path) -> None:
    report.results["ask"] = found = child(args, "ask", "--folder", str(folder / "ask"))
    report.table(
        f"One trial at {args.finished} finished ones, {args.sampler}, ms: median (min-max)",
        ["storage", "ask", "note, report, spend, complete"],
        [[name, text_of(each["ask"]), text_of(each["rest"], 2)] for name, each in found.items()],
    )


def resumes(args: argparse.Namespace, report: Report, folder: Path) -> None:
    args.folder = folder / "resume"
    measuring.progress(f"study of {args.resumed} trials")
    write_study(args, args.resumed, None)
    found = child(args, "resume", "--folder", str(args.folder))
    report.results["resume"] = found
    report.table(
        f"Continuing a study of {args.resumed} finished trials, s",
        ["reading and first ask", "reading", "first ask", "imports before", "Ray and Tune between",
         "journal, MiB"],
        [[f"{found[name]:.2f}" for name in
          ("reading_and_first_ask", "reading", "first_ask", "imports", "ray_and_tune")]
         + [f"{found['journal_bytes'] / MIB:.1f}"]],
    )  # fmt: skip


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    if args.child:
        found = CHILDREN[args.child](args)
        assert all(math.isfinite(each) for each in found.values() if isinstance(each, float))
        print(json.dumps(found))
        return
    report = Report("many_trials", args)
    with tempfile.TemporaryDirectory(prefix="many") as name:
        for part, measure in (("study", studies), ("ask", asks), ("resume", resumes)):
            if part in args.parts:
                measure(args, report, Path(name))
    args.folder = None
    report.show()


if __name__ == "__main__":
    main(sys.argv[1:])
