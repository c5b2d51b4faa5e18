"""``explain``: why a finished run says what it says of one utterance."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Device, Json, Results, Store, Threads  # noqa: TC001
from cider_platform.commands.runs import Run  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable

    from cider.condition import Condition
    from cider.data.progress import Progress
    from cider_platform.results import RunRecord

Ids = Annotated[
    list[str],
    typer.Option(
        "--id",
        metavar="SAMPLE",
        help="Id of an utterance, of any split; may be given many times.",
    ),
]
Protocol = Annotated[
    str, typer.Option(metavar="PROTOCOL", help="Missing protocol; none: nothing is missing.")
]
Rate = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Missing rate of the protocol.", show_default=False),
]
Kept = Annotated[
    str,
    typer.Option(
        metavar="MODALITIES",
        help="smm only: what stays: L, A, V, LA, LV or AV.",
        show_default=False,
    ),
]
MaskSeed = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Seed of the masks; default: the run's, which its evaluations use.",
        show_default=False,
    ),
]


def explain(
    run: Run,
    sample: Ids,
    missing: Protocol = "none",
    rate: Rate = None,
    kept: Kept = "",
    seed: MaskSeed = None,
    without_mcm: Annotated[
        str,
        typer.Option(
            metavar="RUN",
            help="A run that is the same without MCM (maci.mcm=false): adds its prediction.",
            show_default=False,
        ),
    ] = "",
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also draw it: a file that ends with .svg or .png; it is replaced if it is there.",
            show_default=False,
        ),
    ] = None,
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Show how a run corrects its prediction of an utterance, step by step.

    What the training split's statistics say, the prediction with the label bias in it, the factual
    and the counterfactual prediction and their difference; and which words stay as bias words.

    True classes are shown, so the run must be frozen, as for evaluate.

    Example: cider-platform explain 3fa9 --id 'test$12' --missing rmfm --rate 0.3
    """
    from cider_platform.commands.options import build_runtime
    from cider_platform.explaining import correction as made
    from cider_platform.explaining.opened import OpenedRun
    from cider_platform.explaining.render import render
    from cider_platform.output import emit_json, emit_line, progress_bar, say
    from cider_platform.results import find_run
    from cider_platform.tables import title

    suffix = _figure_suffix(figure, sample)
    runtime = build_runtime(store, results, device, threads)
    record = find_run(runtime.results, run)
    condition = one_condition(record, missing, rate, kept)
    other = find_run(runtime.results, without_mcm) if without_mcm else None
    opened = OpenedRun(record.folder, runtime)
    samples = opened.find(list(dict.fromkeys(sample)))
    beside = OpenedRun(other.folder, runtime) if other is not None else None
    corrector = made.Corrector(opened, beside)
    with progress_bar() as advance:
        tau = opened.tau(condition, counter(advance, "validation split"))
    found = [corrector.correct(each, condition, tau, seed) for each in samples]
    heading = f"run {record.run_id}, {opened.store.manifest.key}"
    heading = title(f"{heading}, {opened.spec.data.task}", record.marks)
    if figure is not None:
        from cider_platform.explaining.draw_correction import draw_correction
        from cider_platform.figure_files import write_figure

        write_figure(figure, suffix, lambda: draw_correction(found[0], heading))
    if json:
        emit_json(
            "explain",
            {
                **record.summary(),
                "without_mcm": other and other.run_id,
                "without_mcm_differs": corrector.differs,
                "samples": [made.as_json(each) for each in found],
            },
        )
        return
    for number, each in enumerate(found):
        emit_line(("\n" if number else "") + render(each, heading))
    if corrector.differs:
        say(f"the run without MCM also differs in {', '.join(corrector.differs)}")
    if figure is not None:
        say(f"figure: {figure}")


def counter(advance: Progress | None, what: str) -> Callable[[int, int], None] | None:
    """Return what tells a progress bar how much of a thing is done; None without a bar."""
    if advance is None:
        return None
    return lambda done, total: advance(what, done, total)


def one_condition(record: RunRecord, missing: str, rate: float | None, kept: str) -> Condition:
    """Return the one condition that the options name.

    Raises:
        UsageError: for an unknown protocol, a rate that is lacking or has no meaning, or smm
            without a kept set.
    """
    from cider.errors import UsageError
    from cider.missing import uses_rate
    from cider_platform.runs.conditions import asked_conditions

    rated = uses_rate(missing)
    if rated and rate is None:
        raise UsageError(f"missing protocol {missing} takes a rate in [0, 1]; give --rate")
    if not rated and rate is not None:
        raise UsageError(f"missing protocol {missing} has no rate, got {rate:g}; leave --rate out")
    if missing == "smm" and not kept:
        raise UsageError("missing protocol smm takes what stays; give --kept, e.g. --kept LA")
    (condition,) = asked_conditions(record.spec, [missing], [rate or 0.0], [kept] if kept else [])
    return condition


def _figure_suffix(figure: Path | None, samples: list[str]) -> str:
    from cider.errors import UsageError

    if figure is None:
        return ""
    suffix = figure.suffix.lower().removeprefix(".")
    if suffix not in ("svg", "png"):
        raise UsageError(f"--figure must end with .svg or .png, got {str(figure)!r}")
    if len(set(samples)) > 1:
        raise UsageError(
            f"--figure draws one utterance, got {len(set(samples))}; give one --id, or draw them "
            "one after the other"
        )
    return suffix
