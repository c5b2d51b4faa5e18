"""What a stored corpus is: its name, its Arrow columns and its manifest. Imports no torch.

A corpus is one folder, ``<root>/<dataset>/<alignment>-<distribution>[-<task>]``::

    manifest.json              counts, widths, lengths, label histogram, hashes
    {train,valid,test}.arrow   ids, text, token ids, audio and vision frames; unpadded
    {split}.labels.arrow       labels in files of their own, so that the test labels stay sealed
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from cider.errors import StoreError, UsageError
from cider.spec import SPLITS, Alignment, Distribution, FrameDtype

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1
"""Version of the folder's layout and of the manifest."""
MANIFEST_FILE = "manifest.json"
ROWS_PER_BATCH = 1024
"""Most rows of a record batch: what a writer holds in memory at once."""
FRAME_MODALITIES = ("audio", "vision")
"""The modalities stored as frames; text is stored as token ids."""

FRAME_TYPES: dict[FrameDtype, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16()}
"""How frames may be stored; they are read as float32 either way."""


def feature_schema(dtype: FrameDtype) -> pa.Schema:
    """Return the columns of a split's features whose frames are stored as ``dtype``."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("token_ids", pa.list_(pa.int32())),
            # Frames are flattened (step-major); large lists: 1024 long videos pass 2**31 bytes.
            ("audio", pa.large_list(FRAME_TYPES[dtype])),
            ("vision", pa.large_list(FRAME_TYPES[dtype])),
            # Lengths the source file gave, where they are not the number of stored steps; only an
            # export in the source's format reads them.
            ("audio_source_length", pa.int32()),
            ("vision_source_length", pa.int32()),
        ]
    )


LABEL_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.float32()),
        ("source_class", pa.int8()),
        ("annotation", pa.string()),
    ]
)

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_VARIANT = re.compile(r"(un)?aligned-(iid|ood|cross_dataset)(-(three|seven)_class)?")
_ALLOWED = {
    "alignment": ("unaligned", "aligned"),
    "distribution": ("iid", "ood", "cross_dataset"),
    "task": ("any", "three_class", "seven_class"),
}


def feature_file(split: str) -> str:
    """Return the file name of a split's features."""
    return f"{split}.arrow"


def label_file(split: str) -> str:
    """Return the file name of a split's labels."""
    return f"{split}.labels.arrow"


DATA_FILES = tuple(name for split in SPLITS for name in (feature_file(split), label_file(split)))
"""Every file of a stored corpus but its manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKey:
    """The name of a stored corpus; ``task`` is ``any`` unless the splits differ between tasks."""

    dataset: str
    alignment: Alignment
    distribution: Distribution
    task: str = "any"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.dataset):
            raise UsageError(
                "dataset name must be letters, digits, '_', '-' and '.', not beginning with '.', "
                f"got {self.dataset!r}"
            )
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")

    @property
    def variant(self) -> str:
        """Name of the corpus's folder inside its dataset's folder."""
        parts = [self.alignment, self.distribution]
        return "-".join(parts if self.task == "any" else [*parts, self.task])

    def folder(self, root: Path) -> Path:
        """Return the folder of this corpus under a store root."""
        return root / self.dataset / self.variant

    def __str__(self) -> str:
        return f"{self.dataset}/{self.variant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """The tokenizer whose ids a corpus holds. Defaults: every uncased BERT vocabulary."""

    name: str
    """``bert-base-uncased`` (MMSA pickles), ``synthetic``, or a Hugging Face or folder name."""
    vocab_size: int
    """Number of token ids; every stored id is below it."""
    pad: int = 0
    unknown: int = 100
    start: int = 101
    end: int = 102
    mask: int = 103
    vocabulary_sha256: str = ""
    """Hash of the vocabulary in id order; empty where only the name is known."""

    @property
    def special_ids(self) -> dict[str, int]:
        """The five special token ids by role."""
        return {name: getattr(self, name) for name in ("pad", "unknown", "start", "end", "mask")}


BERT_BASE_UNCASED = Tokenizer(name="bert-base-uncased", vocab_size=30522)
"""The tokenizer of every MMSA pickle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything known about a stored corpus without opening its arrays."""

    schema_version: int = SCHEMA_VERSION
    dataset: str
    alignment: Alignment
    distribution: Distribution
    task: str
    synthetic: bool
    """True: generated data. Every table made from it must say so."""
    counts: dict[str, int]
    """Utterances per split."""
    widths: dict[str, int]
    """Feature width of audio and vision."""
    max_lengths: dict[str, int]
    """Padded lengths of the training split in the source: text, audio, vision (full padding)."""
    split_max_lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    """Padded lengths of a split where they are others (a cross-dataset test split)."""
    lengths: dict[str, dict[str, dict[str, float]]]
    """Per split and modality: min, mean and max number of steps."""
    label_histogram: dict[str, dict[str, list[int]]]
    """Per split and task: utterances of each class."""
    tokenizer: Tokenizer
    default_encoder: str
    """Text encoder of runs that name none: ``scratch``, a Hugging Face name or a folder."""
    source: dict[str, Any]
    """Where the corpus came from: file (name only), format, sha256, bytes."""
    cleaned: dict[str, dict[str, int]]
    """Per split: how often something in the source was repaired or left out, by kind."""
    content_sha256: str
    """Hash of the decoded content (see ``cider.data.content``); bears the identity of runs."""
    files: dict[str, str]
    """SHA-256 of every data file."""
    dtype: FrameDtype = "float32"
    """How audio and vision are stored. float16 halves the files and rounds the values, so it is
    another content and another identity of runs."""
    generator: dict[str, Any] | None
    """Parameters of a synthetic corpus or of a re-partition; None for an imported one."""

    @property
    def key(self) -> StoreKey:
        """The name of this corpus in a store."""
        return StoreKey(
            dataset=self.dataset,
            alignment=self.alignment,
            distribution=self.distribution,
            task=self.task,
        )

    def padded_lengths(self, split: str) -> dict[str, int]:
        """Return the lengths that full padding gives a split: text, audio, vision."""
        return self.split_max_lengths.get(split, self.max_lengths)

    def to_json(self) -> str:
        """Return the manifest as indented JSON text; ``from_json`` reads it back."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path | str) -> Manifest:
        """Read a manifest.

        Args:
            text: what ``to_json`` wrote.
            where: the manifest's path, for messages.

        Raises:
            StoreError: if it is not a manifest, or one of another schema version.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise StoreError(f"{where} is not readable JSON ({error}); import it again") from None
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{where} has schema version {version!r}, this program reads {SCHEMA_VERSION}; "
                "import the corpus again, or use the program version that wrote it"
            )
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            fault = error.errors()[0]
            field_name = ".".join(map(str, fault["loc"]))
            raise StoreError(
                f"{where} is not a corpus manifest: {field_name}: {fault['msg']}; import it again"
            ) from None


def corpus_folders(root: Path) -> list[Path]:
    """Return every folder under a store root that is named like a corpus, by name."""
    return sorted(
        path
        for path in root.glob("*/*aligned-*")
        if path.is_dir() and _NAME.fullmatch(path.parent.name) and _VARIANT.fullmatch(path.name)
    )


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a stored corpus.

    Raises:
        StoreError: if the folder holds none, or it cannot be read.
    """
    path = folder / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{folder} is not a stored corpus: it has no {MANIFEST_FILE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return Manifest.from_json(text, path)
