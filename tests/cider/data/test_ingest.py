import joblib
import numpy as np
import pytest

from cider.data.cleaning import content_lengths
from cider.data.import_plan import ImportFile, plan_imports
from cider.data.ingest import import_pickle
from cider.data.schema import read_manifest
from cider.data.store import FeatureStore
from cider.errors import StoreError, UsageError


def opened(tmp_path, result):
    return FeatureStore.open(result.manifest.key.folder(tmp_path / "store"))


def test_import_unaligned_stores_each_utterance_without_its_padding(
    tmp_path, make_mmsa, run_import
):
    content = make_mmsa()
    store = opened(tmp_path, run_import(content))
    for split, source in content.items():
        view = store.split(split)
        assert view.ids == source["id"]
        assert view.texts == source["raw_text"].tolist()
        assert view.lengths.audio.tolist() == source["audio_lengths"]
        for row in range(len(view)):
            length = source["vision_lengths"][row]
            np.testing.assert_array_equal(
                view.frames("vision", row), source["vision"][row, :length]
            )
            ids = source["text_bert"][row, 0]
            np.testing.assert_array_equal(view.token_ids(row), ids[ids != 0].astype(np.int32))
    np.testing.assert_array_equal(
        store.split("train").labels, content["train"]["regression_labels"]
    )
    assert store.manifest.max_lengths == {"text": 10, "audio": 12, "vision": 15}
    assert store.manifest.tokenizer.name == store.manifest.default_encoder == "bert-base-uncased"


def test_import_aligned_cuts_frames_to_the_text_mask(tmp_path, make_mmsa, run_import):
    content = make_mmsa(aligned=True)
    for split in content.values():
        for name in ("audio", "vision"):
            split[f"{name}_lengths"] = [10] * len(split["id"])  # As some files say: the padded one.
    store = opened(tmp_path, run_import(content, alignment="aligned"))
    for split, source in content.items():
        view = store.split(split)
        text = source["text_bert"][:, 1].sum(axis=1).astype(int).tolist()
        assert view.lengths.text.tolist() == text
        assert view.lengths.audio.tolist() == view.lengths.vision.tolist() == text


def test_import_recorded_files_keep_the_steps_the_published_masks_keep(tmp_path, golden_pickles):
    for alignment in ("aligned", "unaligned"):
        file = ImportFile(path=golden_pickles / f"{alignment}_50.pkl", alignment=alignment)
        manifest = import_pickle(tmp_path, file, dataset="mosi", distribution="iid").manifest
        assert manifest.counts == {"train": 60, "valid": 12, "test": 15}
        assert manifest.cleaned["train"] == {
            "audio_frames_repaired": 1,
            "audio_values_minus_infinity": 1,
        }


@pytest.mark.parametrize(
    ("value", "kind"),
    [(-np.inf, "minus_infinity"), (np.inf, "plus_infinity"), (np.nan, "not_a_number")],
)
def test_import_values_that_are_not_finite_become_zero_and_are_counted(
    tmp_path, make_mmsa, run_import, value, kind
):
    content = make_mmsa()
    content["valid"]["vision"][2, 1, :3] = value
    result = run_import(content)
    assert result.manifest.cleaned["valid"] == {
        "vision_frames_repaired": 1,
        f"vision_values_{kind}": 3,
    }
    frames = opened(tmp_path, result).split("valid").frames("vision", 2)
    np.testing.assert_array_equal(frames[1, :3], 0)
    assert frames[1, 3] == content["valid"]["vision"][2, 1, 3]
    assert any("vision frames with values that are not finite" in note for note in result.notes)


def test_import_float64_value_beyond_float32_counts_as_infinite(make_mmsa, run_import):
    content = make_mmsa()
    for split in content.values():
        split["audio"] = split["audio"].astype(np.float64)
    content["train"]["audio"][0, 0, 0] = 1e300
    assert run_import(content).manifest.cleaned["train"]["audio_values_plus_infinity"] == 1


def test_import_frames_beyond_the_length_are_counted_and_left_out(tmp_path, make_mmsa, run_import):
    content = make_mmsa()
    content["train"]["audio_lengths"][0] = 2
    content["train"]["audio"][0, 2:5] = 1.0
    content["train"]["audio"][0, 5:] = 0.0
    content["train"]["audio"][0, 3, 0] = np.nan
    result = run_import(content)
    assert result.manifest.cleaned["train"] == {"audio_frames_beyond_length": 3}
    assert opened(tmp_path, result).split("train").frames("audio", 0).shape == (2, 3)


