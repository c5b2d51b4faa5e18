"""Check a stored corpus against its manifest: every file's bytes, then the decoded content."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cider.data.content import ContentHash
from cider.data.hashing import file_sha256
from cider.data.label_table import read_label_table
from cider.data.store import FeatureStore
from cider.errors import StoreError
from cider.spec import SPLITS

if TYPE_CHECKING:
    from pathlib import Path

    from cider.data.progress import Progress
    from cider.data.schema import Manifest

_ROWS_PER_PIECE = 1024


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was found; an empty ``faults`` means the corpus is as it was written."""

    manifest: Manifest
    content_sha256: str
    """Hash of the content as it is now; empty where a file has changed or cannot be read."""
    faults: list[str] = field(default_factory=list)


def verify_corpus(folder: Path, progress: Progress | None = None) -> VerifyResult:
    """Hash every file and the content of a stored corpus again.

    Args:
        folder: the stored corpus.
        progress: called while files are hashed.

    Raises:
        StoreError: if there is no readable manifest to compare with.
    """
    store = FeatureStore.open(folder)
    faults = []
    for name, expected in store.manifest.files.items():
        report = None if progress is None else partial(progress, f"hash {name}")
        try:
            found = file_sha256(folder / name, report)
        except StoreError as error:
            faults.append(str(error))
            continue
        if found != expected:
            faults.append(f"{folder / name} has changed since it was written")
    if faults:  # Bytes that changed are not decoded.
        return VerifyResult(store.manifest, "", faults)
    try:
        content = _content_sha256(store)
    except StoreError as error:
        return VerifyResult(store.manifest, "", [str(error)])
    if content != store.manifest.content_sha256:
        faults.append(f"the content of {folder} is not the one its manifest names")
    return VerifyResult(store.manifest, content, faults)


def _content_sha256(store: FeatureStore) -> str:
    manifest = store.manifest
    content = ContentHash()
    for split in SPLITS:
        view, labels = store.split(split), read_label_table(store.folder, split)
        if labels.ids != view.ids:
            raise StoreError(f"the labels of split {split} of {store.folder} are of other ids")
        for start in range(0, len(view), _ROWS_PER_PIECE):
            rows = range(start, min(start + _ROWS_PER_PIECE, len(view)))
            content.add(
                split,
                [view.ids[row] for row in rows],
                [view.token_ids(row) for row in rows],
                [view.frames("audio", row) for row in rows],
                [view.frames("vision", row) for row in rows],
                labels.labels[rows.start : rows.stop],
            )
    return content.hexdigest(
        widths=manifest.widths,
        max_lengths=manifest.max_lengths,
        split_max_lengths=manifest.split_max_lengths,
        tokenizer=manifest.tokenizer,
    )
