"""Published numbers in reports: which runs get them, and where they stand."""

import json

import pytest
from made_up_runs import made_up_spec, write_made_up_run, write_row, write_seeds

from cider_platform.report.published import published_beside
from cider_platform.results import all_runs

RATES = [step / 10 for step in range(11)]
BASES = (0.80, 0.82, 0.78, 0.81, 0.79, 0.83, 0.80, 0.82)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight runs of CIDer on MOSI, three classes, evaluated under RMFM at all rates."""
    found = tmp_path_factory.mktemp("published")
    write_seeds(found, BASES, rates=RATES)
    return found


def test_tables_that_the_runs_have_cells_of_are_found_and_only_their_rows(root):
    found = {each.table: each for each in published_beside(all_runs(root))}
    # Unaligned IID MOSI: table IV's areas, X's complete input, XIII's rates; acc2 and f1.
    assert set(found) == {"IV", "X", "XIII"}
    assert {row.cell.model for each in found.values() for row in each.rows} == {"CIDer"}
    assert [row.cell.metric for row in found["IV"].rows] == ["acc2", "f1"]
    assert len(found["XIII"].rows) == 2 * 10
    (row, _) = found["IV"].rows
    assert row.validation.ours.summary.num_seeds == 8
    assert row.published.verdict == "not run"


def test_runs_on_generated_corpora_stand_beside_no_published_number(tmp_path):
    for dataset, told in (("synthetic-mosi", False), ("mosi", True)):
        spec = made_up_spec(dataset=dataset)
        write_row(write_made_up_run(tmp_path, spec, synthetic=told), {"acc2": 0.7})
    assert published_beside(all_runs(tmp_path)) == ()


def test_unfinished_runs_and_other_corpora_have_no_published_section(tmp_path):
    write_made_up_run(tmp_path, made_up_spec(), "FAILED", error="broken")
    write_row(write_made_up_run(tmp_path, made_up_spec(dataset="mine")), {"acc2": 0.7})
    assert published_beside(all_runs(tmp_path)) == ()


def test_every_format_but_csv_has_the_section(run_cli, root, tmp_path):
    for name in ("r.html", "r.md", "r.tex", "r.json"):
        code, _, err = run_cli("report", "--results", root, "--out", tmp_path / name)
        assert code == 0, err
        assert "table IV: 2 tests" in err
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<section id="published-IV"><h2>Published table IV</h2>' in html
    markdown = (tmp_path / "r.md").read_text(encoding="utf-8")
    line = next(each for each in markdown.splitlines() if each.startswith("| acc2 | 7"))
    assert "(8)" in line
    assert line.split("|")[-3].strip() in ("above", "below", "within")
    assert r"\caption{Table IV" in (tmp_path / "r.tex").read_text(encoding="ascii")
    data = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["data"]
    assert [each["table"] for each in data["published"]] == ["IV", "X", "XIII"]
    assert len(data["published"][0]["rows"][0]["honest_selection"]["runs"]) == 8
