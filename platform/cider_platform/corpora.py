"""Which corpora a feature store holds, and how they are told: as JSON values or as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cider.data.schema import Manifest, corpus_folders, read_manifest
from cider.errors import NothingMatchedError, StoreError, UsageError
from cider.spec import SPLITS

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredCorpus:
    """A corpus folder; one whose manifest cannot be read has a fault instead."""

    folder: Path
    manifest: Manifest | None
    fault: str = ""

    @property
    def name(self) -> str:
        """Dataset and variant, as ``data show`` takes it."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def num_bytes(self) -> int:
        """Size of the folder's files."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    def to_json(self) -> dict[str, Any]:
        """Return what ``data list`` tells of this corpus."""
        values: dict[str, Any] = {"name": self.name, "folder": str(self.folder)}
        if self.manifest is None:
            return {**values, "readable": False, "fault": self.fault}
        told = ("dataset", "alignment", "distribution", "task", "synthetic", "counts", "widths")
        facts = {name: getattr(self.manifest, name) for name in told}
        hashes = {"content_sha256": self.manifest.content_sha256, "bytes": self.num_bytes}
        return {**values, "readable": True, **facts, **hashes}


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFilter:
    """What a user said about the corpus that is meant; None: anything."""

    name: str | None = None
    """A dataset, or dataset and variant as ``data list`` prints them."""
    alignment: str | None = None
    distribution: str | None = None
    task: str | None = None

    def matches(self, corpus: StoredCorpus) -> bool:
        """Return whether a corpus is meant."""
        if self.name not in (None, corpus.folder.parent.name, corpus.name):
            return False
        alignment, distribution, *task = corpus.folder.name.split("-")
        wanted = (
            (self.alignment, alignment),
            (self.distribution, distribution),
            (self.task, task[0] if task else "any"),
        )
        return all(asked in (None, found) for asked, found in wanted)


def list_corpora(root: Path) -> list[StoredCorpus]:
    """Return every corpus under a store root, by name."""
    corpora = []
    for folder in corpus_folders(root):
        try:
            corpora.append(StoredCorpus(folder, read_manifest(folder)))
        except StoreError as error:
            corpora.append(StoredCorpus(folder, None, str(error)))
    return corpora


def matching(root: Path, wanted: CorpusFilter) -> list[StoredCorpus]:
    """Return the corpora that are meant, at least one.

    Raises:
        NothingMatchedError: if there is none; the message lists those there are.
    """
    every = list_corpora(root)
    found = [corpus for corpus in every if wanted.matches(corpus)]
    if not found:
        asked = ", ".join(str(value) for value in asdict(wanted).values() if value is not None)
        names = ", ".join(corpus.name for corpus in every) or "none"
        raise NothingMatchedError(f"no corpus in {root} matches {asked}; stored are: {names}")
    return found


def the_one(root: Path, wanted: CorpusFilter) -> StoredCorpus:
    """Return the one corpus that is meant.

    Raises:
        NothingMatchedError: if there is none.
        UsageError: if there are several; the message says how to tell them apart.
        StoreError: if its manifest cannot be read.
    """
    corpus, *others = matching(root, wanted)
    if others:
        names = ", ".join(each.name for each in (corpus, *others))
        raise UsageError(
            f"several corpora match: {names}; give one of these names, or --alignment, "
            "--distribution or --task"
        )
    if corpus.manifest is None:
        raise StoreError(corpus.fault)
    return corpus


def list_rows(corpora: list[StoredCorpus]) -> list[tuple[object, ...]]:
    """Return the rows of the ``data list`` table: name, splits, widths, size, remark."""
    rows: list[tuple[object, ...]] = []
    for corpus in corpora:
        manifest = corpus.manifest
        if manifest is None:
            rows.append(
                (corpus.name, "", "", "", "", "", readable_bytes(corpus.num_bytes), "damaged")
            )
            continue
        counts = (manifest.counts[split] for split in SPLITS)
        widths = (manifest.widths["audio"], manifest.widths["vision"])
        size = readable_bytes(corpus.num_bytes)
        rows.append((corpus.name, *counts, *widths, size, remark(manifest)))
    return rows


LIST_COLUMNS = ("corpus", *SPLITS, "audio", "vision", "size", "remark")


def remark(manifest: Manifest) -> str:
    """Return what must stand beside a corpus wherever it is named."""
    words = ["synthetic"] if manifest.synthetic else []
    if manifest.generator is not None and manifest.generator.get("kind") == "split_ood":
        words.append("re-partitioned by split-ood")
    return ", ".join(words)


def show_rows(corpus: StoredCorpus, manifest: Manifest) -> list[tuple[object, object]]:
    """Return the facts of one corpus as name and value."""
    rows: list[tuple[object, object]] = [
        ("corpus", corpus.name),
        ("folder", corpus.folder),
        ("remark", remark(manifest)),
        ("size", readable_bytes(corpus.num_bytes)),
        ("source", " ".join(str(manifest.source.get(k, "")) for k in ("format", "file")).strip()),
        ("source SHA-256", manifest.source.get("sha256", "")),
        ("content SHA-256", manifest.content_sha256),
        ("tokenizer", f"{manifest.tokenizer.name} ({manifest.tokenizer.vocab_size} tokens)"),
        ("text encoder", manifest.default_encoder),
        ("widths", _pairs(manifest.widths)),
        ("padded lengths", _pairs(manifest.max_lengths)),
    ]
    for split in SPLITS:
        rows.append((split, f"{manifest.counts[split]} utterances"))
        for name, lengths in manifest.lengths[split].items():
            told = "{min:g} to {max:g}, mean {mean:.1f}".format(**lengths)
            rows.append((f"  {name} steps", told))
        for task, histogram in manifest.label_histogram[split].items():
            rows.append((f"  {task}", " ".join(map(str, histogram))))
        for kind, count in manifest.cleaned.get(split, {}).items():
            rows.append((f"  {kind.replace('_', ' ')}", count))
    return [row for row in rows if row[1] != ""]


def shift_rows(report: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return the rows of a ``split-ood`` report: what, before, after, by chance."""
    rows: list[tuple[object, ...]] = []
    for other in ("test", "valid"):
        for what, chance in (("word_shift", report["chance"][other]), ("label_distance", None)):
            key = f"{what}_train_{other}"
            values = (report["before"][key], report["after"][key], chance)
            told = ("" if value is None else f"{value:.3f}" for value in values)
            rows.append((f"{what.replace('_', ' ')}, train to {other}", *told))
    return rows


def readable_bytes(count: int) -> str:
    """Return a size in the largest binary unit that keeps it above 1."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.1f} {units[0]}"


def _pairs(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
