"""``predict``: what a finished run says of another corpus."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import Annotated, Literal

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider.spec import Alignment, Distribution  # noqa: TC001
from cider_platform.commands.options import Device, Json, Results, Store, Threads  # noqa: TC001
from cider_platform.commands.runs import Run  # noqa: TC001


def predict(
    run: Run,
    dataset: Annotated[str, typer.Option(help="Corpus in the feature store.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A new file that ends with .parquet or .arrow.")
    ],
    alignment: Annotated[
        Alignment | None, typer.Option(help="Default: the run's.", show_default=False)
    ] = None,
    distribution: Annotated[
        Distribution | None, typer.Option(help="Default: the run's.", show_default=False)
    ] = None,
    split: Annotated[
        Literal["all", "train", "valid", "test"], typer.Option(help="Which utterances.")
    ] = "all",
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Write a run's predictions for a corpus: id, split, probabilities and prediction.

    No label is read.

    The corpus must have the run's features and tokenizer; nothing of it is dropped.

    Example: cider-platform predict 3fa9 --dataset my-corpus --out predictions.parquet
    """
    from cider.spec import SPLITS, DataConfig
    from cider_platform.commands.options import build_runtime
    from cider_platform.layout import check_name
    from cider_platform.output import emit_json, say
    from cider_platform.results import find_run
    from cider_platform.runs import prediction

    runtime = build_runtime(store, results, device, threads)
    record = find_run(runtime.results, run)
    own = record.spec.get("data", {})
    data = DataConfig(
        dataset=check_name("dataset", dataset),
        alignment=alignment or own.get("alignment", "unaligned"),
        distribution=distribution or own.get("distribution", "iid"),
    )
    splits = SPLITS if split == "all" else (split,)
    count = prediction.predict(record.folder, runtime, data, out, splits=splits)
    if json:
        emit_json("predict", {"run": record.run_id, "utterances": count, "file": str(out)})
    else:
        say(f"{count} utterances predicted by run {record.run_id}: {out}")
