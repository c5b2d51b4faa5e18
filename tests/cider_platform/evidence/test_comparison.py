"""Rows of a comparison: differences, verdicts, Holm over the table, and how they are printed."""

import csv
import io
import json

import pytest

from cider.errors import UsageError
from cider.published import cells
from cider_platform.evidence import render
from cider_platform.evidence.comparison import compare_models, compare_table
from cider_platform.evidence.ours import OurRuns

EIGHT = [0.66, 0.67, 0.665, 0.675, 0.668, 0.672, 0.669, 0.671]


def compared(made_up, table="V", models=(), **options):
    return compare_table(table, OurRuns.read(made_up.results, **options), models=models)


def row_of(comparison, metric="acc2", model="CIDer"):
    return next(
        row for row in comparison.rows if (row.cell.metric, row.cell.model) == (metric, model)
    )


def test_every_cell_has_a_row_and_what_was_not_run_says_so(made_up):
    found = compared(made_up, "IV")
    assert [row.cell for row in found.rows] == list(cells("IV"))
    ours = {row.validation.verdict for row in found.rows if row.cell.model == "CIDer"}
    assert ours == {"not run"}
    others = {row.validation.verdict for row in found.rows if row.cell.model != "CIDer"}
    assert others == {"no such model"}
    assert found.notes() == ["no test: it takes two evaluated seeds of a cell"]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (EIGHT, "above"),
        ([value - 0.03 for value in EIGHT], "below"),
        ([0.650, 0.668, 0.655, 0.661], "within"),
        ([0.66], "one seed: no interval"),
        ([0.66, 0.66, 0.66], "equal seeds"),
    ],
)
def test_verdict_says_where_the_published_number_lies(made_up, values, verdict):
    made_up.seeds(values)  # published: acc2 65.8
    row = row_of(compared(made_up))
    assert row.validation.verdict == verdict
    mean = 100 * sum(values) / len(values)
    assert row.validation.compared.difference.mean == pytest.approx(mean - 65.8)
    assert row.published.verdict == "not run"


def test_difference_within_the_rounding_of_the_printed_number_is_no_difference(made_up):
    # Means of 65.84 and a narrow interval: the printed 65.8 can be 65.85.
    made_up.seeds([0.65835, 0.65845, 0.6584, 0.65842])
    row = row_of(compared(made_up))
    assert row.validation.compared.difference.interval.low > 0
    assert row.validation.verdict == "within"


def test_the_two_selections_stand_beside_each_other(made_up):
    made_up.seeds(EIGHT)
    made_up.seeds([value + 0.01 for value in EIGHT], rule="published")
    row = row_of(compared(made_up))
    honest, published = row.validation.ours, row.published.ours
    assert published.summary.mean - honest.summary.mean == pytest.approx(1.0)
    assert published.marks == ("published selection",)
    assert honest.marks == ()


def test_synthetic_runs_get_numbers_and_neither_difference_nor_verdict(made_up):
    made_up.seeds(EIGHT, synthetic=True)
    row = row_of(compared(made_up, synthetic=True))
    assert row.validation.ours.summary.num_seeds == 8
    assert row.validation.compared is None
    assert row.validation.verdict == "synthetic: not comparable"
    found = compared(made_up, synthetic=True)
    assert "not comparable with the published ones" in found.notes()[0]
    assert found.to_dict()["marks"] == ["synthetic"]
    for write in (render.markdown, render.latex):
        assert "[synthetic]" in write(found)
    first = next(csv.DictReader(io.StringIO(render.comma_separated(found))))
    assert first["honest_marks"] == "synthetic"


def test_holm_is_over_the_tests_of_the_table_and_stars_need_enough_seeds(made_up):
    made_up.seeds(EIGHT)
    found = compared(made_up)
    assert found.tests("validation") == 2  # acc2 and f1; acc7 is another run
    row = row_of(found)
    assert row.validation.compared.test.p == 2 / 2**8
    assert row.validation.adjusted_p == pytest.approx(2 * 2 / 2**8)
    assert row.validation.star == "*"
    assert "2 tests" in found.notes()[0]
    assert "no star" not in found.notes()[0]
    assert len(found.notes()) == 1


def test_five_seeds_never_have_a_star_and_the_note_says_how_many_would(made_up):
    made_up.seeds(EIGHT[:5])
    found = compared(made_up)
    row = row_of(found)
    assert row.validation.verdict == "above"
    assert row.validation.compared.test.p == 0.0625
    assert row.validation.star == ""
    first, second = found.notes()
    assert first.endswith("after correction 0.125; no star is possible, it takes 7 seeds")
    assert second.startswith("intervals of 5 seeds are too narrow")


