"""What a generated corpus holds: the shapes of the real one, the same in every process."""

import json
import subprocess
import sys

import numpy as np
import pytest
from synthetic_views import labels_of

from cider.data.schema import MANIFEST_FILE, read_manifest
from cider.data.synthetic import ensure, split_counts
from cider.data.synthetic.facts import CORPORA
from cider.data.synthetic.name import DEFAULT_SCALES, parse_name
from cider.data.synthetic.parameters import Parameters
from cider.data.synthetic.vocabulary import (
    FIRST_WORD_ID,
    VOCABULARY,
)
from cider.errors import StoreError
from cider.spec import SPLITS

SMALL = "synthetic-mosei-x0.01"


@pytest.mark.parametrize("name", ["synthetic-mosi", "synthetic-mosei"])
@pytest.mark.parametrize("distribution", ["iid", "ood"])
def test_corpus_has_the_counts_widths_lengths_and_priors_of_the_real_one(
    store_of, name, distribution
):
    store = store_of(name, "unaligned", distribution)
    manifest, facts = store.manifest, CORPORA[name.removeprefix("synthetic-")]
    scale = DEFAULT_SCALES[name.removeprefix("synthetic-")]
    assert manifest.synthetic
    assert manifest.default_encoder == "scratch"
    assert manifest.counts == {
        s: round(n * scale) for s, n in zip(SPLITS, facts.counts, strict=True)
    }
    assert manifest.widths == facts.widths
    assert manifest.max_lengths == facts.max_lengths
    for task in ("three_class", "seven_class"):
        # Systematic sampling: a class is off by less than one utterance at each of its two ends.
        expected = np.array(getattr(facts.train_priors[distribution], task))
        found = np.array(manifest.label_histogram["train"][task])
        np.testing.assert_allclose(found, expected * manifest.counts["train"], atol=1.05)
    words_N = store.split("train").lengths.text - 2
    assert words_N.min() >= 1
    assert np.median(words_N) == pytest.approx(np.exp(facts.words_log_mean), rel=0.08)
    # Frames per word are log-normal around their median, with standard deviation 0.3.
    frames_per_word = store.split("train").lengths.audio.sum() / words_N.sum()
    assert frames_per_word == pytest.approx(4 * np.exp(0.3**2 / 2), rel=0.05)


def test_text_and_token_ids_are_the_same_words(store_of):
    view = store_of(SMALL).split("train")
    for row in range(len(view)):
        ids_T = view.token_ids(row)
        assert (ids_T[0], ids_T[-1]) == (101, 102)
        assert view.texts[row] == VOCABULARY.text(ids_T[1:-1] - FIRST_WORD_ID)


def test_aligned_corpus_has_one_frame_per_token_and_the_same_words_and_labels(store_of):
    aligned, unaligned = store_of(SMALL, "aligned"), store_of(SMALL, "unaligned")
    assert set(aligned.manifest.max_lengths.values()) == {50}
    for split in SPLITS:
        ours, theirs = aligned.split(split), unaligned.split(split)
        assert ours.texts == theirs.texts
        np.testing.assert_array_equal(labels_of(aligned, split), labels_of(unaligned, split))
        np.testing.assert_array_equal(ours.lengths.text, ours.lengths.audio)
        np.testing.assert_array_equal(ours.lengths.text, ours.lengths.vision)
        assert (theirs.lengths.audio != theirs.lengths.vision).any()


def test_frames_are_unit_autocorrelated_noise_around_known_patterns(store_of):
    view = store_of("synthetic-mosei").split("train")
    frames = [view.frames("audio", row) for row in range(400)]
    channels = Parameters().audio.channels
    moved = sum(int(channel.width_share * 74) for channel in channels)
    still = [frames_SF[:, moved:-1] for frames_SF in frames]  # the last feature tells the time
    assert np.concatenate(still).std() == pytest.approx(1, abs=0.01)
    neighbours = np.mean([(noise_SF[1:] * noise_SF[:-1]).mean() for noise_SF in still])
    assert neighbours == pytest.approx(Parameters().audio.unaligned_correlation, abs=0.02)
    assert np.mean([frames_SF[0, -1] - frames_SF[-1, -1] for frames_SF in frames]) > 1.7


def test_content_is_the_same_in_another_process(store_of, tmp_path):
    code = (
        "import sys; from pathlib import Path; from cider.data.synthetic import ensure; "
        "ensure(Path(sys.argv[1]), sys.argv[2], 'unaligned', 'ood')"
    )
    # Two at once: each must find a whole corpus when it returns, whoever put it in place.
    command = [sys.executable, "-c", code, str(tmp_path), SMALL]
    others = [subprocess.Popen(command) for _ in range(2)]
    assert [other.wait() for other in others] == [0, 0]
    folder = tmp_path / SMALL
    assert [path.name for path in folder.iterdir()] == ["unaligned-ood"]
    theirs = read_manifest(folder / "unaligned-ood")
    assert theirs.to_json() == store_of(SMALL, "unaligned", "ood").manifest.to_json()


def test_another_seed_is_another_corpus(store_of):
    one, other = store_of(SMALL).manifest, store_of(f"{SMALL}-s1").manifest
    assert one.content_sha256 != other.content_sha256
    assert one.label_histogram == other.label_histogram


def test_ensure_again_changes_nothing_and_replaces_another_generators_corpus(tmp_path):
    calls = []
    folder = ensure(
        tmp_path, "synthetic-mosei", "aligned", "iid", scale=0.01,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    total = sum(split_counts(parse_name(SMALL)).values())
    assert calls[-1] == (total, total)
    manifest = folder / MANIFEST_FILE
    before = manifest.stat().st_mtime_ns
    assert ensure(tmp_path, SMALL, "aligned", "iid") == folder
    assert manifest.stat().st_mtime_ns == before

    good = manifest.read_text(encoding="utf-8")
    values = json.loads(good)
    values["generator"]["version"] = 0
    manifest.write_text(json.dumps(values), encoding="utf-8")
    assert ensure(tmp_path, SMALL, "aligned", "iid") == folder
    assert manifest.read_text(encoding="utf-8") == good


def test_ensure_in_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written"):
        ensure(tmp_path / "file", SMALL, "aligned", "iid")
