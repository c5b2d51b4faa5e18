"""Tokenise transcripts with the tokenizer of the encoder that will read them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.config import canonical_json
from cider.data.schema import Tokenizer
from cider.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROLES = {"pad": "[PAD]", "unknown": "[UNK]", "start": "[CLS]", "end": "[SEP]", "mask": "[MASK]"}
_ATTRIBUTES = {"pad": "pad", "unknown": "unk", "start": "cls", "end": "sep", "mask": "mask"}
_CONNECT_SECONDS = 10.0
SHORTEST = 3
"""Fewest tokens a text may be cut to: start, one word, end."""


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """A loaded tokenizer, and how a manifest describes it."""

    record: Tokenizer
    encoder: str
    """Hugging Face name or absolute folder: the encoder these ids belong to."""
    _loaded: Any

    def encode(self, texts: Sequence[str], max_length: int) -> tuple[list[np.ndarray], int]:
        """Return the token ids of every text, and how many texts were cut.

        Args:
            texts: transcripts; the tokenizer decides about letter case.
            max_length: most tokens of a text, start and end token included.

        Returns:
            int32 arrays (T,), each beginning with the start and ending with the end token.
        """
        whole = self._loaded(list(texts), verbose=False)["input_ids"]
        long = [row for row, ids in enumerate(whole) if len(ids) > max_length]
        if long:
            cut = self._loaded([texts[row] for row in long], truncation=True, max_length=max_length)
            for row, ids in zip(long, cut["input_ids"], strict=True):
                whole[row] = ids
        return [np.array(ids, np.int32) for ids in whole], len(long)


def load_tokenizer(source: str, max_length: int) -> TextTokenizer:
    """Load the tokenizer of an encoder; the local cache is tried before the network.

    Args:
        source: a Hugging Face model name or a local folder.
        max_length: most tokens of a text that will be asked for.

    Raises:
        StoreError: if it cannot be loaded, or is not BERT-like.
        UsageError: if ``max_length`` is out of range.
    """
    if max_length < SHORTEST:
        raise UsageError(f"the longest text must have at least {SHORTEST} tokens, got {max_length}")
    loaded = _load(source)
    if max_length > loaded.model_max_length:
        raise UsageError(
            f"the longest text of {source} has {loaded.model_max_length} tokens, got {max_length}"
        )
    special = {role: getattr(loaded, f"{name}_token_id") for role, name in _ATTRIBUTES.items()}
    missing = [_ROLES[role] for role, token in special.items() if token is None]
    if missing:
        raise StoreError(
            f"the tokenizer of {source} has no {', '.join(missing)} token: missing words become "
            "[UNK] and counterfactual words [MASK], so a BERT-like encoder is needed"
        )
    ends = loaded("a")["input_ids"]
    if (ends[0], ends[-1]) != (special["start"], special["end"]):
        raise StoreError(
            f"the tokenizer of {source} does not put its start and end token around a text; "
            "use a BERT-like encoder"
        )
    vocabulary = loaded.get_vocab()
    record = Tokenizer(
        name=Path(source).name if Path(source).is_dir() else source,
        vocab_size=max(vocabulary.values()) + 1,
        vocabulary_sha256=_vocabulary_sha256(vocabulary),
        **special,
    )
    encoder = str(Path(source).absolute()) if Path(source).is_dir() else source
    return TextTokenizer(record, encoder, loaded)


def local_vocabulary(source: str, record: Tokenizer) -> dict[int, str]:
    """Return the token of every id of the tokenizer that a corpus was made with; no network.

    Args:
        source: a local folder, or a Hugging Face name that is in the local cache.
        record: what the corpus's manifest says of its tokenizer.

    Raises:
        StoreError: if there is no such tokenizer here, or its vocabulary is another one.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

    try:
        vocabulary = AutoTokenizer.from_pretrained(source, local_files_only=True).get_vocab()
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the tokenizer of {source!r} is not on this machine ({_first_line(error)})"
        ) from error
    # A manifest of an MMSA pickle knows no hash: it only says which vocabulary its ids belong to.
    if record.vocabulary_sha256:
        fits = _vocabulary_sha256(vocabulary) == record.vocabulary_sha256
    else:
        fits = max(vocabulary.values()) + 1 == record.vocab_size
    if not fits:
        raise StoreError(f"the tokenizer of {source!r} has another vocabulary than the corpus")
    return {index: token for token, index in vocabulary.items()}


def _vocabulary_sha256(vocabulary: dict[str, int]) -> str:
    in_order = sorted((index, token) for token, index in vocabulary.items())
    return hashlib.sha256(canonical_json(in_order).encode()).hexdigest()


def _load(source: str) -> Any:  # noqa: ANN401 - transformers has no types
    # Heavy, and only this function needs them.
    from huggingface_hub import model_info  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    # transformers raises OSError for what is absent and ValueError for what it cannot read.
    faults = (OSError, ValueError)
    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=True)
    except faults as error:
        if Path(source).is_dir():
            raise StoreError(
                f"the folder {source} holds no tokenizer that can be read ({_first_line(error)}); "
                "name a folder with tokenizer.json or vocab.txt"
            ) from error
    try:
        # Asked first, because a download without a connection is tried again for most of a minute.
        model_info(source, timeout=_CONNECT_SECONDS)
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:  # Whatever the network library raises; nothing is hidden.
        raise StoreError(
            f"the tokenizer {source!r} is not in the local cache and cannot be downloaded "
            f"({_first_line(error)}); check the name and the connection, or give --encoder the "
            "folder of a downloaded model"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
