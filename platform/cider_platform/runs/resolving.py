"""Fill in what a spec's identity depends on: the corpus's content, the text encoder's weights.

torch is imported only for a pre-trained encoder, so that asking for what is done already is quick.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cider.data.store import FeatureStore, find_store
from cider.data.synthetic import ensure, is_synthetic
from cider.errors import UsageError

if TYPE_CHECKING:
    from cider.spec import RunSpec, TextEncoderConfig

SCRATCH = "scratch"
"""The encoder that has no weights to find: ``cider.modules.text.SCRATCH``."""


def open_corpus(spec: RunSpec, store: Path) -> FeatureStore:
    """Return the corpus a spec names; a synthetic one is generated on first use.

    Args:
        spec: the run's spec, resolved or not.
        store: root of the feature stores.

    Raises:
        StoreError: if it is not in the store.
        UsageError: if it is not the content the spec was resolved with.
    """
    data = spec.data
    if is_synthetic(data.dataset):
        folder = ensure(store, data.dataset, data.alignment, data.distribution)
    else:
        folder = find_store(store, data.dataset, data.alignment, data.distribution, data.task)
    corpus = FeatureStore.open(folder)
    found = corpus.manifest.content_sha256
    if data.content_sha256 and data.content_sha256 != found:
        raise UsageError(
            f"the corpus in {folder} has changed since this run was specified: its content hash "
            f"is {found[:12]}, the run's is {data.content_sha256[:12]}; import the former corpus "
            "again, or start a new run"
        )
    return corpus


def resolve_spec(spec: RunSpec, store: Path) -> RunSpec:
    """Return the spec with everything filled in that its identity depends on.

    The content hash of the corpus, the text encoder (the corpus's own unless one is named) and the
    hash of its pre-trained weights.

    Raises:
        StoreError: if the corpus or the encoder cannot be found.
    """
    manifest = open_corpus(spec, store).manifest
    encoder = _found(spec.text_encoder, spec.text_encoder.source or manifest.default_encoder)
    data = replace(spec.data, content_sha256=manifest.content_sha256)
    return replace(spec, data=data, text_encoder=encoder)


def _found(encoder: TextEncoderConfig, source: str) -> TextEncoderConfig:
    if source == SCRATCH:
        return replace(encoder, source=source, weights_sha256="")
    from cider.modules.text import locate_encoder  # noqa: PLC0415 - brings torch

    weights = locate_encoder(source).sha256
    if Path(source).is_dir():
        # A worker has another working folder; the path is not part of the run's identity.
        source = str(Path(source).resolve())
    return replace(encoder, source=source, weights_sha256=weights)
