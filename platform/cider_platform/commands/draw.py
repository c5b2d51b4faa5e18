"""``draw``: figures that take a run's model or corpus: attention, representations, words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.explain import Kept, MaskSeed, Protocol, Rate  # noqa: TC001
from cider_platform.commands.options import (
    Device,
    Json,
    Results,
    Store,
    Threads,
    check_folder,
)
from cider_platform.commands.runs import Run  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cider.condition import Condition
    from cider.modality import Modality
    from cider_platform.explaining.attention import SampleAttention, Shares
    from cider_platform.explaining.opened import OpenedRun, Sample
    from cider_platform.results import RunRecord

    Title = Callable[[str], list[str]]

app = typer.Typer(
    help="Figures that take a run's model or corpus, SVG and PNG: attention, representations, "
    "words and labels.",
    no_args_is_help=True,
)

Out = Annotated[
    Path,
    typer.Option(
        metavar="DIR", help="Folder of the figures; made if it is not there; same names replaced."
    ),
]
Runs = Annotated[
    list[str], typer.Argument(help="Ids of runs, or the beginnings of them.", metavar="RUN...")
]
MOST_RUNS = 4
"""Runs in one figure of representations."""


@app.command("attention")
def attention(
    run: Run,
    sample: Annotated[
        list[str] | None,
        typer.Option(
            "--id",
            metavar="SAMPLE",
            help="Id of an utterance, of any split; may be given many times.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        Literal["train", "valid", "test"] | None,
        typer.Option(help="Instead of utterances: the mean of a split.", show_default=False),
    ] = None,
    layer: Annotated[int, typer.Option(min=0, help="Fusion layer, from 1; 0: the last one.")] = 0,
    head: Annotated[
        int, typer.Option(min=0, help="Attention head, from 1; 0: the mean over heads.")
    ] = 0,
    missing: Protocol = "none",
    rate: Rate = None,
    kept: Kept = "",
    seed: MaskSeed = None,
    out: Out = Path("figures"),
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Draw what the fusion attends to, per modality subset: of utterances, or the mean of a split.

    Example: cider-platform draw attention 3fa9 --id 'test$12'
    """
    from cider.errors import UsageError
    from cider_platform.commands.explain import counter, one_condition
    from cider_platform.explaining.attention import Choice, attention_of, mean_shares
    from cider_platform.explaining.opened import said
    from cider_platform.output import emit_json, progress_bar

    if bool(sample) == bool(split):
        raise UsageError("draw attention takes --id or --split, one of them")
    if split and seed is not None:
        raise UsageError("--seed is of single utterances; leave it out with --split")
    check_folder(out)
    (record,), (opened,) = _open([run], store, results, device, threads)
    condition = one_condition(record, missing, rate, kept)
    choice = Choice(layer, head)
    shown = "last fusion layer" if layer == 0 else f"fusion layer {layer}"
    lines = _headed(record, opened, f"{shown}, {_head(head)}, {said(condition)}")
    stem = f"attention-{record.run_id[:8]}"
    if split:
        with progress_bar() as advance:
            told = counter(advance, f"{split} split")
            shares = mean_shares(opened, split, condition, choice, told)
        named = f"{split} split, mean of {shares.utterances} utterances"
        files = _draw_shares(out, f"{stem}-{split}", shares, lines(named))
        found = [{"split": split, "utterances": shares.utterances, **_shares(shares)}]
    else:
        files, found = [], []
        for each in opened.find(list(dict.fromkeys(sample or ()))):
            made = attention_of(opened, each, condition, choice, seed)
            files += _draw_sample(out, stem, each, made, opened, lines)
            found.append({"id": each.id, "split": each.split, **_shares(made.shares)})
    if json:
        emit_json("draw.attention", _facts([record], condition, found, files))
    else:
        _print(files)


def _head(head: int) -> str:
    return f"head {head}" if head else "mean over heads"


