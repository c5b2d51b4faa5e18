"""A tiny stored corpus for tests: 24, 12 and 12 utterances whose words tell the class."""

import numpy as np

from cider.data.schema import StoreKey, Tokenizer
from cider.data.writer import StoreWriter

COUNTS = {"train": 24, "valid": 12, "test": 12}
WIDTHS = {"audio": 5, "vision": 7}
MAX_LENGTHS = {"text": 8, "audio": 12, "vision": 15}
VOCABULARY = 140


def write_tiny_corpus(
    root, dataset="tiny", alignment="unaligned", distribution="iid", seed=0, *, synthetic=True
):
    """Write the corpus below ``root`` and return its folder."""
    key = StoreKey(dataset=dataset, alignment=alignment, distribution=distribution)
    max_lengths = MAX_LENGTHS if alignment == "unaligned" else dict.fromkeys(MAX_LENGTHS, 8)
    rng = np.random.default_rng([seed, len(alignment)])
    with StoreWriter(
        root,
        key,
        tokenizer=Tokenizer(name="synthetic", vocab_size=VOCABULARY),
        widths=WIDTHS,
        max_lengths=max_lengths,
        source={"file": "none", "format": "test", "sha256": "", "bytes": 0},
        default_encoder="scratch",
        synthetic=synthetic,
    ) as writer:
        for split, count in COUNTS.items():
            writer.add(split, **utterances(split, count, alignment, max_lengths, rng))
        writer.finish()
    return key.folder(root)


def utterances(split, count, alignment, max_lengths, rng):
    """Return the arguments of ``StoreWriter.add`` for one split."""
    labels = rng.permutation(np.resize(np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]), count))
    text_lengths = rng.integers(3, max_lengths["text"] + 1, count)
    audio_lengths = rng.integers(1, max_lengths["audio"] + 1, count)
    vision_lengths = rng.integers(1, max_lengths["vision"] + 1, count)
    if alignment == "aligned":
        audio_lengths = vision_lengths = text_lengths
    token_ids, audio, vision = [], [], []
    for label, text, heard, seen in zip(
        labels, text_lengths, audio_lengths, vision_lengths, strict=True
    ):
        words = rng.integers(104, 130, text - 2)
        words[0] = 133 + int(np.sign(label))
        token_ids.append(np.array([101, *words, 102], dtype=np.int32))
        audio.append((rng.normal(size=(heard, 5)) + np.sign(label)).astype(np.float32))
        vision.append((rng.normal(size=(seen, 7)) + np.sign(label)).astype(np.float32))
    return {
        "ids": [f"{split}${number}" for number in range(count)],
        "texts": [" ".join(map(str, ids[1:-1])) for ids in token_ids],
        "token_ids": token_ids,
        "audio": audio,
        "vision": vision,
        "labels": labels.astype(np.float32),
        "source_classes": None,
        "annotations": None,
    }
