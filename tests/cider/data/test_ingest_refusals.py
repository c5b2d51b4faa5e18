"""What a feature pickle must be: every fault is one sentence, and nothing is stored."""

import numpy as np
import pytest

from cider.errors import StoreError


def break_key(key, value):
    def change(content):
        content["valid"][key] = value

    return change


def drop_key(key):
    def change(content):
        del content["valid"][key]

    return change


def set_cell(key, place, value):
    def change(content):
        content["valid"][key][place] = value

    return change


def rename_ids(content):
    content["valid"]["id"][1] = content["valid"]["id"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("valid"), "lacks the split valid; it has test, train"),
        (lambda c: c.update(dev=c["valid"]), "has both valid and dev"),
        (lambda c: c.update(test=[1, 2]), "split test must be a dictionary, got list"),
        (drop_key("text_bert"), "text as BERT vectors .* without token ids"),
        (drop_key("audio"), "corpus.pkl, split valid lacks audio; it has"),
        (
            break_key("audio", [np.zeros((3, 3)), np.zeros((4, 3))]),
            "audio must be numbers",
        ),
        (break_key("audio", np.zeros((5, 12), np.float32)), r"got float32 of shape \(5, 12\)"),
        (break_key("audio", np.zeros((5, 12, 3), object)), "got object of shape"),
        (
            break_key("audio", np.zeros((4, 12, 3), np.float32)),
            "got .*4 audio",
        ),
        (break_key("audio", np.zeros((5, 0, 3), np.float32)), "at least one step and one feature"),
        (break_key("audio", np.zeros((5, 12, 7), np.float32)), "one feature width in every split"),
        (break_key("vision", np.zeros((0, 15, 4), np.float32)), "vision is empty"),
        (break_key("raw_text", ["a", "b", 3, "d", "e"]), "raw_text, row 2 must be text, got 3"),
        (break_key("id", "abcde"), "id must be a list of texts, got str"),
        (rename_ids, r"id 'video3\$_\$12' occurs 2 times"),
        (break_key("audio_lengths", [1, 2, 3, 4, 13]), r"in \[0, 12\] .*row 4 has 13"),
        (break_key("audio_lengths", [1, 2, 3, 4, -1]), "row 4 has -1"),
        (break_key("audio_lengths", [1, 2, 3, 4, 2.5]), "row 4 has 2.5"),
        (break_key("audio_lengths", [1, 2]), "one row per utterance, got .*2 audio_lengths"),
        (
            set_cell("regression_labels", 3, 3.2),
            r"in \[-3, 3\]; 1 of 5 are not, first row 3: 3.2",
        ),
        (set_cell("regression_labels", 3, np.nan), "first row 3: nan"),
        (break_key("regression_labels", np.zeros((5, 1))), "must be numbers of shape"),
        (break_key("classification_labels", [0, 1, 2, 0.5, 1]), "small whole numbers; row 3"),
        (set_cell("text_bert", (2, 0, 1), 104.5), "whole numbers .* first row 2"),
        (set_cell("text_bert", (2, 0, 1), -1), "whole numbers"),
        (set_cell("text_bert", (2, 0, 1), 30522), r"in \[0, 30521\]"),
        (set_cell("text_bert", (2, 0, 1), np.nan), "whole numbers"),
        (set_cell("text_bert", (2, 0, 1), 0), "the mask must be 1 exactly where"),
        (set_cell("text_bert", (2, 1, 1), 0), "the mask must be ones, then zeros"),
        (set_cell("text_bert", (2, 1, 1), 7), "the mask must be ones, then zeros"),
        (set_cell("text_bert", 2, 0), "at least its start and end token"),
        (
            break_key("text_bert", np.zeros((5, 2, 10), np.float32)),
            r"\(utterances, 3, steps\)",
        ),
    ],
)
def test_import_of_a_broken_corpus_is_one_sentence_and_stores_nothing(
    tmp_path, make_mmsa, run_import, change, message
):
    content = make_mmsa()
    change(content)
    with pytest.raises(StoreError, match=message):
        run_import(content)
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").rglob("*.arrow"))


@pytest.mark.parametrize("content", [[1, 2], {}, {"train": {}}, "text", {1: 2}])
def test_import_of_something_else_says_which_splits_are_needed(run_import, content):
    with pytest.raises(StoreError, match="valid"):
        run_import(content)
