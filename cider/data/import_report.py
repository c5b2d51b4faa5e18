"""What an import tells its user: notes on repairs, warnings on sizes, labels and ids."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cider.data.datasets import published_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cider.data.schema import Manifest

_PHRASES = {
    "frames_repaired": "{} frames with values that are not finite, which became 0",
    "frames_beyond_length": "{} frames beyond their utterance's length that were not 0, not stored",
    "utterances_without_frames": "utterances with no {} frame, which got one zero frame",
    "without_start_or_end_token": "{}s that do not begin with [CLS] or end with [SEP]",
    "segments_dropped": "{}s with segment ids that are not 0, not stored",
    "truncated": "{}s longer than the longest allowed, which were cut",
}


@dataclass(frozen=True, slots=True)
class ImportResult:
    """A stored corpus, and what a user should know about how it came about."""

    manifest: Manifest
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def shared_id_warnings(ids: Iterable[list[str]]) -> list[str]:
    """Return a warning if ids of one split occur in another."""
    seen: Counter[str] = Counter()
    for names in ids:
        seen.update(names)
    shared = [name for name, count in seen.items() if count > 1]
    if not shared:
        return []
    return [f"{len(shared)} ids occur in more than one split, for example {shared[0]!r}"]


def cleaning_notes(manifest: Manifest) -> list[str]:
    """Return one sentence per split and kind of repair the manifest counts."""
    notes = []
    for split, counts in manifest.cleaned.items():
        for kind, count in counts.items():
            name, _, rest = kind.partition("_")
            if rest in _PHRASES:
                notes.append(f"{split}: {_PHRASES[rest].format(name)}: {count}")
    return notes


def size_warnings(manifest: Manifest) -> list[str]:
    """Return a warning per label rule broken and per size that is not the published one."""
    warnings = []
    for split, counts in manifest.cleaned.items():
        differ = counts.get("class_differs_from_sign")
        if differ:
            warnings.append(
                f"{split}: the class label differs from the sign of the regression label in "
                f"{differ} of {manifest.counts[split]} utterances; the sign is used"
            )
    published = published_sizes(manifest.key)
    if published is not None:
        warnings += published.differences(
            manifest.alignment, manifest.counts, manifest.max_lengths, manifest.widths
        )
    if manifest.distribution == "cross_dataset" and "test_from" not in manifest.source:
        warnings.append(
            "the test split is this corpus's own; the published cross-dataset test is the other "
            "corpus's test split: name its file with --test-from"
        )
    return warnings
