"""``tune``: a search with Ray Tune and Optuna, to its total, and on from wherever it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import (
    AlignmentOption,
    BehaviourOption,
    Dataset,
    Device,
    DistributionOption,
    Encoder,
    Epochs,
    Json,
    Kept,
    Log,
    Maci,
    Missing,
    Model,
    Results,
    Scale,
    Seed,
    Selection,
    Settings,
    SpecOptions,
    Store,
    TaskOption,
    build_runtime,
    build_spec,
)

if TYPE_CHECKING:
    from cider.spec import RunSpec
    from cider_platform.driver import Outcome, Plan
    from cider_platform.trial import Runtime

_SEARCH = "Search"

StudyName = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="NAME",
        help="Name of the search; default: made of dataset, task, alignment, distribution and "
        "model, so that the same command continues it.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Total trials of the study, those it has included; default: 300 as published, 6 for "
        "synthetic corpora.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
SpaceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--space",
        metavar="PATH=AXIS",
        help="A searched field: PATH=int:LOW:HIGH[:STEP], PATH=float:LOW:HIGH[:STEP], "
        "PATH=log:LOW:HIGH or PATH=choice:A,B,...; may be given many times. Replaces the default "
        "space (Table II); the word default among them keeps it.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
Pruner = Annotated[
    Literal["asha", "none"],
    typer.Option(help="asha stops trials that fall behind.", rich_help_panel=_SEARCH),
]
Grace = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="asha: epochs before which nothing is stopped; default: a twentieth of --epochs.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
Sampler = Annotated[
    Literal["tpe", "random"],
    typer.Option(help="What proposes configurations.", rich_help_panel=_SEARCH),
]
NumSlots = Annotated[
    int | None,
    typer.Option(
        "--slots",
        min=1,
        help="Trials at a time; default: as many as cores, memory and GPUs carry.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
CpusPerTrial = Annotated[
    int, typer.Option(min=1, help="Cores, and threads, of one trial.", rich_help_panel=_SEARCH)
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        help="Share of a GPU that one trial takes, e.g. 0.25; default: a whole one.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]


def tune(
    dataset: Dataset = "synthetic-mosei",
    scale: Scale = None,
    alignment: AlignmentOption = "unaligned",
    distribution: DistributionOption = "iid",
    task: TaskOption = "three_class",
    model: Model = "cider",
    missing: Missing = "rmfm",
    kept: Kept = "",
    behaviour: BehaviourOption = "corrected",
    encoder: Encoder = "",
    seed: Seed = 1111,
    epochs: Epochs = None,
    settings: Settings = None,
    maci: Maci = None,
    selection: Selection = "validation",
    study: StudyName = None,
    trials: Trials = None,
    space: SpaceOption = None,
    sampler: Sampler = "tpe",
    pruner: Pruner = "asha",
    grace: Grace = None,
    slots: NumSlots = None,
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = None,
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    log: Log = None,
    json: Json = False,
) -> None:
    """Search hyperparameters, then evaluate the best configuration on the sealed test split.

    The same command again continues the study to its total.

    Finished trials stay; interrupted ones go on from their checkpoints.

    Example: cider-platform tune --dataset synthetic-mosei --trials 8
    """
    options = SpecOptions(
        dataset=dataset,
        scale=scale,
        alignment=alignment,
        distribution=distribution,
        task=task,
        model=model,
        missing=missing,
        kept=kept,
        behaviour=behaviour,
        encoder=encoder,
        seed=seed,
        epochs=epochs,
        settings=settings or [],
        maci=maci,
        selection=selection,
    )
    spec = build_spec(options)
    from cider_platform.space import read_space

    searched = read_space(space or [], spec, options.set_paths())
    runtime = build_runtime(store, results, device, cpus_per_trial)
    import torch

    from cider_platform.capacity import choose_slots
    from cider_platform.driver import Plan, asha
    from cider_platform.search import dataset_defaults
    from cider_platform.trial import resolve

    chosen = choose_slots(
        runtime.device,
        slots=slots,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        num_gpus=torch.cuda.device_count(),
    )
    plan = Plan(
        study=study or study_name(spec),
        spec=resolve(spec, runtime),
        space=searched,
        total=trials or dataset_defaults(spec.data.dataset).trials,
        sampler=sampler,
        pruner=asha(spec.training.epochs, grace) if pruner == "asha" else {"name": "none"},
        slots=chosen,
    )
    outcome = _search(plan, runtime, log or [])
    _conclude(plan, outcome, runtime, as_json=json)


def study_name(spec: RunSpec) -> str:
    """Return the default name of a search: the cell it searches, and the seed if it is not 1111."""
    data = spec.data
    parts = [data.dataset, data.task, data.alignment, data.distribution, spec.model.name]
    return "-".join(parts) + ("" if spec.seed == type(spec)().seed else f"-seed{spec.seed}")


def _search(plan: Plan, runtime: Runtime, log: list[str]) -> Outcome:
    from cider_platform.driver import drive
    from cider_platform.output import say
    from cider_platform.progress import SearchProgress
    from cider_platform.results import marks
    from cider_platform.tables import title
    from cider_platform.tracking import tracked
    from cider_platform.trial import resolve, train_run

    train = tracked(train_run, log, plan.study, runtime.results)
    say(
        f"{title(f'study {plan.study}', marks(plan.spec.to_dict()))}: {plan.total} trials in all, "
        f"{plan.slots.slots} at a time, in {runtime.results}"
    )
    shown = SearchProgress(
        metric=plan.spec.selection_metric,
        slots=plan.slots.slots,
        epochs=plan.spec.training.epochs,
    )
    with shown as progress:
        outcome = drive(plan, runtime, train=train, resolve=resolve, listener=progress)
    if outcome.signal_number is not None:
        say(
            f"stopped; study {plan.study} keeps all it has, and the same command continues it from "
            "the running trials' checkpoints"
        )
        raise typer.Exit(128 + outcome.signal_number)
    return outcome


def _conclude(plan: Plan, outcome: Outcome, runtime: Runtime, *, as_json: bool) -> None:
    from cider_platform.final import conclude
    from cider_platform.output import emit_json, warn

    data = conclude(outcome, runtime)
    if as_json:
        emit_json("tune", data)
    elif data["best"] is not None:
        _print(plan, data)
    failures = data["failures"]
    if failures:
        warn(
            f"{len(failures)} of {plan.total} trials failed; the first, trial "
            f"{failures[0]['number']}: {failures[0]['error']}"
        )
        raise typer.Exit(100)


def _print(plan: Plan, data: dict[str, Any]) -> None:
    from cider_platform.output import emit_table, say
    from cider_platform.tables import evaluation_table, number, seconds, title

    best = data["best"]
    axes = [str(axis).partition("=") for axis in plan.space]
    emit_table(
        ["field", "best", "searched over"],
        [[path, number(best["params"][path]), values] for path, _, values in axes],
        title=title("best configuration", best["marks"]),
        right=["best"],
    )
    columns, cells = evaluation_table(best["evaluations"])
    emit_table(
        columns,
        cells,
        title=title("its validation and sealed-test scores", best["marks"]),
        right=columns[1:],
    )
    counts = ", ".join(f"{count} {state}" for state, count in sorted(data["trials"].items()))
    emit_table(
        ["fact", "value"],
        [
            ["study", data["study"]],
            [f"selected by {best['selected_on']} {best['metric']}", number(best["score"])],
            ["run", f"{best['run']} (trial {best['trial']}, epoch {best['epoch']})"],
            ["run folder", best["folder"]],
            ["study folder", data["folder"]],
            ["trials", counts],
            ["search time", seconds(data["seconds"])],
        ],
    )
    say(f"more missing data: cider-platform evaluate {best['run']} --rates 0:1:0.1")
