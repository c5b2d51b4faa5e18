"""``checkpoint``: the authors' released weights in, a run's weights out."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import (
    AlignmentOption,
    Dataset,
    Device,
    DistributionOption,
    Encoder,
    Json,
    Results,
    Store,
    Threads,
    build_runtime,
)
from cider_platform.commands.runs import Run  # noqa: TC001

app = typer.Typer(
    help="Import the authors' released weights, or export a run's.", no_args_is_help=True
)


@app.command("import")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="The authors' .pt file.", metavar="FILE")],
    dataset: Dataset,
    alignment: AlignmentOption = "unaligned",
    distribution: DistributionOption = "iid",
    encoder: Encoder = "",
    heads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Attention heads; only needed if the file is a state dict.",
            show_default=False,
        ),
    ] = None,
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Make a run of the authors' released weights; nothing in the file is executed.

    The corpus it was trained on must be in the store. The run has the behaviour 'released' and can
    be evaluated like any other.

    Example: cider-platform checkpoint import mosi_binary.pt --dataset mosi
    """  # fmt: skip
    from cider.spec import DataConfig, TextEncoderConfig
    from cider_platform.output import emit_json, say
    from cider_platform.results import find_run
    from cider_platform.runs.published_checkpoint import import_published

    runtime = build_runtime(store, results, device, threads)
    folder = import_published(
        file,
        runtime,
        data=DataConfig(dataset=dataset, alignment=alignment, distribution=distribution),
        text_encoder=TextEncoderConfig(source=encoder),
        heads=heads,
    )
    if json:
        emit_json("run", find_run(runtime.results, folder.run_id).summary())
    else:
        say(f"run {folder.run_id} in {folder.root}")
        say(f"next: cider-platform evaluate {folder.run_id} --missing rmfm --rates 0:1:0.1")


@app.command("export")
def export(
    run: Run,
    file: Annotated[Path, typer.Argument(help="The safetensors file to write.", metavar="FILE")],
    results: Results = None,
) -> None:
    """Write a finished run to one safetensors file: weights, training statistics, configuration.

    Example: cider-platform checkpoint export 3fa9 cider-mosi.safetensors
    """
    from cider_platform.output import say
    from cider_platform.results import find_run
    from cider_platform.roots import results_root
    from cider_platform.runs.published_checkpoint import export_checkpoint

    record = find_run(results_root(results), run)
    export_checkpoint(record.folder, file)
    say(f"run {record.run_id} is in {file.resolve()}")
