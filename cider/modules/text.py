"""The BERT-like text encoder: a Hugging Face model by name or folder, or a small one from scratch.

``transformers`` and ``huggingface_hub`` take seconds to import and are imported by the functions
that build or look up an encoder: a process that only holds one, or none, does not wait for them.

Shapes: B batch, R texts of a group, T text steps, F encoder width.
"""

from __future__ import annotations

import hashlib
import inspect
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from cider.errors import StoreError, UsageError
from cider.modules.dropout import Dropout
from cider.modules.packed_text import can_pack, packed_states
from cider.modules.text_cache import DEFAULT_MIB, TextCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import BoolTensor, Tensor

    from cider.spec import TextEncoderConfig

    Precision = Literal["float32", "bfloat16"]

SCRATCH = "scratch"


class TextEncoder(nn.Module):
    """A transformer that turns token ids into one vector per token.

    Args:
        backbone: a Hugging Face encoder whose output has ``last_hidden_state``.
        fine_tune: False freezes the weights and keeps the encoder in evaluation mode.
        precision: of its products, ``float32`` or ``bfloat16``; weights and states are float32.
        cache_mib: memory in MiB for what a frozen encoder says of texts that come again; 0: none.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        fine_tune: bool,
        precision: Precision = "float32",
        cache_mib: int = DEFAULT_MIB,
    ) -> None:
        super().__init__()
        _cheapen_dropout(backbone)
        self.backbone = backbone
        self.fine_tune = fine_tune
        self.precision = precision
        self.cache = TextCache(cache_mib)
        if not fine_tune:
            self.requires_grad_(False)
            self.eval()  # a new module is in training mode, and would drop out

    @property
    def width(self) -> int:
        """Width F of the vectors."""
        return int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids the encoder knows."""
        return int(self.backbone.config.vocab_size)  # type: ignore[union-attr, arg-type]

    def train(self, mode: bool = True) -> TextEncoder:
        """Set the mode; a frozen encoder stays in evaluation mode, its dropout off."""
        super().train(mode and self.fine_tune)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TextEncoder:
        self.cache.clear()  # they lie on another device now, or have another type
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], *rest: Any) -> None:  # noqa: ANN401 - torch's signature
        self.cache.clear()  # they are another encoder's now
        super()._load_from_state_dict(state_dict, *rest)

    def forward(self, token_ids_BT: Tensor, valid_BT: BoolTensor) -> Tensor:
        """Return (B, T, F); tokens attend to valid tokens only."""
        with self._products(token_ids_BT.device):
            output = self.backbone(input_ids=token_ids_BT, attention_mask=valid_BT.long())
        states_BTF: Tensor = output.last_hidden_state
        return states_BTF.float() if self.precision == "bfloat16" else states_BTF

    def encode(
        self,
        token_ids: Sequence[Tensor],
        valid: Sequence[BoolTensor],
        *,
        padding: bool,
        recurring: bool = False,
    ) -> list[Tensor]:
        """Return (R, T, F) for each of several groups of texts, padded to lengths of their own.

        Args:
            token_ids: (R, T) per group.
            valid: (R, T) per group, True at tokens that are not padding.
            padding: True if somebody reads the states at padding; otherwise they may be zeros.
            recurring: True if these very texts will be read again: what a frozen encoder says of
                them is kept, and not computed again.
        """
        if recurring and not padding and not self.fine_tune and self.cache.limit_mib > 0:
            return self.cache.states(partial(self.encode, padding=False), token_ids, valid)
        if not padding and can_pack(self.backbone):
            with self._products(token_ids[0].device):
                states = packed_states(self.backbone, token_ids, valid)
            return [each.float() for each in states] if self.precision == "bfloat16" else states
        return [self(ids_RT, valid_RT) for ids_RT, valid_RT in zip(token_ids, valid, strict=True)]

    def _products(self, device: torch.device) -> torch.autocast:
        """Return the context in which products have the encoder's precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def _cheapen_dropout(module: nn.Module) -> None:
    """Let an encoder's dropout layers draw as all of this project's do."""
    for name, child in module.named_children():
        if isinstance(child, nn.Dropout):
            setattr(module, name, Dropout(child.p))
        else:
            _cheapen_dropout(child)


def _without_pooler(model_class: Any) -> dict[str, bool]:  # noqa: ANN401 - a transformers class
    """Return the argument that leaves out a pooling layer nothing reads, where the class has it."""
    parameters = inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers from reporting, at every trial, the pooler that is left out on purpose."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def build_from_scratch(
    config: TextEncoderConfig, vocabulary_size: int, max_length: int
) -> nn.Module:
    """Return a randomly initialised BERT; its weights come from torch's global generator."""
    from transformers import BertConfig, BertModel

    bert = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        max_position_embeddings=max_length,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )
    model: nn.Module = BertModel(bert, add_pooling_layer=False)
    return model


