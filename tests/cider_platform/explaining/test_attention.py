"""Attention that is shown adds up, belongs to the utterance, and is refused where there is none."""

from __future__ import annotations

import json

import matplotlib as mpl
import numpy as np
import pytest
from figure_words import outside, overlapping

from cider.condition import Condition
from cider.errors import CiderError, UsageError
from cider.modality import SUBSETS, Modality
from cider_platform.explaining.attention import Choice, attention_of, mean_shares
from cider_platform.explaining.draw_attention import draw_frames, draw_maps, draw_shares
from cider_platform.explaining.opened import COMPLETE, OpenedRun
from cider_platform.figure_files import STYLE

HALF = Condition("rmfm", 0.5)
LAST = Choice(0, 0)


def test_maps_are_of_the_utterances_steps_and_agree_with_the_shares(opened):
    (sample,) = opened.find(["test$4"])
    made = attention_of(opened, sample, HALF, LAST)
    lengths = [int(lengths_N[sample.row]) for lengths_N in opened.store.split("test").lengths]
    assert [each.subset for each in made.maps] == list(SUBSETS)
    assert len(made.words) == lengths[0]
    for each, shares_MM in zip(made.maps, made.shares.shares_GMM, strict=True):
        own = [lengths[list(Modality).index(modality)] for modality in each.subset]
        assert each.steps == tuple(own)
        assert each.weights_QS.shape == (sum(own), sum(own))
        np.testing.assert_allclose(each.weights_QS.sum(axis=1), 1, rtol=1e-5)
        assert each.relative().mean() == pytest.approx(1, rel=1e-5)
        ends = np.cumsum([0, *own])
        for row, query in enumerate(each.subset):
            for column, key in enumerate(each.subset):
                block = each.weights_QS[ends[row] : ends[row + 1], ends[column] : ends[column + 1]]
                share = shares_MM[list(Modality).index(query), list(Modality).index(key)]
                assert block.sum(axis=1).mean() == pytest.approx(share, rel=1e-5)
    assert np.isnan(made.shares.shares_GMM[4]).sum() == 8  # L alone: one cell


def test_heads_and_layers_can_be_chosen_and_heads_have_the_mean_shown(opened):
    (sample,) = opened.find(["valid$2"])
    whole = attention_of(opened, sample, COMPLETE, LAST)
    heads = [attention_of(opened, sample, COMPLETE, Choice(2, head)) for head in (1, 2)]
    assert (whole.layer, heads[0].head) == (2, 1)
    for number, each in enumerate(whole.maps):
        mean = (heads[0].maps[number].weights_QS + heads[1].maps[number].weights_QS) / 2
        np.testing.assert_allclose(each.weights_QS, mean, rtol=1e-5)
    first = attention_of(opened, sample, COMPLETE, Choice(1, 0))
    assert not np.allclose(first.maps[0].weights_QS, whole.maps[0].weights_QS, atol=1e-4)
    with pytest.raises(UsageError, match="--layer must be 1 to 2 for this run, got 3"):
        attention_of(opened, sample, COMPLETE, Choice(3, 0))
    with pytest.raises(UsageError, match="--head must be 1 to 2 for this run, got 5"):
        attention_of(opened, sample, COMPLETE, Choice(0, 5))


def test_mean_of_a_split_is_the_mean_over_its_utterances(opened):
    told = []
    found = mean_shares(opened, "valid", HALF, LAST, lambda *done: told.append(done))
    samples = opened.find(opened.store.split("valid").ids)
    each = [attention_of(opened, sample, HALF, LAST).shares.shares_GMM for sample in samples]
    np.testing.assert_allclose(found.shares_GMM, np.mean(each, axis=0), rtol=1e-5)
    assert found.utterances == 12
    assert told[-1] == (12, 12)


def test_frames_of_their_own_length_are_shown_and_attention_to_padding_is_missing(tiny):
    own = OpenedRun(tiny.released, tiny.runtime)
    (sample,) = own.find(["test$2"])
    made = attention_of(own, sample, COMPLETE, LAST)
    lengths = tuple(int(each[sample.row]) for each in own.store.split("test").lengths)
    assert made.maps[0].steps == lengths
    assert len(set(lengths)) > 1
    assert (made.maps[0].weights_QS.sum(axis=1) < 1 - 1e-3).all()


