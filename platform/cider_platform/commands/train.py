"""``train``: one run, with Ray Train, to its sealed-test scores."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

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
    Threads,
    build_runtime,
    build_spec,
)

if TYPE_CHECKING:
    from cider.spec import RunSpec
    from cider.training.trainer import EpochResult
    from cider_platform.execution.capacity import Group
    from cider_platform.layout import RunFolder
    from cider_platform.runs.trial import Runtime

Workers = Annotated[
    str,
    typer.Option(
        metavar="N",
        help="Processes that train the run together, each on its part of every batch; LEAST:MOST "
        "takes as many as there is room for.",
        rich_help_panel="Workers",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        help="Share of a GPU of each worker; default: a whole one.",
        show_default=False,
        rich_help_panel="Workers",
    ),
]


def train(
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
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    threads: Threads = 0,
    workers: Workers = "1",
    gpus_per_worker: GpusPerWorker = None,
    log: Log = None,
    json: Json = False,
) -> None:
    """Train one configuration and evaluate it on the sealed test split.

    The same command again goes on after the last epoch.

    A finished run is never trained again.

    Example: cider-platform train --dataset synthetic-mosei --set model.layers=1
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
    runtime = build_runtime(store, results, device, threads)
    import torch

    from cider_platform.execution.capacity import choose_group
    from cider_platform.runs.trial import resolve

    group = choose_group(
        workers,
        runtime.device,
        threads=threads,
        gpus_per_worker=gpus_per_worker,
        num_gpus=torch.cuda.device_count(),
    )
    spec = resolve(spec, runtime)
    folder = _train(spec, runtime, group, log or [])
    _report(folder, spec, runtime, as_json=json)


def _train(spec: RunSpec, runtime: Runtime, group: Group, log: list[str]) -> RunFolder:
    from cider_platform.output import say
    from cider_platform.results import marks
    from cider_platform.runs.tracking import tracked
    from cider_platform.runs.trial import train_run
    from cider_platform.tables import number

    train = tracked(train_run, log, "runs", runtime.results)
    metric, last = spec.selection_metric, [0]
    marked = "".join(f" [{mark}]" for mark in marks(spec.to_dict()))
    say(f"run {spec.run_id}{marked} in {runtime.results}")

    def show(result: EpochResult) -> None:
        last[0] = result.epoch
        say(
            f"epoch {result.epoch}: {metric} {number(result.score)}, best "
            f"{number(result.best_score)} at epoch {result.best_epoch}, tau {result.tau:g}, "
            f"{result.seconds:.1f} s"
        )

    try:
        if group.most == 1:
            from cider_platform.execution.ray_train import train_on_ray

            return train_on_ray(spec, runtime, train=train, listener=show)
        from cider_platform.execution.group import train_in_group

        say(str(group))
        return train_in_group(spec, runtime, group, train=train, listener=show, notice=say)
    except KeyboardInterrupt:
        say(f"stopped after epoch {last[0]}; the same command goes on from there")
        raise typer.Exit(130) from None


def _report(folder: RunFolder, spec: RunSpec, runtime: Runtime, *, as_json: bool) -> None:
    from cider_platform.output import emit_json, emit_table, say
    from cider_platform.results import read_run
    from cider_platform.runs.evaluation import evaluate_run
    from cider_platform.search.conclusion import sealed_conditions
    from cider_platform.tables import evaluation_table, title

    started = time.monotonic()
    rows = evaluate_run(folder, runtime, sealed_conditions(spec))
    record = read_run(folder)
    data: dict[str, Any] = {**record.summary(), "result": record.result, "evaluations": rows}
    if as_json:
        emit_json("train", data)
        return
    say(f"sealed test evaluated in {time.monotonic() - started:.1f} s")
    columns, cells = evaluation_table(rows)
    emit_table(columns, cells, title=title(f"run {folder.run_id}", record.marks), right=columns[1:])
    say(f"files: {folder.root}")
