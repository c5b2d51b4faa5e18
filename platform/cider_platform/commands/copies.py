"""``results``: copy finished runs and studies to an object store, and fetch them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Results  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cider_platform.runs.copies import Copied

app = typer.Typer(
    help="Copy finished runs and studies to an object store, and fetch them.", no_args_is_help=True
)

Uri = Annotated[
    str,
    typer.Argument(
        help="s3://BUCKET/FOLDER, gs://..., abfs://..., hdfs://... or file:///FOLDER.",
        metavar="URI",
    ),
]
Runs = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        metavar="ID",
        help="Only this run; may be given many times; default: all, and the studies.",
        show_default=False,
    ),
]


@app.command("push")
def push_results(uri: Uri, run: Runs = None, results: Results = None, json: Json = False) -> None:
    """Copy complete runs and the studies; what is there already is not copied again.

    Example: cider-platform results push s3://my-bucket/cider
    """
    from cider_platform.output import emit_json
    from cider_platform.roots import results_root
    from cider_platform.runs.copies import Place, push

    root = results_root(results)
    rows = _rows(uri, push(root, Place(uri), _ids(root, run)))
    if json:
        emit_json("results.push", rows)
    else:
        _tell(rows)


@app.command("pull")
def pull_results(uri: Uri, run: Runs = None, results: Results = None, json: Json = False) -> None:
    """Fetch complete runs, and studies that are not here.

    Example: cider-platform results pull s3://my-bucket/cider
    """
    from cider_platform.layout import check_name
    from cider_platform.output import emit_json
    from cider_platform.roots import results_root
    from cider_platform.runs.copies import Place, pull

    wanted = [check_name("run", each) for each in run or ()]
    rows = _rows(uri, pull(Place(uri), results_root(results), wanted))
    if json:
        emit_json("results.pull", rows)
    else:
        _tell(rows)


def _ids(root: Path, given: list[str] | None) -> list[str]:
    from cider_platform.results import find_run

    return [find_run(root, each).run_id for each in given or ()]


def _rows(uri: str, done: Iterable[Copied]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from cider.errors import NothingMatchedError

    rows = [asdict(each) for each in done]
    if not rows:
        raise NothingMatchedError(f"there is no run or study to copy between here and {uri}")
    return rows


def _tell(rows: list[dict[str, Any]]) -> None:
    from cider_platform.corpora import readable_bytes
    from cider_platform.output import emit_table, say

    emit_table(
        ["run or study", "files copied", "size", ""],
        [
            [each["name"], each["files"], readable_bytes(each["size_bytes"]), each["left"]]
            for each in rows
        ],
        right=("files copied", "size"),
    )
    copied = sum(each["files"] > 0 for each in rows)
    say(f"{copied} of {len(rows)} copied, the others were there or are not complete")
