"""``tune``: a search with Ray Tune and Optuna, to its total, and on from wherever it stopped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import typer

from cider.errors import UsageError

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
    StorageOption,
    Store,
    TaskOption,
    build_runtime,
    build_spec,
    read_storage,
)
from cider_platform.commands.search_options import (  # noqa: TC001 - typer reads annotations
    CpusPerTrial,
    Enqueue,
    FinalSeeds,
    GpuHours,
    GpusPerTrial,
    Grace,
    Hours,
    NumSlots,
    ObjectiveOption,
    ProgressTimeout,
    Pruner,
    RaceRule,
    Sampler,
    Seeds,
    SpaceFile,
    SpaceOption,
    StudyName,
    Trials,
    WorkersPerTrial,
)

if TYPE_CHECKING:
    from cider.spec import RunSpec
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.driver import Outcome, Plan
    from cider_platform.search.fresh_seeds import Standing


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
    space_file: SpaceFile = None,
    enqueue: Enqueue = None,
    objective: ObjectiveOption = None,
    sampler: Sampler = "tpe",
    pruner: Pruner = None,
    grace: Grace = None,
    seeds: Seeds = 1,
    race: RaceRule = "halving",
    final_seeds: FinalSeeds = 0,
    hours: Hours = None,
    gpu_hours: GpuHours = None,
    slots: NumSlots = "auto",
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = "auto",
    workers_per_trial: WorkersPerTrial = 1,
    progress_timeout: ProgressTimeout = 1800.0,
    store: Store = None,
    results: Results = None,
    storage: StorageOption = None,
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
    from cider_platform.search.space import read_space
    from cider_platform.search.space_file import read_space_file

    axes, listed = read_space_file(space_file) if space_file is not None else ([], [])
    searched = read_space(space or [], spec, options.set_paths(), axes)
    runtime = build_runtime(store, results, device, cpus_per_trial)
    import torch

    from cider_platform.execution.capacity import choose_slots, read_auto
    from cider_platform.runs.trial import resolve
    from cider_platform.search.budget import Budget
    from cider_platform.search.driver import Plan
    from cider_platform.search.objectives import parse_objectives
    from cider_platform.search.pruning import pruner_definition
    from cider_platform.search.racing import Racing
    from cider_platform.search.search import dataset_defaults
    from cider_platform.search.starts import read_starts, start

    chosen = choose_slots(
        runtime.device,
        slots=read_auto("--slots", slots, int),
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=read_auto("--gpus-per-trial", gpus_per_trial, float),
        num_gpus=torch.cuda.device_count(),
        workers=workers_per_trial,
    )
    if gpu_hours is not None and not chosen.gpus_per_trial:
        raise UsageError(
            f"--gpu-hours counts GPUs, but trials run on {runtime.device}; use --hours"
        )
    objectives = parse_objectives(objective or [], spec)
    can_prune = len(objectives) == 1 and objectives[0].metric != ""
    plan = Plan(
        study=study or study_name(spec),
        storage=read_storage(storage),
        spec=resolve(spec, runtime),
        space=searched,
        total=trials or dataset_defaults(spec.data.dataset).trials,
        sampler=sampler,
        pruner=pruner_definition(
            pruner or ("asha" if can_prune else "none"), spec.training.epochs, grace
        ),
        objectives=tuple(each.name for each in objectives),
        racing=Racing(seeds=seeds, rule=race),
        starts=(
            *(start(values, searched) for values in listed),
            *read_starts(enqueue or [], searched),
        ),
        budget=Budget(
            hours=math.inf if hours is None else hours,
            gpu_hours=math.inf if gpu_hours is None else gpu_hours,
        ),
        slots=chosen,
        progress_timeout=progress_timeout,
    )
    outcome = _search(plan, runtime, log or [])
    finals = _rank_finally(plan, outcome, runtime, final_seeds, log or [])
    _conclude(plan, outcome, finals, runtime, as_json=json)


def study_name(spec: RunSpec) -> str:
    """Return the default name of a search: the cell it searches, and the seed if it is not 1111."""
    data = spec.data
    parts = [data.dataset, data.task, data.alignment, data.distribution, spec.model.name]
    return "-".join(parts) + ("" if spec.seed == type(spec)().seed else f"-seed{spec.seed}")


def _search(plan: Plan, runtime: Runtime, log: list[str]) -> Outcome:
    from cider_platform.output import say
    from cider_platform.progress import SearchProgress
    from cider_platform.results import marks
    from cider_platform.runs.tracking import tracked
    from cider_platform.runs.trial import resolve, train_run
    from cider_platform.search.driver import drive
    from cider_platform.search.objectives import directions
    from cider_platform.tables import title

    train = tracked(train_run, log, plan.study, runtime.results)
    say(
        f"{title(f'study {plan.study}', marks(plan.spec.to_dict()))}: {plan.total} trials in all, "
        f"{'at most ' * plan.slots.is_auto}{plan.slots.slots} at a time, in {runtime.results}"
        + (f", kept in {plan.storage}" if plan.storage else "")
    )
    shown = SearchProgress(
        metric=plan.spec.selection_metric,
        objective=plan.objectives[0] if plan.objectives else None,
        minimise=directions(plan.objectives)[:1] == ["minimize"],
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
    if outcome.used_up:
        say(f"the search ends before its total: {outcome.used_up}; the same command goes on")
    elif len(outcome.trials) < plan.total:
        say(f"the grid has no further point: {len(outcome.trials)} trials of {plan.total}")
    return outcome


def _rank_finally(
    plan: Plan, outcome: Outcome, runtime: Runtime, num_seeds: int, log: list[str]
) -> list[Standing]:
    from cider_platform.search.fresh_seeds import final_plan, finalists, standings
    from cider_platform.search.objectives import directions

    minimise = directions(outcome.objectives)[0] == "minimize"
    leading = finalists(outcome.trials, minimise=minimise)
    if not num_seeds or not leading or outcome.used_up:
        return []
    return standings(leading, _search(final_plan(plan, leading, num_seeds), runtime, log))


def _conclude(
    plan: Plan, outcome: Outcome, finals: list[Standing], runtime: Runtime, *, as_json: bool
) -> None:
    from cider_platform.output import emit_json, warn
    from cider_platform.search.conclusion import conclude

    data = conclude(outcome, runtime, finals)
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
    _print_pareto(data, best["marks"])
    _print_finals(data, best["marks"])
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


def _print_pareto(data: dict[str, Any], marks: list[str]) -> None:
    from cider_platform.output import emit_table
    from cider_platform.tables import number, title

    if data["pareto"]:
        emit_table(
            ["trial", *data["objectives"], "run"],
            [[each["trial"], *map(number, each["values"]), each["run"]] for each in data["pareto"]],
            title=title("Pareto set: no trial is better in one and worse in none", marks),
            right=["trial", *data["objectives"]],
        )


def _print_finals(data: dict[str, Any], marks: list[str]) -> None:
    from cider_platform.output import emit_table
    from cider_platform.tables import number, title

    if not data["finals"]:
        return
    emit_table(
        ["trial", "seeds", "mean", "sd"],
        [
            [each["trial"], len(each["scores"]), number(each["mean"]), number(each["sd"])]
            for each in data["finals"]
        ],
        title=title(f"{data['objectives'][0]} on seeds that were never searched on", marks),
        right=["trial", "seeds", "mean", "sd"],
    )
    metric = data["best"]["metric"]
    emit_table(
        ["condition", f"test {metric} mean", "sd", "seeds"],
        [
            [
                f"{row['protocol']} {row['kept'] or number(row['rate'])}",
                number(row["mean"].get(metric)),
                number(row["sd"].get(metric)),
                row["seeds"],
            ]
            for row in data["final_tests"]
        ],
        title=title("its sealed-test scores on those seeds", marks),
        right=[f"test {metric} mean", "sd", "seeds"],
    )