def test_ours_against_ours_is_paired_by_seed(made_up):
    made_up.seeds(EIGHT)
    without = [0.62, 0.66, 0.60]
    made_up.seeds(without, maci__mcm=False)
    found = compare_models(compared(made_up), "CIDer")
    assert found.against == "CIDer"
    row = row_of(found, model="w/o MCM")
    pairs = [100 * (one - other) for one, other in zip(without, EIGHT, strict=False)]
    assert row.validation.compared.seeds == (1, 2, 3)
    assert row.validation.compared.difference.mean == pytest.approx(sum(pairs) / 3)
    assert row.validation.verdict == "below"
    assert row_of(found, model="w/o MCT").validation.verdict == "not run"
    assert "CIDer" not in {each.cell.model for each in found.rows}
    other = compare_models(compared(made_up), "w/o MCT")
    assert row_of(other).validation.verdict == "baseline not run"


def test_models_without_a_common_seed_are_not_compared(made_up):
    made_up.seeds([0.6])
    run = made_up.run(seed=9, maci__mcm=False)
    made_up.evaluate(run, {"acc2": 0.6, "f1": 0.6}, rates=[step / 10 for step in range(11)])
    found = compare_models(compared(made_up), "CIDer")
    assert row_of(found, model="w/o MCM").validation.verdict == "no common seed"


def test_csv_has_full_precision_and_empty_cells_for_what_is_not_there(made_up):
    made_up.seeds(EIGHT)
    rows = list(csv.DictReader(io.StringIO(render.comma_separated(compared(made_up)))))
    assert len(rows) == 30
    first = rows[0]
    assert first["cell"] == "V:CIDer:mosi:unaligned:ood:rmfm@auilc:acc2"
    assert float(first["honest_mean"]) == pytest.approx(100 * sum(EIGHT) / 8)
    assert float(first["honest_low"]) < float(first["honest_difference"])
    assert (first["published_selection_mean"], first["rate"]) == ("", "auilc")
    assert rows[-1]["honest_verdict"] == "not run"


def test_markdown_and_latex_have_a_line_per_cell(made_up):
    made_up.seeds(EIGHT)
    found = compared(made_up, models=("CIDer", "w/o MCM"))
    text = render.markdown(found)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6
    assert "| 65.8 | - | 66.9 +- 0.5 (8) | +1.1 |" in text
    assert text.startswith("Table V; mosi; unaligned; ood; rmfm@auilc; percent;")
    tex = render.latex(found)
    assert tex.count(r"\\") == 1 + 6
    assert r"66.9 $\pm$ 0.5 (8)" in tex
    assert r"95 \% interval" in tex
    assert tex.count("{") == tex.count("}")
    assert tex.isascii()


def test_command_prints_every_format(made_up, run_cli):
    made_up.seeds(EIGHT)
    made_up.run(seed=11)
    command = ("compare", "table5", "--model", "CIDer", "--results", made_up.results)
    code, out, err = run_cli(*command)
    assert code == 0
    assert "66.9 +- 0.5 (8 of 9)" in out
    assert "missing evaluations: 1" in err
    assert "--missing rmfm --rates 0:1:0.1" in err
    code, out, _ = run_cli(*command, "--json")
    data = json.loads(out)
    assert data["schema"] == "cider.compare/1"
    row = data["data"]["rows"][0]
    assert (row["cell"], row["published"]) == ("V:CIDer:mosi:unaligned:ood:rmfm@auilc:acc2", 65.8)
    assert row["honest_selection"]["seeds"] == 8
    assert row["published_selection"]["verdict"] == "not run"
    assert json.loads(run_cli(*command, "--format", "json")[1]) == data
    for form, beginning in (("md", "Table V"), ("csv", "cell,table"), ("latex", "% needs")):
        assert run_cli(*command, "--format", form)[1].startswith(beginning)


def test_command_shows_tables_of_several_corpora_and_units(made_up, run_cli):
    code, out, _ = run_cli("compare", "table7", "--results", made_up.results)
    assert code == 0
    assert "mosi>mosei" in out
    code, out, _ = run_cli("compare", "6", "--model", "MACI", "--results", made_up.results)
    assert code == 0
    assert "37405" in out
    assert "not of runs" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table3"], "unknown table 'table3'"),
        (["table5", "--model", "Cider"], "unknown model in table5 'Cider'"),
        (["table5", "--against", "w/o all"], "unknown model in table5 'w/o all'"),
        (["table5", "--where", "layers"], "a condition is FIELD=VALUE"),
        (["table5", "--where", "model.layer=2"], "no run has a field 'model.layer'"),
    ],
)
def test_command_refuses_what_it_does_not_know(made_up, run_cli, arguments, message):
    made_up.run()
    code, out, err = run_cli("compare", *arguments, "--results", made_up.results)
    assert (code, out) == (2, "")
    assert message in err


def test_unknown_table_is_refused_before_runs_are_read(tmp_path):
    with pytest.raises(UsageError, match="known: table4"):
        compare_table("table1", OurRuns.read(tmp_path))
