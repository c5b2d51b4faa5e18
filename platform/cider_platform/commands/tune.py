"""``tune``: a search with Ray Tune and Optuna, to its total, and on from wherever it stopped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import typer

from cider.errors import CiderError, UsageError

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import (
    Address,
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
    address: Address = "",
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
    from cider_platform.execution.capacity import choose_slots, cluster_slots, read_auto

    share = read_auto("--gpus-per-trial", gpus_per_trial, float)
    if address and device == "auto" and share is not None:
        device = "cuda"
    runtime = build_runtime(store, results, device, cpus_per_trial, address=address)
    import torch

    from cider_platform.runs.trial import resolve
    from cider_platform.search.budget import Budget
    from cider_platform.search.driver import Plan
    from cider_platform.search.objectives import parse_objectives
    from cider_platform.search.pruning import pruner_definition
    from cider_platform.search.racing import Racing
    from cider_platform.search.search import dataset_defaults
    from cider_platform.search.starts import read_starts, start

    held: dict[str, Any] = {
        "slots": read_auto("--slots", slots, int),
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": share,
        "workers": workers_per_trial,
    }
    chosen = (
        cluster_slots(address, runtime.device, **held)
        if address
        else choose_slots(runtime.device, num_gpus=torch.cuda.device_count(), **held)
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
    outcome = _search(plan, runtime, address, log or [])
    finals = _rank_finally(plan, outcome, runtime, address, final_seeds, log or [])
    if address:
        _test_on_cluster(plan, outcome, finals, runtime, address)
    _conclude(plan, outcome, finals, runtime, as_json=json)


def study_name(spec: RunSpec) -> str:
    """Return the default name of a search: the cell it searches, and the seed if it is not 1111."""
    data = spec.data
    parts = [data.dataset, data.task, data.alignment, data.distribution, spec.model.name]
    return "-".join(parts) + ("" if spec.seed == type(spec)().seed else f"-seed{spec.seed}")


def _search(plan: Plan, runtime: Runtime, address: str, log: list[str]) -> Outcome:
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
        outcome = drive(
            plan, runtime, train=train, resolve=resolve, listener=progress, address=address
        )
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
    plan: Plan, outcome: Outcome, runtime: Runtime, address: str, num_seeds: int, log: list[str]
) -> list[Standing]:
    from cider_platform.search.fresh_seeds import final_plan, finalists, standings
    from cider_platform.search.objectives import directions

    minimise = directions(outcome.objectives)[0] == "minimize"
    leading = finalists(outcome.trials, minimise=minimise)
    if not num_seeds or not leading or outcome.used_up:
        return []
    ranked = _search(final_plan(plan, leading, num_seeds), runtime, address, log)
    return standings(leading, ranked)


def _test_on_cluster(
    plan: Plan, outcome: Outcome, finals: list[Standing], runtime: Runtime, address: str
) -> None:
    """Evaluate what the search ends with where its trials ran: this machine may have no GPU."""
    from cider_platform.output import say
    from cider_platform.results import find_run
    from cider_platform.runs.batch_evaluation import evaluate_tasks, evaluation_tasks, rows_of
    from cider_platform.search.conclusion import runs_to_test, sealed_rates

    records = [find_run(runtime.results, run) for run in runs_to_test(outcome, finals)]
    tasks = evaluation_tasks(records, [], sealed_rates(plan.spec))
    todo = [task for task in tasks if rows_of(runtime.results, task) is None]
    if todo:
        failed = evaluate_tasks(todo, runtime, slots=plan.slots.slots, address=address, tell=say)
        for run, error in failed.items():
            raise CiderError(f"run {run} could not be evaluated on the cluster: {error}")


def _conclude(
    plan: Plan, outcome: Outcome, finals: list[Standing], runtime: Runtime, *, as_json: bool
) -> None:
    from cider_platform.commands.tune_display import print_search
    from cider_platform.output import emit_json, warn
    from cider_platform.search.conclusion import conclude

    data = conclude(outcome, runtime, finals)
    if as_json:
        emit_json("tune", data)
    elif data["best"] is not None:
        print_search(plan, data)
    failures = data["failures"]
    if failures:
        warn(
            f"{len(failures)} of {plan.total} trials failed; the first, trial "
            f"{failures[0]['number']}: {failures[0]['error']}"
        )
        raise typer.Exit(100)
