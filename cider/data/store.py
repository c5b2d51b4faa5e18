"""Read a stored corpus: memory-mapped, without copies, shared by every process of a node.

Training labels and validation labels are read on demand. The test split's label file is opened by
``FeatureStore.test_labels`` alone, which asks for a permit. Shapes: N utterances, T text steps, S
audio or vision steps, F feature width.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.data.arrow_file import open_batches
from cider.data.datasets import missing_message
from cider.data.label_table import read_label_table
from cider.data.schema import StoreKey, feature_file, feature_schema, read_manifest
from cider.data.seal import TestPermit
from cider.errors import SealedTestError, StoreError
from cider.modality import Modality, PerModality
from cider.registry import lookup
from cider.spec import SPLITS

if TYPE_CHECKING:
    from pathlib import Path

    from cider.data.schema import Manifest
    from cider.spec import Alignment, Distribution

_COLUMNS = {Modality.TEXT: "token_ids", Modality.AUDIO: "audio", Modality.VISION: "vision"}


class _ListColumn:
    """One list column over all record batches, as views of the mapped file."""

    def __init__(self, arrays: list[Any]) -> None:
        self._offsets = [array.offsets.to_numpy() for array in arrays]
        self._values = [array.values.to_numpy(zero_copy_only=True) for array in arrays]

    def row(self, batch: int, row: int) -> np.ndarray:
        offsets = self._offsets[batch]
        view: np.ndarray = self._values[batch][offsets[row] : offsets[row + 1]]
        return view

    @property
    def sizes(self) -> np.ndarray:
        """int64 (N,): number of values of each row."""
        return np.concatenate([np.diff(offsets) for offsets in self._offsets]).astype(np.int64)


class SplitView:
    """One split of a corpus; the test split's view has no labels."""

    def __init__(self, folder: Path, manifest: Manifest, name: str) -> None:
        self.name = name
        self._folder, self._manifest = folder, manifest
        self._batches = open_batches(folder / feature_file(name), feature_schema(manifest.dtype))
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)]).tolist()
        if len(self) != manifest.counts[name]:
            raise StoreError(
                f"{folder / feature_file(name)} has {len(self)} utterances, its manifest says "
                f"{manifest.counts[name]}; import the corpus again with --overwrite"
            )
        self._columns = {
            modality: _ListColumn([batch.column(column) for batch in self._batches])
            for modality, column in _COLUMNS.items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process maps the files itself; nothing but their names travels.
        return _open_split, (self._folder, self.name)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def widths(self) -> dict[str, int]:
        """Feature width of audio and vision."""
        return self._manifest.widths

    @cached_property
    def ids(self) -> list[str]:
        """Names of the utterances, in row order."""
        return self._column("id")

    @cached_property
    def texts(self) -> list[str]:
        """Transcripts, in row order."""
        return self._column("text")

    @cached_property
    def lengths(self) -> PerModality[np.ndarray]:
        """Number of steps of every utterance, int64 (N,) per modality."""
        widths = self._manifest.widths
        return PerModality(
            self._columns[Modality.TEXT].sizes,
            self._columns[Modality.AUDIO].sizes // widths["audio"],
            self._columns[Modality.VISION].sizes // widths["vision"],
        )

    @cached_property
    def labels(self) -> np.ndarray:
        """Regression labels, float32 (N,).

        Raises:
            SealedTestError: for the test split.
        """
        if self.name == "test":
            raise SealedTestError(
                f"the test labels of {self._manifest.key} are sealed: choose on the validation "
                "split; only the evaluation of a frozen run reads them"
            )
        return read_label_table(self._folder, self.name).labels

    def token_ids(self, index: int) -> np.ndarray:
        """Return the token ids of an utterance: int32 (T,), a read-only view."""
        return self._columns[Modality.TEXT].row(*self._locate(index))

    def frames(self, modality: Modality | str, index: int) -> np.ndarray:
        """Return the frames of an utterance: float32 (S, F), a read-only view of the file.

        Frames that are stored as float16 are copied.

        Args:
            modality: audio or vision.
            index: row number in [0, N).
        """
        width = self._manifest.widths[modality]
        frames_SF = self._columns[Modality(modality)].row(*self._locate(index)).reshape(-1, width)
        return frames_SF.astype(np.float32, copy=False)

    def source_lengths(self, modality: Modality | str) -> list[int | None]:
        """Return the lengths the source gave where they are not the stored ones, else None."""
        return self._column(f"{modality}_source_length")

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of split {self.name}, which has {len(self)} rows")
        batch = bisect_right(self._starts, index) - 1
        return batch, index - self._starts[batch]

    def _column(self, name: str) -> list[Any]:
        return [value for batch in self._batches for value in batch.column(name).to_pylist()]


class FeatureStore:
    """A stored corpus; made by ``FeatureStore.open``."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._splits: dict[str, SplitView] = {}

    @classmethod
    def open(cls, folder: Path) -> FeatureStore:
        """Open a stored corpus; only its manifest is read yet.

        Raises:
            StoreError: if the folder is not a stored corpus of this schema version.
        """
        return cls(folder, read_manifest(folder))

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureStore.open, (self.folder,)

    def split(self, name: str) -> SplitView:
        """Return the view of ``train``, ``valid`` or ``test``; its files are mapped once.

        Raises:
            UsageError: for another name.
            StoreError: if a file is missing or damaged.
        """
        lookup("split", name, dict.fromkeys(SPLITS))
        if name not in self._splits:
            self._splits[name] = SplitView(self.folder, self.manifest, name)
        return self._splits[name]

    def test_labels(self, permit: TestPermit) -> np.ndarray:
        """Return the regression labels of the test split, float32 (N,).

        Args:
            permit: from ``cider.data.seal``; made only for a frozen run or published selection.

        Raises:
            SealedTestError: if this is no permit.
        """
        if not isinstance(permit, TestPermit):
            raise SealedTestError(
                f"the test labels of {self.manifest.key} open for a TestPermit, got {permit!r}"
            )
        return read_label_table(self.folder, "test").labels


def _open_split(folder: Path, name: str) -> SplitView:
    return FeatureStore.open(folder).split(name)


def find_store(
    root: Path, dataset: str, alignment: Alignment, distribution: Distribution, task: str
) -> Path:
    """Return the folder of a corpus: the task's own partition if there is one, else the common one.

    Args:
        root: the store's root folder.
        dataset: name of the corpus.
        alignment: unaligned or aligned.
        distribution: iid, ood or cross_dataset.
        task: three_class or seven_class.

    Raises:
        StoreError: if it is not stored; the message says how to get it.
    """
    for variant in (task, "any"):
        key = StoreKey(
            dataset=dataset, alignment=alignment, distribution=distribution, task=variant
        )
        folder = key.folder(root)
        if folder.is_dir():
            return folder
    raise StoreError(missing_message(root, key))
