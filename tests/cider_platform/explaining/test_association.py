"""Word-label association of corpora: numbers of the measure, and more shift where it is OOD."""

from __future__ import annotations

import json

import matplotlib as mpl
import numpy as np
import pytest
from figure_words import outside, overlapping

from cider.data.word_shift import MIN_COUNT
from cider.errors import NothingMatchedError
from cider_platform.explaining.association import associations
from cider_platform.explaining.draw_words import draw_words
from cider_platform.explaining.opened import OpenedRun
from cider_platform.figure_files import STYLE


@pytest.fixture(scope="module")
def found(shifted):
    runs = [OpenedRun(folder, shifted.runtime) for folder in (shifted.iid, shifted.ood)]
    return runs, associations([*runs, runs[0]])


def test_shares_of_a_word_are_those_counted_by_hand(found):
    (_, ood), (_, made) = found
    assert made.corpus == "synthetic-mosi-x0.1/aligned-ood"
    for split, shares_W in (("train", made.train_W), ("test", made.test_W)):
        ids = [ood.store.split(split).token_ids(row) for row in range(len(ood.source(split)))]
        labels = ood.polarity(split)
        for word, share in zip(made.token_W, shares_W, strict=True):
            polar = [label for row, label in zip(ids, labels, strict=True) if word in row if label]
            assert len(polar) >= MIN_COUNT
            assert share == pytest.approx(np.mean([label > 0 for label in polar]))
    assert made.shift == pytest.approx(np.abs(made.train_W - made.test_W).mean())


def test_ood_shifts_more_than_iid_and_than_chance(found):
    _, (iid, ood) = found
    assert ood.shift > 1.5 * iid.shift
    assert ood.shift > 1.5 * ood.chance
    assert iid.shift == iid.common_shift
    assert ood.common_shift <= ood.shift * len(ood.token_W) / len(iid.token_W) + 1e-9
    assert ood.synthetic
    bias = set(found[0][1].run.statistics.bias_words.ids.tolist())
    assert {int(each) for each in ood.token_W[ood.is_bias_W]} <= bias


def test_same_corpus_is_shown_once(found):
    assert len(found[1]) == 2


def test_corpus_without_frequent_words_is_refused(opened):
    with pytest.raises(NothingMatchedError, match="tiny/aligned-iid is too small to show"):
        associations([opened])


def test_words_of_the_figure_are_inside_it_and_do_not_run_into_each_other(found):
    with mpl.rc_context(STYLE):
        for shown in (found[1], found[1][:1]):
            figure = draw_words(shown, ["words and labels, training against test [synthetic]"])
            assert outside(figure) == []
            assert overlapping(figure) == []


def test_command_prints_the_shifts_and_json_every_word(shifted, run_cli, tmp_path, found):
    call = ("draw", "words", shifted.iid.run_id, shifted.ood.run_id, *shifted.roots,
            "--out", tmp_path)  # fmt: skip
    code, out, err = run_cli(*call)
    assert code == 0
    assert "shift to test" in out
    assert "words of the synthetic vocabulary" in err
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".svg"}
    code, out, _ = run_cli(*call, "--json")
    data = json.loads(out)["data"]
    words = data["found"][1]["words"]
    assert (code, data["marks"], len(words)) == (0, ["synthetic"], len(found[1][1].token_W))
    apart = [abs(word["positive_train"] - word["positive_test"]) for word in words]
    assert apart == sorted(apart, reverse=True)
    assert not any(word["token"].isdigit() for word in words)
