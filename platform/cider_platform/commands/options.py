"""Options that several commands share, each defined once, and the spec they ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cider.behaviour import Behaviour
from cider.errors import UsageError
from cider.spec import Alignment, Distribution, Task

if TYPE_CHECKING:
    from cider.spec import RunSpec
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.storage import Storage

_DATA, _MODEL, _RUN = "Data", "Model and training", "Where and how"

Dataset = Annotated[
    str,
    typer.Option(
        help="Corpus in the feature store: synthetic-mosei and synthetic-mosi are generated on "
        "first use; mosi, mosei or your own name come from data import.",
        rich_help_panel=_DATA,
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        help="Synthetic corpora only: size as a share of the real corpus's, above 0 and at most 1; "
        "default: what the name says (-x0.5), else 0.1 for synthetic-mosei and 1 for "
        "synthetic-mosi.",
        show_default=False,
        rich_help_panel=_DATA,
    ),
]
AlignmentOption = Annotated[
    Alignment,
    typer.Option(
        help="aligned: audio and vision have one frame per text token.", rich_help_panel=_DATA
    ),
]
DistributionOption = Annotated[
    Distribution,
    typer.Option(
        help="ood: word-label association differs between training and test.", rich_help_panel=_DATA
    ),
]
TaskOption = Annotated[
    Task,
    typer.Option(
        help="three_class: negative, neutral, positive; seven_class: -3 to 3.",
        rich_help_panel=_DATA,
    ),
]
Model = Annotated[str, typer.Option(help="See: cider-platform models.", rich_help_panel=_MODEL)]
Missing = Annotated[
    str,
    typer.Option(
        metavar="PROTOCOL",
        help="How the incomplete view loses data, in training and in the validation that selects: "
        "rmfm, rmfm_per_modality, rmm, tmfm, stmfm, smm or none.",
        rich_help_panel=_MODEL,
    ),
]
Kept = Annotated[
    str,
    typer.Option(
        metavar="MODALITIES",
        help="smm only: what stays: L, A, V, LA, LV or AV.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
BehaviourOption = Annotated[
    Behaviour,
    typer.Option(
        help="corrected, or released: what the published code computes.", rich_help_panel=_MODEL
    ),
]
Encoder = Annotated[
    str,
    typer.Option(
        metavar="SOURCE",
        help="Text encoder: scratch, a Hugging Face model's name or a local folder; default: the "
        "corpus's own.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
Seed = Annotated[
    int, typer.Option(help="Seeds weights, order, dropout and masks.", rich_help_panel=_MODEL)
]
Epochs = Annotated[
    int | None,
    typer.Option(
        help="Most epochs; default: 200 as published, 3 for synthetic corpora.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Any field of the run's spec, e.g. model.layers=2 or training.batch_size=64; may be "
        "given many times. A field that is set is not searched.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
Maci = Annotated[
    bool | None,
    typer.Option(
        "--maci/--no-maci",
        help="Causal inference (MCM and counterfactual text) on or off; default: on.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
Selection = Annotated[
    Literal["validation", "published"],
    typer.Option(
        help="published: choose epoch and tau on the test split, as the authors do; everything "
        "made so is marked.",
        rich_help_panel=_MODEL,
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        help="Root of the feature stores; default: CIDER_STORE, else the user's data folder.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        help="Root of runs and studies; default: CIDER_RESULTS, else the user's data folder.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="CIDER_STORAGE",
        help="Database that keeps the study: sqlite:////FILE, postgresql://..., mysql://...; "
        "default: a journal in the study's folder.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Device = Annotated[
    str,
    typer.Option(help="cpu, cuda, cuda:N, or auto: a GPU if torch sees one.", rich_help_panel=_RUN),
]
Address = Annotated[
    str,
    typer.Option(
        help="A Ray cluster that runs already (auto on its nodes and inside its jobs); default: "
        "one on this machine, for this command alone.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Threads = Annotated[
    int,
    typer.Option(min=0, help="CPU threads of torch; 0: torch's own choice.", rich_help_panel=_RUN),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="WHERE",
        help="Live curves: tensorboard (files below the results) or mlflow (MLFLOW_TRACKING_URI, "
        "else a file beside the results); may be given twice.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Rates = Annotated[
    str,
    typer.Option(
        help="Missing rates: FIRST:LAST:STEP with both ends, or a list such as 0,0.3,0.7."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout instead of tables.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecOptions:
    """What the options of ``train`` and ``tune`` say about the spec."""

    dataset: str
    scale: float | None
    alignment: str
    distribution: str
    task: str
    model: str
    missing: str
    kept: str
    behaviour: str
    encoder: str
    seed: int
    epochs: int | None
    settings: list[str] = field(default_factory=list)
    maci: bool | None
    selection: str

    def set_paths(self) -> list[str]:
        """Return the paths of the fields that ``--set`` fixes."""
        return [text.partition("=")[0] for text in self.settings]


def build_spec(options: SpecOptions) -> RunSpec:
    """Return the spec that the options ask for, not yet resolved.

    The dataset's defaults come first, then the behaviour, then the options, then ``--set``.

    Raises:
        UsageError: for an unknown name or field, or a value that does not fit.
    """
    from cider.behaviour import with_behaviour
    from cider.missing import uses_rate
    from cider.spec import RunSpec
    from cider_platform.search.search import dataset_defaults

    dataset = _dataset_name(options.dataset, options.scale)
    values: dict[str, Any] = {
        "data": {
            "dataset": dataset,
            "alignment": options.alignment,
            "distribution": options.distribution,
            "task": options.task,
        },
        "model": {"name": options.model},
        "missing": {"protocol": options.missing, "kept": options.kept},
        "selection": {"rule": options.selection},
        "text_encoder": {"source": options.encoder},
        "seed": options.seed,
    }
    for path, value in dataset_defaults(dataset).fields.items():
        _put(values, path, value)
    if options.epochs is not None:
        _put(values, "training.epochs", options.epochs)
    if options.maci is not None:
        values["maci"] = {"mcm": options.maci, "counterfactual": options.maci}
    spec = with_behaviour(RunSpec.from_dict(values), options.behaviour)
    # Together, because two fields may only fit each other (protocol smm and its kept set).
    values = spec.to_dict()
    for text in options.settings:
        path, equals, value = text.partition("=")
        if not (path and equals):
            raise UsageError(f"--set must be PATH=VALUE, e.g. model.layers=2, got {text!r}")
        if path == "model.name":
            raise UsageError("choose the model with --model NAME, not with --set model.name")
        _put(values, path, value)
    spec = RunSpec.from_dict(values)
    uses_rate(spec.missing.protocol)  # refuses a name that is no protocol's
    return spec


def _put(values: dict[str, Any], path: str, value: object) -> None:
    *groups, name = path.split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        if not isinstance(inner, dict):
            raise UsageError(f"unknown field {path!r}: {group!r} has no fields of its own")
        values = inner
    values[name] = value


def _dataset_name(dataset: str, scale: float | None) -> str:
    from cider.data.synthetic import canonical_name, is_synthetic

    if is_synthetic(dataset):
        return canonical_name(dataset, scale=scale)
    if scale is not None:
        raise UsageError(f"--scale is only for synthetic corpora, got it with dataset {dataset!r}")
    return dataset


def check_folder(out: Path) -> None:
    """Refuse an ``--out`` that is a file where a folder is to be filled.

    Raises:
        UsageError: if it is one.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out must be a folder, got the file {str(out)!r}")


def build_runtime(
    store: Path | None,
    results: Path | None,
    device: str = "auto",
    threads: int = 0,
    *,
    address: str = "",
) -> Runtime:
    """Return where and how to run, with absolute folders and a device that is there.

    Raises:
        UsageError: if the device is not there, or a cluster is named and no device: its machines
            may have GPUs that this one has not.
    """
    import torch

    from cider_platform.roots import results_root, store_root
    from cider_platform.runs.trial import Runtime

    if address and device not in ("cpu", "cuda"):
        raise UsageError(
            f"what the machines of the cluster at {address} have is not known here, got --device "
            f"{device}; give --device cpu or --device cuda"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    runtime = Runtime(store_root(store), results_root(results), device, threads)
    assert address or runtime.torch_device
    return runtime


def read_storage(url: str | None) -> Storage | None:
    """Return the database that ``--storage`` names; None is the journal in a study's folder.

    Raises:
        UsageError: if it is no URL of a database.
    """
    from cider_platform.search.storage import Storage

    return Storage.parse(url) if url else None
