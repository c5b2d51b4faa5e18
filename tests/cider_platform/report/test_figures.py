"""Figures of a report: which there are, what they say, and that no words overlap."""

from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from figure_words import outside, overlapping
from made_up_runs import RATES, made_up_spec, write_made_up_run, write_row, write_seeds
from stored_predictions import store

from cider.condition import Condition
from cider.errors import NothingMatchedError
from cider.metrics import confusion_matrix
from cider_platform.figure_files import STYLE
from cider_platform.layout import RunFolder
from cider_platform.report import figures
from cider_platform.report.answers import answers_of, reliability
from cider_platform.report.data import build
from cider_platform.report.figures import KINDS, MOST, shortened, write_figures
from cider_platform.report.gather import gather
from cider_platform.results import evaluations, find_run

LABELS_N = np.array([0, 0, 1, 1, 2, 2, 2, 0])


def log_probs(seed):
    logits = np.random.default_rng(seed).normal(size=(8, 3)) * 2
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Results root whose runs have stored predictions, of configurations with long names."""
    root = tmp_path_factory.mktemp("answered")
    for fields in ({}, {"maci__mcm": False}, {"model__layers": 3, "maci__counterfactual": False}):
        ids = write_seeds(root, (0.8, 0.7, 0.75), kept=("L", "A", "V", "LA"),
                          protocols=("rmfm", "rmm"), **fields)  # fmt: skip
        for run in ids:
            folder = RunFolder.of(root, run)
            for rate in RATES:
                test = next(
                    row["test"]
                    for row in evaluations(find_run(root, run))
                    if (row["protocol"], row["rate"]) == ("rmfm", rate)
                )
                store(folder, Condition("rmfm", rate), log_probs(int(run[:4], 16)), LABELS_N,
                      test=test)  # fmt: skip
    return root


def made(results, **options):
    found = gather(results, ())
    return build(found.subject, found.groups, **options)


@pytest.fixture(scope="module")
def report(answered):
    return made(answered, against=made_up_spec(1).run_id)


def test_command_draws_every_kind_as_png_and_svg(run_cli, answered, tmp_path):
    code, out, err = run_cli("figures", "--results", answered, "--out", tmp_path / "f",
                             "--against", made_up_spec(1).run_id)  # fmt: skip
    assert (code, err) != (1, "")
    written = {path.name for path in (tmp_path / "f").iterdir()}
    stems = {"curve-acc2-rmfm", "curve-acc2-rmm", "auilc-acc2", "smm-acc2", "difference-acc2"}
    stems |= {f"{kind}-{number}" for kind in ("confusion", "calibration") for number in (1, 2, 3)}
    assert written == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
    assert len(out.splitlines()) == len(written)
    for path in (tmp_path / "f").glob("*.svg"):
        words = " ".join(" ".join(ElementTree.parse(path).getroot().itertext()).split())
        assert "all complete runs" in words
    for path in (tmp_path / "f").glob("*.png"):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_words_of_a_figure_are_inside_it_and_do_not_run_into_each_other(answered, report, kind):
    with mpl.rc_context(STYLE):
        drawn = dict(KINDS[kind](report, answered))
        assert drawn
        for name, figure in drawn.items():
            assert outside(figure) == [], name
            assert overlapping(figure) == [], name


def test_same_report_gives_the_same_files(answered, report, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "KINDS", {"smm": KINDS["smm"]})
    first, _ = write_figures(report, answered, tmp_path / "a")
    second, _ = write_figures(report, answered, tmp_path / "b")
    assert [one.read_bytes() for one in first] == [other.read_bytes() for other in second]


def test_kinds_without_numbers_are_left_out_with_what_they_need(tmp_path):
    folder = write_made_up_run(tmp_path, made_up_spec())
    write_row(folder, {"acc2": 0.7}, "smm", 0.0, "L")
    written, left_out = write_figures(made(tmp_path), tmp_path, tmp_path / "f")
    assert {path.stem for path in written} == {"smm-acc2"}
    assert [text.split(" figure")[0] for text in left_out] == [
        "no curve", "no auilc", "no difference", "no confusion", "no calibration"
    ]  # fmt: skip


def test_too_many_configurations_or_no_number_are_refused(tmp_path):
    write_made_up_run(tmp_path, made_up_spec())
    with pytest.raises(NothingMatchedError, match="no evaluated run to draw"):
        write_figures(made(tmp_path), tmp_path, tmp_path / "f")
    for number in range(MOST):
        write_made_up_run(tmp_path, made_up_spec(model__layers=number + 2, model__width=48))
    with pytest.raises(NothingMatchedError, match="at most 12 configurations"):
        write_figures(made(tmp_path), tmp_path, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_answers_are_added_up_over_runs(answered, report):
    configuration = report.configurations[0]
    found = answers_of(answered, configuration, Condition("rmfm", 0.5))
    expected = sum(
        confusion_matrix(log_probs(int(run.id[:4], 16)), LABELS_N) for run in configuration.runs
    )
    assert (found.confusion_CC == expected).all()
    assert found.runs == tuple(run.id for run in configuration.runs)
    assert answers_of(answered, configuration, Condition("tmfm", 0.5)) is None


def test_calibration_of_known_answers():
    confidence = np.array([0.55, 0.55, 0.95, 1.0, 0.0])
    right = np.array([True, False, True, True, False])
    share_B, confidence_B, accuracy_B = reliability([confidence[:2], confidence[2:]],
                                                    [right[:2], right[2:]])  # fmt: skip
    assert share_B.tolist() == [0.2, 0, 0, 0, 0, 0.4, 0, 0, 0, 0.4]
    assert np.isnan(confidence_B[1:5]).all()
    assert (accuracy_B[5], accuracy_B[9]) == (0.5, 1.0)
    assert confidence_B[9] == pytest.approx(0.975)


def test_ece_is_the_mean_gap_between_confidence_and_accuracy(answered, report):
    found = answers_of(answered, report.configurations[0], Condition("rmfm", 0.0))
    gaps = [
        share * abs(accuracy - confidence)
        for share, confidence, accuracy in zip(
            found.share_B, found.confidence_B, found.accuracy_B, strict=True
        )
        if share
    ]
    assert found.ece == pytest.approx(sum(gaps))
    assert 0 < found.ece < 1


def test_long_names_keep_both_ends():
    text = shortened("a" * 50 + "z" * 50, 40)
    assert len(text) <= 40
    assert text.startswith("a")
    assert text.endswith("z")