def test_import_utterance_without_frames_gets_one_zero_frame(tmp_path, make_mmsa, run_import):
    content = make_mmsa()
    content["test"]["audio_lengths"][1] = 0
    content["test"]["audio"][1] = 0
    result = run_import(content)
    assert result.manifest.cleaned["test"] == {"audio_utterances_without_frames": 1}
    frames = opened(tmp_path, result).split("test").frames("audio", 1)
    np.testing.assert_array_equal(frames, np.zeros((1, 3)))


def test_import_without_lengths_takes_the_last_frame_that_is_not_zero(
    tmp_path, make_mmsa, run_import
):
    content = make_mmsa()
    expected = content["train"]["audio_lengths"]
    for split in content.values():
        del split["audio_lengths"]
    store = opened(tmp_path, run_import(content))
    assert store.split("train").lengths.audio.tolist() == expected


def test_content_lengths_of_all_zero_frames_is_zero():
    frames = np.zeros((3, 4, 2), np.float32)
    frames[1, 2, 1] = 1
    frames[2, 0, 0] = frames[2, 3, 0] = np.nan
    assert content_lengths(frames).tolist() == [0, 3, 4]


def test_import_in_several_batches_equals_one_batch(tmp_path, make_mmsa, run_import, monkeypatch):
    content = make_mmsa()
    content["train"]["audio"][7, 0, 0] = -np.inf
    whole = run_import(content).manifest
    monkeypatch.setattr("cider.data.ingest.ROWS_AT_ONCE", 5)
    monkeypatch.setattr("cider.data.writer.ROWS_PER_BATCH", 5)
    assert run_import(content).manifest.content_sha256 == whole.content_sha256
    assert run_import(content).manifest.cleaned == whole.cleaned


def test_import_split_named_dev_is_validation(make_mmsa, run_import):
    content = make_mmsa()
    content["dev"] = content.pop("valid")
    assert run_import(content).manifest.counts["valid"] == 5


def test_import_names_keys_it_does_not_read_once(make_mmsa, run_import):
    content = make_mmsa()
    content["train"]["regression_labels_T"] = np.zeros(12)
    notes = run_import(content).notes
    assert [note for note in notes if "not read" in note] == [
        "not read: the keys regression_labels_T, text"
    ]


def test_import_class_labels_that_differ_from_the_sign_are_a_warning_with_counts(
    make_mmsa, run_import
):
    content = make_mmsa()
    wrong = content["train"]["classification_labels"]
    wrong[:3] = (wrong[:3] + 1) % 3
    result = run_import(content)
    assert result.manifest.cleaned["train"]["class_differs_from_sign"] == 3
    assert any("in 3 of 12 utterances; the sign is used" in text for text in result.warnings)


def test_import_ids_of_two_splits_are_a_warning(make_mmsa, run_import):
    content = make_mmsa()
    content["test"]["id"][0] = content["train"]["id"][0]
    assert (
        "1 ids occur in more than one split, for example 'video0$_$0'"
        in run_import(content).warnings
    )


def test_import_published_name_of_other_sizes_warns_with_both_numbers(make_mmsa, run_import):
    warnings = run_import(make_mmsa(), dataset="mosei").warnings
    assert "split train has 12 utterances, published are 16326" in warnings
    assert "audio has width 3, published are 74" in warnings
    assert "vision is padded to 15 steps, published are 500" in warnings
    assert run_import(make_mmsa(), dataset="mine").warnings == []


def test_import_published_ood_sizes_are_those_of_the_task(make_mmsa, run_import):
    result = run_import(make_mmsa(), dataset="mosei", distribution="ood", task="seven_class")
    assert "split valid has 5 utterances, published are 1872" in result.warnings


def test_import_segments_and_missing_end_tokens_are_counted(make_mmsa, run_import):
    content = make_mmsa()
    content["train"]["text_bert"][0, 2, 1] = 1
    content["train"]["text_bert"][1, 0, 0] = 500
    assert run_import(content).manifest.cleaned["train"] == {
        "text_segments_dropped": 1,
        "text_without_start_or_end_token": 1,
    }


def test_import_existing_corpus_is_refused_before_the_file_is_read(tmp_path, make_mmsa, run_import):
    manifest = run_import(make_mmsa()).manifest
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(b"no pickle")
    file = ImportFile(path=broken, alignment="unaligned")
    with pytest.raises(StoreError, match="already stored"):
        import_pickle(tmp_path / "store", file, dataset="mine", distribution="iid")
    assert read_manifest(manifest.key.folder(tmp_path / "store")) == manifest


