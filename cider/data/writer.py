"""Write a corpus into the feature store: streamed, checked, and all or nothing.

The corpus grows in a hidden folder beside its final place. ``finish`` writes the manifest last and
renames the folder; leaving without ``finish`` removes it. N is the number of rows of one call.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cider.data.content import ContentHash
from cider.data.hashing import file_sha256
from cider.data.labels import label_histogram
from cider.data.schema import (
    DATA_FILES,
    FRAME_MODALITIES,
    MANIFEST_FILE,
    ROWS_PER_BATCH,
    Manifest,
    StoreKey,
    Tokenizer,
)
from cider.data.split_files import RowRules, Rows, SplitFiles
from cider.errors import StoreError
from cider.spec import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from cider.spec import FrameDtype

_LOCK_FILE = "writing.lock"
_ABANDONED_SECONDS = 60.0
"""A half-written folder whose lock nobody holds is removed when it is at least this old."""


def refuse_stored(root: Path, key: StoreKey, overwrite: bool) -> None:
    """Raise ``StoreError`` if a corpus of this name is stored and must not be replaced."""
    if key.folder(root).exists() and not overwrite:
        raise StoreError(f"{key} is already stored in {root}; add --overwrite to replace it")


class StoreWriter:
    """Context manager that writes one corpus; see the module for what it guarantees."""

    def __init__(
        self,
        root: Path,
        key: StoreKey,
        *,
        tokenizer: Tokenizer,
        widths: dict[str, int],
        max_lengths: dict[str, int],
        source: dict[str, Any],
        default_encoder: str,
        synthetic: bool = False,
        generator: dict[str, Any] | None = None,
        overwrite: bool = False,
        cleaned: dict[str, dict[str, int]] | None = None,
        split_max_lengths: dict[str, dict[str, int]] | None = None,
        dtype: FrameDtype = "float32",
    ) -> None:
        """Say what will be written; nothing is touched before the context is entered.

        Args:
            root: the store's root folder; made if absent.
            key: name of the corpus.
            tokenizer: what made the token ids.
            widths: feature width of ``audio`` and ``vision``.
            max_lengths: padded length of ``text``, ``audio`` and ``vision`` in the source.
            source: file (a name, not a path), format, sha256, bytes; read at ``finish``.
            default_encoder: ``scratch``, a Hugging Face name or a folder.
            synthetic: True for generated data.
            generator: parameters of generated or re-partitioned data.
            overwrite: replace a corpus of the same name; it stays readable until ``finish``.
            cleaned: counts of repairs per split; read at ``finish``, so it may grow until then.
            split_max_lengths: padded lengths of a split where they are others than ``max_lengths``.
            dtype: how frames are stored; float16 rounds them.
        """
        self._root, self._key, self._overwrite = root, key, overwrite
        self._tokenizer, self._default_encoder = tokenizer, default_encoder
        self._widths = {name: widths[name] for name in FRAME_MODALITIES}
        self._max_lengths = {name: max_lengths[name] for name in ("text", *FRAME_MODALITIES)}
        self._split_max_lengths = split_max_lengths or {}
        self._source, self._synthetic, self._generator = source, synthetic, generator
        self._cleaned = {} if cleaned is None else cleaned
        self._dtype = dtype
        self._final = key.folder(root)
        self._folder = self._final.parent / f".writing-{key.variant}-{uuid.uuid4().hex[:12]}"
        self._splits: dict[str, SplitFiles] = {}
        self._content = ContentHash()
        self._lock: int | None = None

    def __enter__(self) -> Self:
        refuse_stored(self._root, self._key, self._overwrite)
        try:
            self._final.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self._final.parent)
            self._folder.mkdir()
            self._lock = os.open(self._folder / _LOCK_FILE, os.O_CREAT | os.O_RDWR)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._splits = {split: self._open(split) for split in SPLITS}
        except OSError as error:
            self._remove()
            raise StoreError(
                f"the feature store {self._root} cannot be written: {error}; name another with "
                "--store or CIDER_STORE"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def add(
        self,
        split: str,
        ids: Sequence[str],
        texts: Sequence[str],
        token_ids: Sequence[np.ndarray],
        audio: Sequence[np.ndarray],
        vision: Sequence[np.ndarray],
        labels: np.ndarray,
        source_classes: np.ndarray | Sequence[int | None] | None = None,
        annotations: Sequence[str | None] | None = None,
        *,
        source_lengths: dict[str, list[int | None]] | None = None,
    ) -> None:
        """Add the next rows of a split; the arrays may be views, but must not change afterwards.

        Args:
            split: ``train``, ``valid`` or ``test``.
            ids: N names, unique within the split.
            texts: N transcripts.
            token_ids: N integer arrays (T,), with start and end token, without padding.
            audio: N float32 arrays (S, F), S >= 1, without padding.
            vision: the same.
            labels: (N,) regression labels in [-3, 3].
            source_classes: N class labels the source gave; None if it gave none.
            annotations: N words the source gave (``Negative``); None if it gave none.
            source_lengths: for ``audio`` and ``vision``, lengths the source gave where they are not
                the number of rows stored, else None.

        Raises:
            StoreError: if a row does not fit; the message names it.
        """
        nothing: list[Any] = [None] * len(ids)
        given_lengths = source_lengths or {}
        files = self._splits[split]
        files.add(
            Rows(
                ids=list(ids),
                texts=list(texts),
                token_ids=list(token_ids),
                audio=list(audio),
                vision=list(vision),
                labels=np.asarray(labels, np.float32).tolist(),
                source_classes=nothing if source_classes is None else _plain(source_classes),
                annotations=nothing if annotations is None else list(annotations),
                audio_source_length=given_lengths.get("audio", nothing),
                vision_source_length=given_lengths.get("vision", nothing),
            )
        )
        while len(files.pending) >= ROWS_PER_BATCH:
            self._write(split, ROWS_PER_BATCH)

    def finish(self) -> Manifest:
        """Write what is pending and the manifest, and put the corpus in its place.

        Raises:
            StoreError: if a split is empty, or a corpus of this name appeared meanwhile.
        """
        for split, files in self._splits.items():
            if not len(files):
                raise StoreError(f"split {split} of {self._key} has no utterances")
            if len(files.pending):
                self._write(split, len(files.pending))
            files.close()
        manifest = self._manifest()
        (self._folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        self._publish()
        return manifest

    def _open(self, split: str) -> SplitFiles:
        rules = RowRules(
            where=f"split {split} of {self._key}",
            tokenizer=self._tokenizer,
            widths=self._widths,
            limits=self._split_max_lengths.get(split, self._max_lengths),
            dtype=self._dtype,
        )
        return SplitFiles(self._folder, split, rules)

    def _write(self, split: str, count: int) -> None:
        files = self._splits[split]
        rows = files.pending.take(count)
        labels_N = np.asarray(rows.labels, np.float32)
        # What will be read is what counts: rounded, if it is stored so.
        audio, vision = (
            [frames_SF.astype(self._dtype, copy=False) for frames_SF in column]
            for column in (rows.audio, rows.vision)
        )
        self._content.add(split, rows.ids, rows.token_ids, audio, vision, labels_N)
        files.write(rows)

    def _publish(self) -> None:
        refuse_stored(self._root, self._key, self._overwrite)
        replaced = self._folder.with_name(f"{self._folder.name}-replaced")
        try:
            if self._final.exists():
                self._final.rename(replaced)
            self._folder.rename(self._final)
        except OSError as error:
            if replaced.exists() and not self._final.exists():
                replaced.rename(self._final)
            raise StoreError(f"{self._key} could not be put in place: {error}") from error
        (self._final / _LOCK_FILE).unlink()
        shutil.rmtree(replaced, ignore_errors=True)

    def _manifest(self) -> Manifest:
        content_sha256 = self._content.hexdigest(
            widths=self._widths,
            max_lengths=self._max_lengths,
            split_max_lengths=self._split_max_lengths,
            tokenizer=self._tokenizer,
        )
        splits = self._splits.items()
        return Manifest(
            dataset=self._key.dataset,
            alignment=self._key.alignment,
            distribution=self._key.distribution,
            task=self._key.task,
            synthetic=self._synthetic,
            counts={split: len(files) for split, files in splits},
            widths=self._widths,
            max_lengths=self._max_lengths,
            split_max_lengths=self._split_max_lengths,
            lengths={split: _summary(files.lengths) for split, files in splits},
            label_histogram={split: label_histogram(np.array(f.labels)) for split, f in splits},
            tokenizer=self._tokenizer,
            default_encoder=self._default_encoder,
            source=self._source,
            cleaned=self._cleaned,
            content_sha256=content_sha256,
            files={name: file_sha256(self._folder / name) for name in DATA_FILES},
            dtype=self._dtype,
            generator=self._generator,
        )

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _plain(column: np.ndarray | Sequence[int | None]) -> list[int | None]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def _summary(lengths: dict[str, list[int]]) -> dict[str, dict[str, float]]:
    return {
        name: {"min": min(values), "mean": round(float(np.mean(values)), 4), "max": max(values)}
        for name, values in lengths.items()
    }


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed writer left: hidden folders, old enough, whose lock nobody holds."""
    for path in folder.glob(f".writing-*/{_LOCK_FILE}"):
        if time.time() - path.stat().st_mtime < _ABANDONED_SECONDS:
            continue
        lock = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(path.parent, ignore_errors=True)
        finally:
            os.close(lock)
