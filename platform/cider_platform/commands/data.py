"""``cider-platform data``: import, list, show, verify, re-partition and export corpora."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cider.spec import Alignment, Distribution, FrameDtype, Task
from cider_platform.commands.options import Json, Store  # noqa: TC001 - typer reads them

if TYPE_CHECKING:
    from cider.data.import_report import ImportResult
    from cider.data.schema import Manifest
    from cider_platform.corpora import CorpusFilter

app = typer.Typer(
    help="Import, list, check, re-partition and export corpora of the feature store.",
    no_args_is_help=True,
)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what has the same name.")]
Name = Annotated[str, typer.Argument(help="A dataset, or DATASET/VARIANT as data list prints it.")]
OfAlignment = Annotated[
    Alignment | None, typer.Option("--alignment", help="Only corpora of this alignment.")
]
OfDistribution = Annotated[
    Distribution | None, typer.Option("--distribution", help="Only corpora of this distribution.")
]
Dtype = Annotated[
    FrameDtype,
    typer.Option(help="How audio and vision are stored: float16 halves the store and rounds them."),
]
OfTask = Annotated[
    Task | None, typer.Option("--task", help="Only corpora whose splits are for this task.")
]


@app.command("import")
def import_(
    path: Annotated[
        Path,
        typer.Argument(
            help="A feature pickle in the MMSA format (also CIDer's OOD and cross-dataset files), "
            "or a folder with aligned_50.pkl and unaligned_50.pkl."
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Name the corpus gets: mosi, mosei, or your own.")],
    alignment: Annotated[
        Alignment | None,
        typer.Option(help="Default: what the file's name or arrays tell.", show_default=False),
    ] = None,
    distribution: Annotated[
        Distribution, typer.Option(help="ood: CIDer's re-partitioned files, one folder per task.")
    ] = "iid",
    task: Annotated[
        Task | None,
        typer.Option(help="ood only: the task of the file; default: what its folder's name tells."),
    ] = None,
    test_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="cross_dataset only: take the test split of this other corpus."
        ),
    ] = None,
    dtype: Dtype = "float32",
    overwrite: Overwrite = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Read feature pickles into the store; nothing in them is executed."""
    from cider.data.import_plan import plan_imports
    from cider.data.ingest import import_pickle
    from cider_platform.output import progress_bar

    root = _root(store)
    files = plan_imports(
        path,
        dataset=dataset,
        distribution=distribution,
        alignment=alignment,
        task=task,
        test_from=test_from,
    )
    stored = []
    for file in files:
        with progress_bar() as progress:
            result = import_pickle(
                root,
                file,
                dataset=dataset,
                distribution=distribution,
                dtype=dtype,
                overwrite=overwrite,
                progress=progress,
            )
        _tell(result, f"{file.path} stored as {result.manifest.key}")
        stored.append(result.manifest)
    _tell_stored(root, stored, as_json)