def test_import_under_a_synthetic_name_is_refused(make_mmsa, run_import):
    with pytest.raises(UsageError, match="kept for generated corpora"):
        run_import(make_mmsa(), dataset="synthetic-mosi")


# Alignment


def test_alignment_of_unequal_padded_lengths_is_unaligned(make_mmsa, run_import):
    result = run_import(make_mmsa(), alignment=None)
    assert result.manifest.alignment == "unaligned"
    assert result.notes[0] == "alignment: unaligned (told by the padded lengths)"


def test_alignment_of_lengths_equal_to_the_texts_is_aligned(make_mmsa, run_import):
    assert run_import(make_mmsa(aligned=True), alignment=None).manifest.alignment == "aligned"


def test_alignment_of_other_lengths_on_one_padded_length_is_unaligned(make_mmsa, run_import):
    content = make_mmsa(steps=(10, 10, 10))
    assert run_import(content, alignment=None).manifest.alignment == "unaligned"


@pytest.mark.parametrize("lengths", [None, 10])
def test_alignment_that_cannot_be_told_names_the_option(make_mmsa, run_import, lengths):
    content = make_mmsa(aligned=True)
    for split in content.values():
        for key in ("audio_lengths", "vision_lengths"):
            del split[key]
            if lengths is not None:
                split[key] = [lengths] * len(split["id"])
    with pytest.raises(UsageError, match="give --alignment aligned or --alignment unaligned"):
        run_import(content, alignment=None)


def test_alignment_aligned_of_unequal_padded_lengths_is_refused(make_mmsa, run_import):
    with pytest.raises(UsageError, match="text has 10 steps, audio 12 and vision 15"):
        run_import(make_mmsa(), alignment="aligned", alignment_from="file name")


# CIDer's own files


def test_import_joblib_file_of_one_task_goes_into_the_tasks_folder(tmp_path, make_mmsa):
    folder = tmp_path / "OOD_MOSI"
    for name, seed in (("binary", 1), ("seven", 2)):
        (folder / name).mkdir(parents=True)
        joblib.dump(make_mmsa(seed=seed), folder / name / "MOSI_unaligned_50.pkl", compress=3)
    files = plan_imports(folder, dataset="mosi", distribution="ood")
    found = [
        import_pickle(tmp_path / "store", file, dataset="mosi", distribution="ood").manifest
        for file in files
    ]
    assert [str(manifest.key) for manifest in found] == [
        "mosi/unaligned-ood-three_class",
        "mosi/unaligned-ood-seven_class",
    ]
    assert found[0].content_sha256 != found[1].content_sha256


def test_import_cross_dataset_files_take_the_test_split_of_the_other(
    tmp_path, make_mmsa, save_pickle
):
    folder = tmp_path / "MSA_cross_datasets"
    sources = {}
    for seed, (name, steps) in enumerate({"mosi": 8, "mosei": 11}.items()):
        content = make_mmsa(aligned=True, steps=(steps,) * 3, widths=(25, 171), seed=seed)
        for split in content.values():
            for key in ("classification_labels", "annotations", "audio_lengths", "vision_lengths"):
                del split[key]
        sources[name] = content
        save_pickle(folder / f"{name}.pkl", content)
    (file,) = plan_imports(folder, dataset="mosi", distribution="cross_dataset")
    result = import_pickle(tmp_path, file, dataset="mosi", distribution="cross_dataset")
    store = FeatureStore.open(result.manifest.key.folder(tmp_path))
    assert str(store.manifest.key) == "mosi/aligned-cross_dataset"
    assert store.split("test").ids == sources["mosei"]["test"]["id"]
    np.testing.assert_array_equal(
        store.split("test").frames("audio", 0),
        sources["mosei"]["test"]["audio"][0, : store.split("test").lengths.text[0]],
    )
    assert store.manifest.max_lengths["text"] == 8
    assert store.manifest.padded_lengths("test")["text"] == 11
    assert any("classes follow from the regression labels" in note for note in result.notes)
    assert sum(store.manifest.label_histogram["train"]["three_class"]) == 12


def test_import_single_cross_dataset_file_warns_that_it_tests_on_itself(make_mmsa, run_import):
    content = make_mmsa(aligned=True)
    result = run_import(content, distribution="cross_dataset", alignment=None)
    assert any("--test-from" in warning for warning in result.warnings)
