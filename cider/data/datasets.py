"""Facts about the published corpora, and where their features come from."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from cider.data.schema import StoreKey, corpus_folders
from cider.errors import UsageError
from cider.spec import SPLITS

if TYPE_CHECKING:
    from pathlib import Path

_RESERVED_PREFIX = "synthetic-"
_LENGTHS = ("text", "audio", "vision")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSizes:
    """Sizes of one corpus as published; ``published_sizes.csv`` holds them all."""

    counts: dict[str, int]
    """Utterances per split; empty where none are published."""
    lengths: dict[str, int]
    """Padded lengths of text, audio and vision of the unaligned form."""
    widths: dict[str, int]
    """Feature widths of audio and vision."""

    def differences(
        self,
        alignment: str,
        counts: dict[str, int],
        lengths: dict[str, int],
        widths: dict[str, int],
    ) -> list[str]:
        """Return one phrase per size that differs, naming both numbers.

        Args:
            alignment: in aligned form every length is the text's.
            counts: utterances per split of the corpus at hand.
            lengths: its padded lengths.
            widths: its feature widths.
        """
        aligned = dict.fromkeys(_LENGTHS, self.lengths["text"])
        pairs = (
            ("split {} has {} utterances", counts, self.counts),
            (
                "{} is padded to {} steps",
                lengths,
                aligned if alignment == "aligned" else self.lengths,
            ),
            ("{} has width {}", widths, self.widths),
        )
        return [
            f"{phrase.format(name, found[name])}, published are {expected}"
            for phrase, found, published in pairs
            for name, expected in published.items()
            if found[name] != expected
        ]


@cache
def _table() -> dict[tuple[str, str, str], PublishedSizes]:
    text = files("cider.data").joinpath("published_sizes.csv").read_text(encoding="utf-8")
    table = {}
    for row in csv.DictReader(text.splitlines()):
        table[row["dataset"], row["distribution"], row["task"]] = PublishedSizes(
            counts={split: int(row[split]) for split in SPLITS if row[split]},
            lengths={name: int(row[f"{name}_length"]) for name in _LENGTHS},
            widths={name: int(row[f"{name}_width"]) for name in ("audio", "vision")},
        )
    return table


def published_sizes(key: StoreKey) -> PublishedSizes | None:
    """Return the published sizes of a corpus, None where nothing is published under its name."""
    table = _table()
    exact = table.get((key.dataset, key.distribution, key.task))
    return exact or table.get((key.dataset, key.distribution, "any"))


def refuse_reserved_name(dataset: str) -> None:
    """Raise ``UsageError`` for a name that only generated corpora may have."""
    if dataset.startswith(_RESERVED_PREFIX):
        raise UsageError(
            f"dataset names that begin with {_RESERVED_PREFIX!r} are kept for generated corpora, "
            f"got {dataset!r}; choose another"
        )


def import_command(key: StoreKey) -> str:
    """Return the command that imports a corpus of this name; PATH is the user's."""
    words = ["cider-platform data import PATH --dataset", key.dataset]
    words += ["--alignment", key.alignment] if key.distribution != "cross_dataset" else []
    words += ["--distribution", key.distribution] if key.distribution != "iid" else []
    words += ["--task", key.task] if key.task != "any" else []
    return " ".join(words)


def missing_message(root: Path, key: StoreKey) -> str:
    """Return the sentences that say how to get a corpus that is not stored."""
    corpus = f"{key.dataset} ({key.alignment}, {key.distribution})"
    if key.dataset in ("mosi", "mosei"):
        return (
            f"{corpus} is not in the feature store {root}. CMU-{key.dataset.upper()} features are "
            "the pickles published by the MMSA project (aligned_50.pkl and unaligned_50.pkl; "
            "CIDer's own OOD and cross-dataset files are read too); once downloaded, import them "
            f"with `{import_command(key)}`. "
            f"`--dataset synthetic-{key.dataset}` runs without any download"
        )
    stored = [f"{path.parent.name}/{path.name}" for path in corpus_folders(root)]
    return (
        f"{corpus} is not in the feature store {root}; stored are: "
        f"{', '.join(stored) or 'none'}. Import it with `cider-platform data import` (feature "
        "pickles) or `cider-platform data import-table` (your own corpus)"
    )