def _draw_sample(
    out: Path,
    stem: str,
    sample: Sample,
    made: SampleAttention,
    opened: OpenedRun,
    lines: Title,
) -> list[Path]:
    from cider_platform.explaining.draw_attention import draw_frames, draw_maps
    from cider_platform.explaining.words import vocabulary_of
    from cider_platform.figure_files import file_name, write_both

    vocabulary = vocabulary_of(opened.store, opened.spec.text_encoder.source)
    words = [vocabulary.word(token_id) for token_id in made.words]
    heading = lines(f"{sample.id} ({sample.split})")
    name = f"{stem}-{file_name(sample.id)}"
    files = write_both(out, name, lambda: draw_maps(made, words, heading))
    if made.frames:
        named = [heading[0], f"{sample.id} ({sample.split}): frames that each word reads (WSAM)"]
        files += write_both(out, f"{name}-frames", lambda: draw_frames(made, words, named))
    return files + _draw_shares(out, f"{name}-shares", made.shares, heading)


def _draw_shares(out: Path, name: str, shares: Shares, lines: Sequence[str]) -> list[Path]:
    from cider_platform.explaining.draw_attention import draw_shares
    from cider_platform.figure_files import write_both

    return write_both(out, name, lambda: draw_shares(shares, lines))


def _shares(shares: Shares) -> dict[str, Any]:
    """Return shares as JSON values: per subset, query modality and key modality."""
    from cider.modality import Modality
    from cider_platform.explaining.attention import name_of

    members: list[Modality] = list(Modality)
    return {
        "shares": {
            name_of(subset): {
                query.value: {
                    key.value: _finite(table_MM[members.index(query)][members.index(key)])
                    for key in subset
                }
                for query in subset
            }
            for subset, table_MM in zip(shares.subsets, shares.shares_GMM.tolist(), strict=True)
        }
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@app.command("representations")
def representations(
    run: Runs,
    missing: Annotated[
        str,
        typer.Option(
            metavar="PROTOCOL",
            help="Missing protocol; default: the first run's own.",
            show_default=False,
        ),
    ] = "",
    rates: Annotated[str, typer.Option(help="Missing rates, as evaluate takes them.")] = (
        "0.1,0.3,0.5"
    ),
    split: Annotated[
        Literal["train", "valid", "test"], typer.Option(help="Which utterances.")
    ] = "test",
    points: Annotated[
        int, typer.Option(help="Most utterances that are drawn, at least 4; numbers take all.")
    ] = 500,
    perplexity: Annotated[
        float,
        typer.Option(help="Of the t-SNE: about how many neighbours count; below the points."),
    ] = 30.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Chooses the drawn utterances and seeds the t-SNE.")
    ] = 0,
    out: Out = Path("figures"),
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Draw joint representations under missing data: a t-SNE per run and rate, with numbers.

    Give a run with self-distillation and one without to see what it does. Takes scikit-learn, which
    the extra figures brings.

    Example: cider-platform draw representations 3fa9 81bc --rates 0.1,0.3,0.5
    """
    from cider.errors import UsageError
    from cider_platform.commands.explain import counter
    from cider_platform.explaining import embedding
    from cider_platform.explaining.draw_embedding import draw_embedding
    from cider_platform.figure_files import write_both
    from cider_platform.output import emit_json, emit_table, progress_bar
    from cider_platform.runs.rates import parse_rates

    names = list(dict.fromkeys(run))
    if len(names) > MOST_RUNS:
        raise UsageError(f"one figure shows at most {MOST_RUNS} runs, got {len(names)}")
    wanted = parse_rates(rates)
    if len(wanted) > MOST_RUNS:
        raise UsageError(f"one figure shows at most {MOST_RUNS} rates, got {len(wanted)}")
    projection = embedding.Projection(points=points, perplexity=perplexity, seed=seed)
    check_folder(out)
    records, opened = _open(names, store, results, device, threads)
    with progress_bar() as advance:
        told = counter(advance, "panels")
        found = embedding.panels(opened, split, missing, wanted, projection, told)
    what = f"t-SNE of joint representations, {split} split, perplexity {perplexity:g}, seed {seed}"
    lines = _headed(records[0], opened[0], what, with_run=False)("")
    rows = [f"run {each.folder.run_id[:8]}, {embedding.distillation(each)}" for each in opened]
    task = opened[0].spec.data.task
    stem = "-".join(["representations", *(record.run_id[:8] for record in records), split])
    files = write_both(out, stem, lambda: draw_embedding(found, rows, task, lines))
    numbers = [
        {
            "run": each.run_id,
            "condition": str(each.condition),
            "centroid_accuracy": _finite(each.separation.centroid),
            "silhouette": _finite(each.separation.silhouette),
            "cka_with_complete": _finite(each.separation.cka),
        }
        for each in found
    ]
    if json:
        facts = {"split": split, "perplexity": perplexity, "points": points, "seed": seed}
        emit_json("draw.representations", _facts(records, None, numbers, files) | facts)
        return
    columns = ["run", "missing", "centroid accuracy", "silhouette", "CKA with complete"]
    cells = [[_cell(value) for value in row.values()] for row in numbers]
    emit_table(columns, cells, title=" ".join(lines), right=columns[2:])
    _print(files)


def _cell(value: object) -> object:
    return f"{value:.3f}" if isinstance(value, float) else value


@app.command("words")
def words(
    run: Runs,
    out: Out = Path("figures"),
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Draw how words go with labels in training and test, for the corpora of some runs.

    Give a run of IID and one of OOD data to see what the redistribution changed; the first is what
    others are compared with. True test labels are read by leave of frozen runs.

    Example: cider-platform draw words 3fa9 81bc
    """
    from cider.errors import UsageError
    from cider_platform.explaining.association import as_json, associations
    from cider_platform.explaining.draw_words import MOST, draw_words
    from cider_platform.figure_files import write_both
    from cider_platform.output import emit_json, emit_table, say
    from cider_platform.tables import number, title

    check_folder(out)
    records, opened = _open(list(dict.fromkeys(run)), store, results, device, threads)
    found = associations(opened)
    if len(found) > MOST:
        raise UsageError(f"one figure shows at most {MOST} corpora, got {len(found)}")
    marks = sorted({mark for record in records for mark in record.marks})
    lines = [title("words and labels, training against test", marks)]
    name = "-".join(["words", *(each.run_id[:8] for each in found)])
    files = write_both(out, name, lambda: draw_words(found, lines))
    if json:
        emit_json("draw.words", _facts(records, None, [as_json(each) for each in found], files))
        return
    columns = ["corpus", "words", "shift to test", "chance", "over the first corpus's words",
               "label distance"]  # fmt: skip
    rows: list[list[object]] = [
        [each.corpus, len(each.token_W), number(each.shift), number(each.chance),
         number(each.common_shift), number(each.label_distance)]
        for each in found
    ]  # fmt: skip
    emit_table(columns, rows, title=lines[0], right=columns[1:])
    _print(files)
    for origin in dict.fromkeys(each.vocabulary.origin for each in found):
        say(f"words: {origin}")


def _open(
    names: Sequence[str],
    store: Path | None,
    results: Path | None,
    device: str,
    threads: int,
) -> tuple[list[RunRecord], list[OpenedRun]]:
    """Return runs by the beginnings of their ids; all are found before one is opened."""
    from cider_platform.commands.options import build_runtime
    from cider_platform.explaining.opened import OpenedRun
    from cider_platform.results import find_run

    runtime = build_runtime(store, results, device, threads)
    found = {record.run_id: record for record in (find_run(runtime.results, n) for n in names)}
    records = list(found.values())
    return records, [OpenedRun(record.folder, runtime) for record in records]


def _headed(record: RunRecord, opened: OpenedRun, what: str, *, with_run: bool = True) -> Title:
    """Return what makes a heading's lines of the name of what is shown."""
    from cider_platform.tables import title

    corpus = f"{opened.store.manifest.key}, {opened.spec.data.task}"
    first = title(f"run {record.run_id}, {corpus}" if with_run else corpus, record.marks)
    return lambda shown: [first, f"{shown}: {what}" if shown else what]


def _facts(
    records: Sequence[RunRecord],
    condition: Condition | None,
    found: list[dict[str, Any]],
    files: Sequence[Path],
) -> dict[str, Any]:
    return {
        "runs": [record.run_id for record in records],
        "marks": sorted({mark for record in records for mark in record.marks}),
        "condition": None if condition is None else str(condition),
        "found": found,
        "files": [str(path) for path in files],
    }


def _print(files: Sequence[Path]) -> None:
    from cider_platform.output import emit_line

    for path in files:
        emit_line(str(path))
