"""What a run computes: one frozen tree of typed fields, its canonical JSON and its run id.

Everything here changes numbers and bears identity. Where and how a run executes (device, threads,
folders, checkpoint interval) is not part of it. This module imports neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

from cider.config import canonical_json, check_positive, check_range, from_dict, to_dict
from cider.errors import UsageError
from cider.modality import KEPT_SETS
from cider.models import config_class
from cider.models.cider.config import Config as CiderConfig

SCHEMA = 1
"""Version of the identity hash: raised when the meaning of a field changes."""

Alignment = Literal["unaligned", "aligned"]
Distribution = Literal["iid", "ood", "cross_dataset"]
FrameDtype = Literal["float32", "float16"]
Task = Literal["three_class", "seven_class"]
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
NUM_CLASSES: dict[str, int] = {"three_class": 3, "seven_class": 7}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which corpus, in which form."""

    dataset: str = "synthetic-mosei"
    """Name the corpus has in the feature store: mosi, mosei, synthetic-mosi, your own, ..."""
    alignment: Alignment = "unaligned"
    """``aligned``: audio and vision have one frame per text token."""
    distribution: Distribution = "iid"
    """``ood``: word-label association differs between train and test."""
    task: Task = "three_class"
    """``three_class``: sign of the label; ``seven_class``: round(clip(label, -3, 3)) + 3."""
    content_sha256: str = ""
    """Hash of the stored corpus; filled in when the run is resolved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderConfig:
    """The BERT-like text encoder."""

    source: str = ""
    """``scratch``, a Hugging Face model name or a local folder; empty: the corpus's own encoder."""
    weights_sha256: str = ""
    """Hash of the pre-trained weights and configuration; filled in when the run is resolved."""
    fine_tune: bool = True
    """False freezes the encoder. Published: fine-tuned."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the encoder's products are computed in; its weights, their updates and the rest of the
    model stay float32. ``bfloat16`` has 8 bits of precision and needs a processor or GPU with
    instructions for it to be faster. Published: float32."""
    layers: int = 2
    """``scratch`` only: encoder layers."""
    width: int = 64
    """``scratch`` only: hidden width."""
    heads: int = 2
    """``scratch`` only: attention heads; must divide ``width``."""
    dropout: float = 0.1
    """``scratch`` only: hidden and attention dropout. Pre-trained encoders keep their own."""

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads"):
            check_positive(f"text_encoder.{name}", getattr(self, name))
        check_range("text_encoder.dropout", self.dropout, 0.0, 0.95)
        if self.width % self.heads:
            raise UsageError(
                f"text_encoder.heads must divide text_encoder.width, "
                f"got {self.heads} heads of width {self.width}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaciConfig:
    """Model-agnostic causal inference (section III-C) on any model's joint representation."""

    mcm: bool = True
    """Backdoor adjustment by the Multimodal Causal Module (Eq. 20-24); False: one linear layer."""
    counterfactual: bool = True
    """Subtract the counterfactual text's prediction (Eq. 25-27); False: tau is 0."""
    layer_norm: Literal["auto", "on", "off"] = "auto"
    """LayerNorm in the audio and vision class encoders; ``auto``: for cross-dataset data alone, as
    published."""
    counterfactual_space: Literal["log_probability", "probability"] = "log_probability"
    """What Eq. 25 subtracts. Released: log-probabilities; the paper writes probabilities."""
    bias_words: int = 100
    """How many of the most frequent words can be bias words. Published: 100."""
    bias_threshold: float = 0.1
    """Smallest coefficient of variation over classes of a bias word. Published: 0.1."""
    bias_classes: Literal["polar", "all"] = "polar"
    """Three-class word counts: negative and positive (released), or neutral too (the paper)."""

    def __post_init__(self) -> None:
        check_range("maci.bias_words", self.bias_words, 0, 1_000_000)
        check_range("maci.bias_threshold", self.bias_threshold, 0.0, 100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingConfig:
    """How the incomplete view loses data, in training and in the validation that selects."""

    protocol: str = "rmfm"
    """none, rmfm, rmfm_per_modality, rmm, tmfm, stmfm or smm. Published: rmfm."""
    kept: str = ""
    """smm only: the modalities that stay (L, A, V, LA, LV or AV)."""
    train_rate: Literal["per_sample", "per_position"] = "per_sample"
    """Rate from [0, 1) per sample (the paper); released: per position, in effect Bernoulli(0.5)."""
    mask_source: Literal["seeded", "released"] = "seeded"
    """Evaluation masks: a generator per (seed, epoch, sample), or the legacy NumPy draw order."""

    def __post_init__(self) -> None:
        if self.protocol == "smm" and self.kept not in KEPT_SETS:
            raise UsageError(
                f"missing.kept must be one of {', '.join(KEPT_SETS)} for smm, got {self.kept!r}"
            )
        if self.protocol != "smm" and self.kept:
            raise UsageError(
                f"missing.kept is only for protocol smm, got {self.kept!r} with {self.protocol}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights of the distillation terms (Eq. 30); 0 removes a term (Table V)."""

    reconstruction: float = 0.5
    """alpha, feature distillation (Eq. 17). Searched over 0-1 (Table II)."""
    attention: float = 0.5
    """beta, attention distillation (Eq. 18). Searched over 0-1 (Table II)."""
    joint: float = 0.5
    """gamma, joint representation distillation (Eq. 19). Searched over 0-1 (Table II)."""

    def __post_init__(self) -> None:
        for name in ("reconstruction", "attention", "joint"):
            check_range(f"loss.{name}", getattr(self, name), 0.0, 1000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """Adam and its parameter groups."""

    lr: float = 1e-3
    """Learning rate of everything but the text encoder. Published: 1e-3."""
    text_lr: float = 5e-5
    """Learning rate of a pre-trained text encoder. Published: 5e-5. ``scratch`` uses ``lr``."""
    text_weight_decay: float = 1e-3
    """Weight decay of the text encoder except biases and LayerNorm. Published: 1e-3."""
    weight_decay: float = 0.0
    """Weight decay of everything else. Published: 0."""
    decoupled_weight_decay: bool = False
    """True: AdamW. Released: False, L2 decay through Adam's gradient."""

    def __post_init__(self) -> None:
        check_positive("optimizer.lr", self.lr)
        check_positive("optimizer.text_lr", self.text_lr)
        check_range("optimizer.text_weight_decay", self.text_weight_decay, 0.0, 10.0)
        check_range("optimizer.weight_decay", self.weight_decay, 0.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The epoch loop."""

    epochs: int = 200
    """Most epochs. Published: 200."""
    patience: int = 10
    """Epochs without a better validation score before training stops. Published: 10."""
    batch_size: int = 128
    """Utterances per batch. Published: 128."""
    batching: Literal["random", "bucketed"] = "random"
    """``bucketed``: utterances of similar text length share a batch, which pads less; the order is
    still random. Published: random."""
    gradient_clip: float = 0.0
    """Largest gradient norm; 0 does not clip. Published: no clipping."""
    clear_gradients: bool = True
    """Clear gradients between the two steps. Released: False, step 2 adds to step 1's gradient."""
    padding: Literal["groups", "batch", "full"] = "groups"
    """Cut batches into groups of similar text length, each padded to its own longest; or pad to the
    longest of the batch, or (released) of the corpus. Where padding is masked the three differ by
    rounding and by the draws of dropout alone; ``groups`` does the least work."""

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            check_positive(f"training.{name}", getattr(self, name))
        check_range("training.gradient_clip", self.gradient_clip, 0.0, 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """How the epoch and tau are chosen."""

    rule: Literal["validation", "published"] = "validation"
    """``published`` chooses on the test split, as the authors do, and marks every artefact."""
    metric: Literal["auto", "acc2", "f1", "acc3", "acc7"] = "auto"
    """Metric to maximise; ``auto``: acc2 for three classes, acc7 for seven (published)."""
    rates: tuple[float, ...] = (0.0, 0.5)
    """Missing rates of the validation passes; the score is their mean. Published: 0.0 alone."""

    def __post_init__(self) -> None:
        if not self.rates:
            raise UsageError("selection.rates must name at least one missing rate, got none")
        for rate in self.rates:
            check_range("selection.rates", rate, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything that decides a run's numbers."""

    data: DataConfig = field(default_factory=DataConfig)
    model: Any = field(default_factory=CiderConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    maci: MaciConfig = field(default_factory=MaciConfig)
    missing: MissingConfig = field(default_factory=MissingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    seed: int = 1111
    """Seeds weights, batch order, dropout and masks. Published: 1111."""

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**32 - 1)
        if self.missing.protocol in ("tmfm", "stmfm") and self.data.alignment != "aligned":
            raise UsageError(
                f"missing.protocol {self.missing.protocol} drops shared time steps and needs "
                f"aligned data, got {self.data.alignment}; add --alignment aligned"
            )
        if self.selection.metric == "acc7" and self.data.task == "three_class":
            raise UsageError("selection.metric acc7 needs the task seven_class, got three_class")
        if self.selection.metric in ("acc2", "f1", "acc3") and self.data.task == "seven_class":
            raise UsageError(
                f"selection.metric {self.selection.metric} needs the task three_class, "
                "got seven_class"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes of the task: 3 or 7."""
        return NUM_CLASSES[self.data.task]

    @property
    def class_encoder_layer_norm(self) -> bool:
        """True where MACI's audio and vision class encoders normalise."""
        if self.maci.layer_norm == "auto":
            return self.data.distribution == "cross_dataset"
        return self.maci.layer_norm == "on"

    @property
    def selection_metric(self) -> str:
        """Name of the metric that chooses epoch, tau and configuration."""
        if self.selection.metric != "auto":
            return self.selection.metric
        return "acc2" if self.data.task == "three_class" else "acc7"

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON values; ``RunSpec.from_dict`` reads it back."""
        values = to_dict(self)
        values["model"] = {"name": self.model.name, **values["model"]}
        return {"schema": SCHEMA, **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunSpec:
        """Read a spec written by ``to_dict``, or a part of one: what is absent has its default.

        Raises:
            UsageError: for another schema, an unknown field or model, or a value that does not fit.
        """
        values = dict(values)
        schema = values.pop("schema", SCHEMA)
        if schema != SCHEMA:
            raise UsageError(f"spec schema must be {SCHEMA}, got {schema!r}")
        model_values = dict(values.pop("model", {}))
        model_class = config_class(str(model_values.pop("name", CiderConfig.name)))
        model = from_dict(model_class, model_values, "model")
        spec = from_dict(_RunSpecWithoutModel, values)
        return cls(model=model, **{name: getattr(spec, name) for name in _PARTS})

    @property
    def run_id(self) -> str:
        """16 hexadecimal digits that name this spec's results.

        The name of a text encoder does not count where its weights' hash is known, nor do fields of
        the ``scratch`` encoder when another one is used.
        """
        values = self.to_dict()
        values["model"]["version"] = self.model.version
        encoder = values["text_encoder"]
        if encoder["source"] != "scratch":
            for name in ("layers", "width", "heads", "dropout"):
                del encoder[name]
            if encoder["weights_sha256"]:
                del encoder["source"]
        return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:16]


_PARTS = (
    "data", "text_encoder", "maci", "missing", "loss", "optimizer", "training", "selection", "seed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunSpecWithoutModel:
    """The parts of a ``RunSpec`` whose types are fixed; the model's class depends on its name."""

    data: DataConfig = field(default_factory=DataConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    maci: MaciConfig = field(default_factory=MaciConfig)
    missing: MissingConfig = field(default_factory=MissingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    seed: int = 1111
