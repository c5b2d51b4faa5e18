"""Figures of a study: their files, what they say, and that nothing in them overlaps."""

from xml.etree import ElementTree

import pytest
from figure_words import boxes_of, outside, overlapping
from small_study import ASHA, SPACE, write_study

from cider.errors import NothingMatchedError
from cider_platform.search import plots
from cider_platform.search.plots import FIGURES, show, write_plots
from cider_platform.search.space import parse_axis
from cider_platform.search.study import open_study


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results root with a study ``demo`` that has complete, pruned and failed trials."""
    root = tmp_path_factory.mktemp("results")
    write_study(root, total=40, pruner=ASHA | {"grace": 2}, fail_every=8)
    return root


def test_plots_are_png_and_svg_marked_with_what_they_show(run_cli, results, tmp_path):
    code, out, _ = run_cli("study", "plot", "demo", "--results", results, "--out", tmp_path / "f")
    assert code == 0
    written = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert written == sorted(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg"))
    assert len(out.splitlines()) == len(written)
    for name in FIGURES:
        assert (tmp_path / "f" / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        drawn = ElementTree.parse(tmp_path / "f" / f"{name}.svg")
        words = " ".join(drawn.getroot().itertext())
        assert "study demo [synthetic]" in " ".join(words.split())
        assert "valid/acc2" in words
    assert "pruned, where it was stopped" in words


def test_plots_of_the_same_study_are_the_same_files(results, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "FIGURES", {"history": FIGURES["history"]})
    study = open_study(results, "demo")
    first, _ = write_plots(study, tmp_path / "a")
    second, _ = write_plots(study, tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Results root with a study of a long name and two fields, with few trials."""
    space = (
        parse_axis("optimizer.lr=log:1e-4:1e-2"),
        parse_axis("model.positions=choice:time,batch_index"),
    )
    root = tmp_path_factory.mktemp("odd")
    write_study(root, LONG_NAME, total=12, space=space)
    return root


LONG_NAME = "synthetic-mosei-x0.05-seven_class-unaligned-cross_dataset-late_fusion-seed1234"


@pytest.mark.parametrize("name", sorted(FIGURES))
@pytest.mark.parametrize("study", ["demo", LONG_NAME])
def test_words_of_a_figure_are_inside_it_and_do_not_run_into_each_other(results, odd, name, study):
    figure = FIGURES[name](show(open_study(results if study == "demo" else odd, study)))
    assert len(boxes_of(figure)) > 5
    assert outside(figure) == []
    assert overlapping(figure) == []


def test_figure_that_needs_more_trials_is_left_out_with_the_reason(run_cli, tmp_path):
    write_study(tmp_path, total=3, space=SPACE[-1:])
    out_folder = tmp_path / "figures"
    code, out, err = run_cli("study", "plot", "demo", "--results", tmp_path, "--out", out_folder)
    assert code == 0
    assert "no importance figure: importance needs at least 10 complete trials" in err
    assert "no parallel figure: lines between fields need at least two searched fields" in err
    assert {path.stem for path in out_folder.iterdir()} == {"history", "slices"}
    assert len(out.splitlines()) == 4


def test_study_without_a_complete_trial_is_not_drawn(tmp_path):
    write_study(tmp_path, total=1, fail_every=1)
    with pytest.raises(NothingMatchedError, match="no complete trial to draw yet"):
        write_plots(open_study(tmp_path, "demo"), tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
