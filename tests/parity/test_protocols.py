"""Masks, bias words and counterfactual text against the published code's, exactly."""

from __future__ import annotations

import numpy as np
import torch

from cider.data.batch import TokenIds, View
from cider.data.bias_words import bias_words, counterfactual_ids, keep_table, special_ids
from cider.data.labels import class_labels
from cider.missing import released_masks
from cider.modality import Modality, PerModality
from cider.views import counterfactual_view, incomplete_view

NAMES = {"RMFM_same": "rmfm_per_modality"}
TASKS = {"binary": ("three_class", 3), "seven": ("seven_class", 7)}
TOKENS = TokenIds()

# The recordings were made with at most eight bias words.
RECORDED_LIMIT = 8


def test_released_masks_equal_recorded_ones(recorded_mask, recordings):
    alignment, _, protocol, rate_or_kept, split = recorded_mask.split("/")
    is_smm = protocol == "SMM"

    masks = released_masks(
        NAMES.get(protocol, protocol.lower()),
        1.0 if is_smm else float(rate_or_kept),
        recordings.lengths(alignment, split),
        pad_to=recordings.pad_to(alignment, split),
        seed=recordings.facts["seed_of_masks"],
        kept=rate_or_kept if is_smm else "",
    )

    for modality in Modality:
        expected = recordings.arrays[f"{recorded_mask}/{modality}_keep"].astype(bool)
        np.testing.assert_array_equal(masks[modality], expected, err_msg=str(modality))


def test_counterfactual_ids_equal_recorded_ones(recorded_text, recordings):
    alignment, task, *_ = recorded_text.split("/")
    incomplete_BT = recordings.arrays[f"{recorded_text}/text_ids_incomplete"]
    words = recordings.arrays[f"{alignment}/{task}/bias_words"]
    vocab_size = int(max(incomplete_BT.max(), words.max(), TOKENS.mask)) + 1

    result_BT = counterfactual_ids(incomplete_BT, keep_table(words, vocab_size, TOKENS), TOKENS)

    expected_BT = recordings.arrays[f"{recorded_text}/text_ids_counterfactual"]
    np.testing.assert_array_equal(result_BT, expected_BT)
    assert result_BT.dtype == expected_BT.dtype


def test_views_of_recorded_masks_have_recorded_ids(recorded_text, recordings):
    alignment, task, *_, split = recorded_text.split("/")
    token_ids_BT = torch.from_numpy(recordings.token_ids(alignment, split))
    data = recordings.split(alignment, split)
    observed = PerModality(*Modality).map(
        lambda modality: torch.from_numpy(
            recordings.arrays[f"{recorded_text}/{modality}_keep"].astype(bool)
        )
    )
    valid = recordings.lengths(alignment, split).zip_map(
        observed, lambda length, mask: torch.arange(mask.shape[1]) < torch.tensor(length)[:, None]
    )
    view = View(token_ids_BT, torch.tensor(data["audio"]), torch.tensor(data["vision"]), valid)
    words = recordings.arrays[f"{alignment}/{task}/bias_words"]
    kept_words = torch.from_numpy(keep_table(words, int(token_ids_BT.max()) + 1, TOKENS))

    incomplete = incomplete_view(view, observed, TOKENS)
    counterfactual = counterfactual_view(incomplete, kept_words, TOKENS)

    for result, name in ((incomplete, "incomplete"), (counterfactual, "counterfactual")):
        expected_BT = recordings.arrays[f"{recorded_text}/text_ids_{name}"]
        np.testing.assert_array_equal(result.token_ids_BT.numpy(), expected_BT, err_msg=name)


def test_bias_words_equal_recorded_order_counts_and_cv(recorded_words, recordings):
    alignment, task = recorded_words.split("/")
    task_name, num_classes = TASKS[task]
    lengths = recordings.lengths(alignment, "train").text
    token_ids = recordings.token_ids(alignment, "train")
    labels = recordings.split(alignment, "train")["regression_labels"]
    expected = {
        name: recordings.arrays[f"{recorded_words}/bias_words{name}"]
        for name in ("", "_count", "_cv")
    }

    result = bias_words(
        [ids[:length] for ids, length in zip(token_ids, lengths, strict=True)],
        class_labels(labels, task_name),
        num_classes,
        special=special_ids(TOKENS),
        limit=max(RECORDED_LIMIT, len(expected[""])),
    )

    np.testing.assert_array_equal(result.ids, expected[""])
    np.testing.assert_array_equal(result.counts, expected["_count"])
    np.testing.assert_array_equal(result.cv.astype(np.float64), expected["_cv"])