def test_frames_that_words_read_are_shown_where_wsam_aligns_them(tiny, opened):
    own = OpenedRun(tiny.unaligned, tiny.runtime)
    (sample,) = own.find(["test$3"])
    made = attention_of(own, sample, COMPLETE, LAST)
    text, *frames = (int(each[sample.row]) for each in own.store.split("test").lengths)
    assert [each.shape for each in made.frames.values()] == [(text, count) for count in frames]
    is_word = np.r_[0.0, np.ones(text - 2), 0.0]
    for weights_TS in made.frames.values():
        np.testing.assert_allclose(weights_TS.sum(axis=1), is_word, atol=1e-6)
    assert made.maps[0].steps == (text, text, text)
    with mpl.rc_context(STYLE):
        words = ["extraordinarily"] * text
        figure = draw_frames(made, words, ["run", "test$3 (test): frames that each word reads"])
        assert outside(figure) == []
        assert overlapping(figure) == []
    assert attention_of(opened, opened.find(["test$3"])[0], COMPLETE, LAST).frames == {}


def test_plain_transformer_has_one_subset_and_another_model_none(tiny):
    plain = OpenedRun(tiny.plain, tiny.runtime)
    made = attention_of(plain, plain.find(["test$0"])[0], COMPLETE, LAST)
    assert [each.subset for each in made.maps] == [tuple(Modality)]
    late = OpenedRun(tiny.late, tiny.runtime)
    with pytest.raises(CiderError, match=r"model late_fusion of run .* has no fusion attention"):
        attention_of(late, late.find(["test$0"])[0], COMPLETE, LAST)


def test_looking_changes_neither_mode_nor_weights(opened):
    (sample,) = opened.find(["test$0"])
    first = attention_of(opened, sample, COMPLETE, LAST)
    assert not opened.run.model.training
    again = attention_of(opened, sample, COMPLETE, LAST)
    assert np.array_equal(first.maps[0].weights_QS, again.maps[0].weights_QS)
    assert all(parameter.grad is None for parameter in opened.run.model.parameters())


@pytest.mark.parametrize("which", ["full", "plain"])
def test_words_of_the_figures_are_inside_and_do_not_run_into_each_other(tiny, which):
    run = OpenedRun(getattr(tiny, which), tiny.runtime)
    (sample,) = run.find(["test$1"])
    made = attention_of(run, sample, COMPLETE, LAST)
    lines = ["run 0123456789abcdef, tiny/aligned-iid, three_class [synthetic]", "test$1 (test)"]
    with mpl.rc_context(STYLE):
        words = ["extraordinarily"] * len(made.words)
        for figure in (draw_maps(made, words, lines), draw_shares(made.shares, lines)):
            assert outside(figure) == []
            assert overlapping(figure) == []


def test_command_draws_utterances_and_splits(tiny, run_cli, tmp_path):
    call = ("draw", "attention", tiny.full.run_id, *tiny.roots, "--out", tmp_path / "f")
    code, out, _ = run_cli(*call, "--id", "test$0")
    assert code == 0
    stem = f"attention-{tiny.full.run_id[:8]}"
    assert {path.name for path in (tmp_path / "f").iterdir()} == {
        f"{stem}-test_0{part}.{suffix}" for part in ("", "-shares") for suffix in ("png", "svg")
    }
    assert len(out.splitlines()) == 4
    first = {path: path.read_bytes() for path in (tmp_path / "f").iterdir()}
    run_cli(*call, "--id", "test$0")
    assert all(path.read_bytes() == content for path, content in first.items())
    code, out, _ = run_cli(*call, "--split", "test", "--missing", "rmm", "--rate", "0.5", "--json")
    data = json.loads(out)["data"]
    assert (code, data["condition"], len(data["files"])) == (0, "rmm@0.5", 2)
    shares = data["found"][0]["shares"]
    assert list(shares) == ["LAV", "LA", "LV", "AV", "L", "A", "V"]
    assert sum(shares["LAV"]["audio"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "takes --id or --split, one of them"),
        (("--id", "test$0", "--split", "test"), "takes --id or --split, one of them"),
        (("--split", "test", "--seed", "3"), "--seed is of single utterances"),
    ],
)
def test_bad_questions_get_a_sentence(tiny, run_cli, arguments, told):
    code, _, err = run_cli("draw", "attention", tiny.full.run_id, *tiny.roots, *arguments)
    assert code == 2
    assert told in " ".join(err.split())
