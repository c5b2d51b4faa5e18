"""``complexity``: what every model costs, measured here, beside the published table VI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import (  # noqa: TC001
    Dataset,
    Device,
    Encoder,
    Json,
    Settings,
    Store,
    Threads,
)

if TYPE_CHECKING:
    from cider.spec import RunSpec
    from cider_platform.complexity.measure import Cost
    from cider_platform.complexity.variants import Variant

    Measured = tuple[Variant, float, Cost]

COLUMNS = (
    "model", "parameters", "published", "MFLOPs", "with text", "training", "peak MiB",
    "published GiB", "s/epoch", "published s", "latency ms", "p95 ms",
)  # fmt: skip
"""Headings of the printed table."""


def complexity(
    dataset: Dataset = "synthetic-mosi-x0.1",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Only this registered model, or row of table V, e.g. 'w/o MCT'; may be given many "
            "times.",
            show_default=False,
        ),
    ] = None,
    encoder: Encoder = "",
    settings: Settings = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Training steps to time, after one that is not.")
    ] = 10,
    predictions: Annotated[
        int, typer.Option(min=1, help="Utterances to predict one by one and time.")
    ] = 50,
    device: Device = "auto",
    threads: Threads = 0,
    store: Store = None,
    json: Json = False,
) -> None:
    """Measure what every model costs: parameters, FLOPs, memory, time of an epoch, latency.

    Where table VI has a number it stands beside. Its parameters can be compared; its memory and
    times are of the authors' GPU, corpus and text encoder.

    Example: cider-platform complexity --only cider --only late_fusion
    """
    from cider_platform.commands.options import build_runtime
    from cider_platform.complexity.measure import measure
    from cider_platform.complexity.parameters import parameters_as_published, variant_spec
    from cider_platform.complexity.variants import variants
    from cider_platform.output import say
    from cider_platform.runs.fingerprint import environment

    chosen = variants(only or ())
    base = _spec(dataset, encoder, settings or [])
    runtime = build_runtime(store, None, device, threads)
    found: list[Measured] = []
    for variant in chosen:
        say(f"measuring {variant.name}")
        cost = measure(variant_spec(variant, base), runtime, steps=steps, predictions=predictions)
        found.append((variant, parameters_as_published(variant), cost))
    where = environment(runtime.torch_device)
    hardware = f"{where['gpu'] or where['cpu']}, {where['threads']} threads"
    if json:
        _as_json(found, dataset, hardware)
    else:
        _print(found, dataset, hardware)


def _spec(dataset: str, encoder: str, settings: list[str]) -> RunSpec:
    """Return what all models are measured with but their own fields."""
    from cider_platform.commands.grids import read_job_with
    from cider_platform.grids.cells import expand

    base = {"dataset": dataset, **({"encoder": encoder} if encoder else {})}
    (cell,) = expand(read_job_with("complexity", {"base": base}, None, settings))
    return cell.spec


def _as_json(found: list[Measured], dataset: str, hardware: str) -> None:
    from cider.published import cell
    from cider_platform.complexity.parameters import maci_parameters
    from cider_platform.output import emit_json

    rows = [
        {
            "model": variant.name,
            "parameters_at_published_shapes": counted,
            "published": variant.published,
            **cost.to_dict(),
        }
        for variant, counted, cost in found
    ]
    maci = {
        "parameters_at_published_shapes": maci_parameters(),
        "published": cell("VI:MACI:parameters").value,
    }
    data = {"dataset": dataset, "hardware": hardware, "models": rows, "maci": maci}
    emit_json("complexity", data)


def _print(found: list[Measured], dataset: str, hardware: str) -> None:
    from cider.published import cell
    from cider_platform.complexity.parameters import maci_parameters
    from cider_platform.output import emit_table, say

    rows: list[list[object]] = [_row(*each) for each in found]
    maci = [f"{maci_parameters():,.0f}", f"{cell('VI:MACI:parameters').value:,.0f}"]
    rows.append(["MACI's head alone", *maci, *["-"] * (len(COLUMNS) - 3)])
    emit_table(COLUMNS, rows, title=f"{dataset}, {hardware}", right=COLUMNS[1:])
    one = found[0][2]
    say(
        "parameters: without the text encoder, at MOSI's published shapes, mean of the models for "
        f"three and seven classes; the text encoder here has {one.text_encoder_parameters:,} more"
    )
    say(
        "MFLOPs: matrix products, convolutions and attention, 2 per multiply-add, counted on the "
        "CPU; of a prediction (both texts) without and with the text encoder, and of a training "
        "step per utterance"
    )
    say(
        f"peak: {one.peak_method}, in a training step on the {one.batch_size} longest utterances; "
        f"epoch: from {one.steps_timed} steps and a validation pass; latency: median and p95 of "
        f"{one.latencies} predictions of one utterance, text encoder included"
    )
    say("published memory and times are of another machine, corpus and text encoder")


def _row(variant: Variant, counted: float, cost: Cost) -> list[object]:
    published = variant.published
    mega, mebi = 1e6, 2**20

    def printed(metric: str, form: str) -> str:
        return format(published[metric], form) if metric in published else "-"

    return [
        variant.name,
        f"{counted:,.0f}",
        printed("parameters", ",.0f"),
        f"{cost.prediction_flops / mega:.2f}",
        f"{cost.prediction_flops_with_text_encoder / mega:.2f}",
        f"{cost.training_flops_with_text_encoder / mega:.2f}",
        f"{cost.peak_bytes / mebi:.1f}",
        printed("gpu_memory", ".1f"),
        f"{cost.seconds_per_epoch:.2f}",
        printed("seconds_per_epoch", ".1f"),
        f"{1000 * cost.latency_median_seconds:.2f}",
        f"{1000 * cost.latency_p95_seconds:.2f}",
    ]
