import pickle

import numpy as np
import pytest

from cider.data.import_plan import ImportFile
from cider.data.ingest import import_pickle
from cider.data.schema import StoreKey, Tokenizer
from cider.data.writer import StoreWriter

TOKENIZER = Tokenizer(name="tiny", vocab_size=400)
MAX_LENGTHS = {"text": 9, "audio": 12, "vision": 15}
WIDTHS = {"audio": 3, "vision": 4}
COUNTS = {"train": 20, "valid": 6, "test": 7}


def make_rows(split, count, seed=0):
    """Return the arguments of ``StoreWriter.add`` for one split."""
    rng = np.random.default_rng([seed, len(split)])

    def frames(modality):
        longest = MAX_LENGTHS[modality]
        return [
            rng.normal(size=(int(rng.integers(1, longest + 1)), WIDTHS[modality])).astype(
                np.float32
            )
            for _ in range(count)
        ]

    tokens = [
        np.array([101, *rng.integers(104, 400, int(rng.integers(0, 8))), 102], np.int32)
        for _ in range(count)
    ]
    labels = rng.integers(-15, 16, count).astype(np.float32) / 5
    return {
        "ids": [f"{split}_{row}" for row in range(count)],
        "texts": [f"words of row {row}" for row in range(count)],
        "token_ids": tokens,
        "audio": frames("audio"),
        "vision": frames("vision"),
        "labels": labels,
        "source_classes": np.sign(labels).astype(np.int64) + 1,
        "annotations": ["Neutral"] * count,
    }


def write_tiny(root, *, dataset="tiny", pieces=1, overwrite=False, seed=0, **options):
    """Write the tiny corpus in a number of pieces per split; return its manifest."""
    key = StoreKey(dataset=dataset, alignment="unaligned", distribution="iid")
    arguments = {
        "tokenizer": TOKENIZER,
        "widths": WIDTHS,
        "max_lengths": MAX_LENGTHS,
        "source": {"file": "tiny.pkl", "format": "mmsa", "sha256": "0" * 64, "bytes": 1},
        "default_encoder": "scratch",
        "overwrite": overwrite,
        **options,
    }
    with StoreWriter(root, key, **arguments) as writer:
        for split, count in COUNTS.items():
            rows = make_rows(split, count, seed)
            for part in np.array_split(np.arange(count), pieces):
                writer.add(
                    split,
                    **{
                        name: column[part[0] : part[-1] + 1] if len(part) else column[:0]
                        for name, column in rows.items()
                    },
                )
        return writer.finish()


@pytest.fixture
def tiny_rows():
    """Function of (split, count) that returns the arguments of ``StoreWriter.add``."""
    return make_rows


@pytest.fixture
def write_store():
    """Function of (root, **options) that writes the tiny corpus and returns its manifest."""
    return write_tiny


@pytest.fixture
def tiny_store(tmp_path):
    """Folder of a stored corpus of 20, 6 and 7 utterances."""
    return write_tiny(tmp_path / "store").key.folder(tmp_path / "store")


MMSA_COUNTS = {"train": 12, "valid": 5, "test": 6}


def make_mmsa_split(count, *, start, aligned, steps, widths, seed):
    """Return one split in the MMSA format, its padding zero."""
    rng = np.random.default_rng([seed, start])
    text_steps, audio_steps, vision_steps = steps
    text_bert = np.zeros((count, 3, text_steps), np.float32)
    text_lengths = rng.integers(4, text_steps + 1, count)
    frames = {
        "audio": np.zeros((count, audio_steps, widths[0]), np.float32),
        "vision": np.zeros((count, vision_steps, widths[1]), np.float32),
    }
    lengths = {"audio": [], "vision": []}
    for row, length in enumerate(text_lengths):
        text_bert[row, 0, :length] = [101, *rng.integers(104, 900, length - 2), 102]
        text_bert[row, 1, :length] = 1
        for name, array in frames.items():
            size = int(length) if aligned else int(rng.integers(2, array.shape[1] + 1))
            array[row, :size] = rng.normal(size=(size, array.shape[2]))
            lengths[name].append(size)
    labels = (rng.integers(-15, 16, count) / 5).astype(np.float32)
    signs = np.sign(labels).astype(np.int64) + 1
    return {
        "raw_text": np.array([f"text {start + row}" for row in range(count)], object),
        "audio": frames["audio"],
        "vision": frames["vision"],
        "id": [f"video{(start + row) // 4}$_${start + row}" for row in range(count)],
        "text": rng.normal(size=(count, text_steps, 4)).astype(np.float32),
        "text_bert": text_bert,
        "annotations": [("Negative", "Neutral", "Positive")[sign] for sign in signs],
        "classification_labels": signs,
        "regression_labels": labels,
        "audio_lengths": lengths["audio"],
        "vision_lengths": lengths["vision"],
    }


@pytest.fixture
def make_mmsa():
    """Function that returns a corpus in the MMSA format: 12, 5 and 6 utterances."""

    def make(*, aligned=False, steps=None, widths=(3, 4), seed=0):
        steps = steps or ((10, 10, 10) if aligned else (10, 12, 15))
        content, start = {}, 0
        for split, count in MMSA_COUNTS.items():
            content[split] = make_mmsa_split(
                count, start=start, aligned=aligned, steps=steps, widths=widths, seed=seed
            )
            start += count
        return content

    return make


@pytest.fixture
def save_pickle():
    """Function of (path, content) that writes a pickle and returns its path."""

    def save(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content, protocol=4))
        return path

    return save


@pytest.fixture
def golden_pickles(request):
    """Folder of the two recorded MMSA pickles."""
    return request.config.getoption("golden_dir") / "pickles"


@pytest.fixture
def run_import(tmp_path, save_pickle):
    """Function of (content, **options) that saves a corpus and imports it."""

    def run(content, *, name="corpus.pkl", dataset="mine", distribution="iid", **options):
        path = save_pickle(tmp_path / "source" / name, content)
        file = ImportFile(path=path, **{"alignment": "unaligned", **options})
        return import_pickle(
            tmp_path / "store", file, dataset=dataset, distribution=distribution, overwrite=True
        )

    return run