@app.command()
def import_table(
    manifest: Annotated[Path, typer.Argument(help="CSV with the columns id, split, label, text.")],
    features: Annotated[
        Path,
        typer.Option(
            metavar="FILE.npz",
            help="Arrays audio and vision: (N, F), (N, steps, F) or (all steps, F) with "
            "audio_lengths and vision_lengths; rows as in the table, or an array id.",
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Name the corpus gets.")],
    encoder: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="Text encoder whose tokenizer is used: a Hugging Face name or a local folder.",
        ),
    ],
    alignment: Annotated[
        Alignment, typer.Option(help="aligned: one frame per text token in both arrays.")
    ] = "unaligned",
    max_text_length: Annotated[
        int, typer.Option(help="Longer texts are cut to this many tokens, and counted.")
    ] = 50,
    dtype: Dtype = "float32",
    overwrite: Overwrite = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Bring a corpus of your own: a table of transcripts and labels, and arrays of features."""
    from cider.data.table import import_table as read
    from cider_platform.output import progress_bar

    root = _root(store)
    with progress_bar() as progress:
        result = read(
            root,
            manifest,
            features,
            dataset=dataset,
            encoder=encoder,
            alignment=alignment,
            max_text_length=max_text_length,
            dtype=dtype,
            overwrite=overwrite,
            progress=progress,
        )
    _tell(result, f"{manifest} stored as {result.manifest.key}")
    _tell_stored(root, [result.manifest], as_json)


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only this dataset.")] = None,
    alignment: OfAlignment = None,
    distribution: OfDistribution = None,
    task: OfTask = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List the corpora of the store."""
    from cider_platform.corpora import LIST_COLUMNS, list_corpora, list_rows
    from cider_platform.output import emit_json, emit_table

    wanted = _filter(name, alignment, distribution, task)
    corpora = [corpus for corpus in list_corpora(_root(store)) if wanted.matches(corpus)]
    if as_json:
        emit_json("data-list", [corpus.to_json() for corpus in corpora])
    else:
        emit_table(LIST_COLUMNS, list_rows(corpora), right=LIST_COLUMNS[1:-1])


@app.command()
def show(
    name: Name,
    alignment: OfAlignment = None,
    distribution: OfDistribution = None,
    task: OfTask = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show what is known about one corpus: counts, lengths, labels, source, repairs."""
    from cider_platform.corpora import show_rows, the_one
    from cider_platform.output import emit_json, emit_table

    corpus = the_one(_root(store), _filter(name, alignment, distribution, task))
    assert corpus.manifest is not None
    if as_json:
        facts = {"name": corpus.name, "folder": str(corpus.folder), "bytes": corpus.num_bytes}
        emit_json("data-show", {**facts, "manifest": _values(corpus.manifest)})
        return
    emit_table(("", ""), show_rows(corpus, corpus.manifest))
    _emit_shift(corpus.manifest)


@app.command()
def verify(
    name: Name,
    alignment: OfAlignment = None,
    distribution: OfDistribution = None,
    task: OfTask = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Hash every file and the content of a corpus again; exit code 1 if anything has changed."""
    from cider.data.verify import verify_corpus
    from cider.errors import StoreError
    from cider_platform.corpora import matching
    from cider_platform.output import emit_json, emit_table, progress_bar

    told, faults = [], []
    for corpus in matching(_root(store), _filter(name, alignment, distribution, task)):
        found, content = [corpus.fault], ""
        if corpus.manifest is not None:
            with progress_bar() as progress:
                result = verify_corpus(corpus.folder, progress)
            found, content = result.faults, result.content_sha256
        told.append(
            {"name": corpus.name, "ok": not found, "faults": found, "content_sha256": content}
        )
        faults += found
    if as_json:
        emit_json("data-verify", told)
    else:
        rows = [(each["name"], "intact" if each["ok"] else "damaged") for each in told]
        emit_table(("corpus", "state"), rows)
    if faults:
        raise StoreError(f"{'; '.join(faults)}; import the corpus again with --overwrite")


@app.command()
def split_ood(
    name: Name,
    seed: Annotated[int, typer.Option(help="Seeds the annealing and the division.")] = 1111,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Proposals of the annealing; default: 40 per utterance.", show_default=False
        ),
    ] = None,
    output_dataset: Annotated[
        str | None,
        typer.Option(help="Dataset name of the result; default: resplit-NAME.", show_default=False),
    ] = None,
    alignment: OfAlignment = None,
    distribution: OfDistribution = None,
    task: OfTask = None,
    overwrite: Overwrite = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Re-partition a corpus so that words speak for other labels in the test split.

    Sizes stay, and so do the test split's label counts. Validation is drawn at random from what is
    not test, so it follows the training distribution. Utterances of one video may be separated.
    """
    from cider.data.resplit import split_ood as re_partition
    from cider_platform.corpora import the_one
    from cider_platform.output import progress_bar

    root = _root(store)
    corpus = the_one(root, _filter(name, alignment, distribution, task))
    with progress_bar() as progress:
        manifest = re_partition(
            root,
            corpus.folder,
            output_dataset=output_dataset or f"resplit-{corpus.folder.parent.name}",
            seed=seed,
            steps=steps,
            overwrite=overwrite,
            progress=progress,
        )
    _tell_stored(root, [manifest], as_json)
    if not as_json:
        _emit_shift(manifest)


@app.command()
def export(
    name: Name,
    out: Annotated[Path, typer.Argument(metavar="OUT.pkl", help="The file to write.")],
    format_name: Annotated[str, typer.Option("--format", help="mmsa.")] = "mmsa",
    alignment: OfAlignment = None,
    distribution: OfDistribution = None,
    task: OfTask = None,
    overwrite: Overwrite = False,
    store: Store = None,
) -> None:
    """Write a corpus as a feature pickle, with the keys, types and padding its source had."""
    from cider.data.export import export_corpus
    from cider_platform.corpora import readable_bytes, the_one
    from cider_platform.output import progress_bar, say

    corpus = the_one(_root(store), _filter(name, alignment, distribution, task))
    with progress_bar() as progress:
        size = export_corpus(
            corpus.folder, out, format_name=format_name, overwrite=overwrite, progress=progress
        )
    say(f"{corpus.name} written to {out} ({readable_bytes(size)})")


def _root(option: Path | None) -> Path:
    from cider_platform.output import say
    from cider_platform.roots import store_root

    root = store_root(option)
    say(f"feature store: {root}")
    return root


def _filter(
    name: str | None,
    alignment: Alignment | None,
    distribution: Distribution | None,
    task: Task | None,
) -> CorpusFilter:
    from cider_platform.corpora import CorpusFilter as Filter

    return Filter(name=name, alignment=alignment, distribution=distribution, task=task)


def _tell(result: ImportResult, done: str) -> None:
    from cider_platform.output import say, warn

    for note in result.notes:
        say(note)
    for warning in result.warnings:
        warn(warning)
    say(done)


def _tell_stored(root: Path, manifests: list[Manifest], as_json: bool) -> None:
    from cider_platform.corpora import LIST_COLUMNS, StoredCorpus, list_rows
    from cider_platform.output import emit_json, emit_table

    if as_json:
        emit_json("data-stored", [_values(manifest) for manifest in manifests])
        return
    corpora = [StoredCorpus(manifest.key.folder(root), manifest) for manifest in manifests]
    emit_table(LIST_COLUMNS, list_rows(corpora), right=LIST_COLUMNS[1:-1])


def _emit_shift(manifest: Manifest) -> None:
    from cider_platform.corpora import shift_rows
    from cider_platform.output import emit_table

    if manifest.generator is None or manifest.generator.get("kind") != "split_ood":
        return
    columns = ("shift", "before", "after", "by chance")
    emit_table(columns, shift_rows(manifest.generator["report"]), right=columns[1:])


def _values(manifest: Manifest) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(manifest)