def load_pretrained(source: str) -> nn.Module:
    """Return a pre-trained encoder by Hugging Face name or local folder.

    Raises:
        StoreError: if it is neither in the folder, nor cached, nor to be downloaded.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    try:
        with _quiet_transformers():
            config = AutoConfig.from_pretrained(source)
            extra = _without_pooler(MODEL_MAPPING[type(config)])
            model: nn.Module = AutoModel.from_pretrained(source, dtype=torch.float32, **extra)
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise StoreError(
            f"the text encoder {source!r} cannot be loaded ({first_line}); give a Hugging Face "
            "model name that is cached or can be downloaded, a local folder, or 'scratch'"
        ) from error
    return model


def build_text_encoder(
    config: TextEncoderConfig,
    vocabulary_size: int,
    max_length: int,
    *,
    cache_mib: int = DEFAULT_MIB,
) -> TextEncoder:
    """Return the encoder a configuration asks for.

    Args:
        config: a resolved configuration: ``source`` is not empty.
        vocabulary_size: size of the vocabulary the corpus's token ids come from.
        max_length: longest token sequence of the corpus.
        cache_mib: memory in MiB for states of recurring texts, if it is frozen.

    Raises:
        UsageError: if the encoder's vocabulary is smaller than the corpus's.
        StoreError: if a pre-trained encoder cannot be loaded.
    """
    if config.source == SCRATCH:
        model = build_from_scratch(config, vocabulary_size, max_length)
    else:
        model = load_pretrained(config.source)
    encoder = TextEncoder(
        model, fine_tune=config.fine_tune, precision=config.precision, cache_mib=cache_mib
    )
    if encoder.vocabulary_size < vocabulary_size:
        raise UsageError(
            f"the text encoder {config.source!r} knows {encoder.vocabulary_size} tokens, the "
            f"corpus was tokenised with {vocabulary_size}; import it again with this encoder"
        )
    return encoder


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """Where a pre-trained encoder's files lie, and their hash."""

    folder: Path
    sha256: str


def locate_encoder(source: str) -> EncoderFiles:
    """Return the folder and content hash of a pre-trained encoder.

    Args:
        source: a Hugging Face name, looked up in the local cache first, or a local folder.

    Raises:
        StoreError: if the encoder is nowhere to be found.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _cached_folder(source)
    weights = sorted(
        path for pattern in ("*.safetensors", "pytorch_model*.bin") for path in folder.glob(pattern)
    )
    weights = [path for path in weights if path.suffix == ".safetensors"] or weights
    if not weights or not (folder / "config.json").is_file():
        raise StoreError(
            f"the text encoder folder {folder} has no config.json with model.safetensors or "
            "pytorch_model.bin; give a folder written by save_pretrained"
        )
    digest = hashlib.sha256()
    for path in [folder / "config.json", *weights]:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return EncoderFiles(folder, digest.hexdigest())


def _cached_folder(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors", "vocab*"]))
    except (OSError, LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise StoreError(
            f"the text encoder {source!r} is neither a folder nor in the Hugging Face cache, "
            "and cannot be downloaded here; download it where there is a network and give its "
            "folder by --encoder, or use --encoder scratch"
        ) from error
