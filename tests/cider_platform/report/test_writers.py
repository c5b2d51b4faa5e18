"""A report as Markdown, CSV, JSON and LaTeX."""

import csv
import io
import json
import re

import pytest
from latex import PDFLATEX, compile_latex
from made_up_runs import made_up_spec, write_seeds

from cider_platform.evidence import render
from cider_platform.evidence.comparison import compare_table
from cider_platform.evidence.ours import OurRuns
from cider_platform.report.data import Group, build
from cider_platform.report.gather import gather
from cider_platform.report.writers import WRITERS
from cider_platform.results import all_runs

needs_latex = pytest.mark.skipif(not PDFLATEX, reason="pdflatex is not installed")
EVIL = "a|b_<i>&%$#{}\\~^\"'"


def made(results, **options):
    found = gather(results, ())
    return build(found.subject, found.groups, **options)


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """Report whose only label means something to every format."""
    root = tmp_path_factory.mktemp("evil")
    write_seeds(root, (0.8, 0.7))
    group = Group(records=all_runs(root), labels={"variant": EVIL, "formula": "=1+1"})
    return build("grid evil", [group])


def test_command_writes_every_format_and_says_which_file(run_cli, two, tmp_path):
    for name in ("r.html", "r.md", "r.tex", "r.csv", "r.json"):
        code, out, err = run_cli("report", "--results", two, "--out", tmp_path / name,
                                 "--against", "maci.mcm=true")  # fmt: skip
        assert (code, out.strip()) == (0, str(tmp_path / name))
        assert "4 tests (sign flips" in err
        assert (tmp_path / name).stat().st_size > 1000


def test_command_refuses_an_unknown_ending_and_a_folder(run_cli, two, tmp_path):
    code, _, err = run_cli("report", "--results", two, "--out", tmp_path / "r.docx")
    assert code == 2
    assert "one of .html, .md, .tex, .csv, .json" in err
    code, _, err = run_cli("report", "--results", two, "--out", tmp_path, "--format", "md")
    assert code == 2
    assert "must be a file" in err
    assert list(tmp_path.iterdir()) == []


def test_command_ends_with_3_where_nothing_matches(run_cli, two, tmp_path):
    code, _, err = run_cli("report", "nothing", "--results", two, "--out", tmp_path / "r.md")
    assert (code, list(tmp_path.iterdir())) == (3, [])
    assert "nothing" in err


def test_markdown_has_means_differences_and_runs(two):
    text = WRITERS["md"](made(two, against="maci.mcm=true"))
    assert re.search(r"\| false \| 71\.12 \+- 2\.85 \| 61\.12", text)
    assert "| maci.mcm | 0 | 0.5 | 1 | AUILC | seeds |" in text
    assert re.search(
        r"\| false \| smm L \| acc2 \| -9\.50 \| .* \| 0\.00781 \| 0\.0312\\\* \|", text
    )
    assert made_up_spec(3).run_id in text


def test_markdown_tables_keep_their_columns_whatever_names_hold(evil):
    lines = WRITERS["md"](evil).splitlines()
    for line in lines:
        if line.startswith("|"):
            columns = len(re.findall(r"(?<!\\)\|", line))
            assert columns in {8, 9, 11}, line
    assert "<i>" not in WRITERS["md"](evil).replace("\\<i\\>", "")


def test_csv_has_a_row_per_seed_with_full_precision_and_no_formula(two, evil):
    rows = list(csv.DictReader(io.StringIO(WRITERS["csv"](made(two, metrics=["all"])))))
    # 2 configurations, 8 seeds, 2 metrics, 2 protocols of 3 rates and an area, 2 kept sets.
    assert len(rows) == 2 * 8 * 2 * (2 * 4 + 2)
    row = next(r for r in rows if r["run"] == made_up_spec(3).run_id and r["rate"] == "0.5")
    assert (row["seed"], float(row["value"]), row["seeds"]) == ("3", pytest.approx(0.68), "8")
    assert all(r["run"] for r in rows)
    assert "variant=" in WRITERS["csv"](evil)
    formula = build("x", [Group(records=(), labels={"=1": "2"}, absent={"feed": 1})])
    assert WRITERS["csv"](formula).count("\n") == 1


def test_json_is_a_versioned_document_whose_numbers_have_runs(two):
    document = json.loads(WRITERS["json"](made(two, against="maci.mcm=true")))
    assert document["schema"] == "cider.report/1"
    numbers = [n for c in document["data"]["configurations"] for n in c["numbers"]]
    assert numbers
    assert all(len(n["runs"]) == len(n["seeds"]) == 8 for n in numbers)
    assert document["data"]["comparisons"][0]["smallest_p"] == 2 / 2**8


def balanced(text):
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", re.sub(r"\\\\", "", text)):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    return depth == 0


def test_latex_is_a_whole_document_with_every_name_escaped(two, evil):
    for report in (made(two, against="maci.mcm=true"), evil):
        text = WRITERS["latex"](report)
        assert text.startswith(r"\documentclass{article}")
        assert text.endswith("\\end{document}\n")
        assert text.isascii()
        assert balanced(text)
        for name in ("table", "tabular", "document"):
            assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}")
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        columns = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
        counts = {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows}
        assert counts == {len(each) for each in columns}
    assert r"a\textbar{}b\_\textless{}i\textgreater{}\&\%\$\#\{\}\textbackslash{}" in text


@needs_latex
def test_latex_compiles_as_it_is(two, evil, tmp_path):
    for name, report in (("two", made(two, against="maci.mcm=true")), ("evil", evil)):
        compile_latex(WRITERS["latex"](report), tmp_path / f"{name}.tex")


@needs_latex
def test_latex_of_published_tables_compiles_page_by_page(two, tmp_path):
    """All 360 rows of table XIII, in a report and as compare prints them."""
    comparison = compare_table("table13", OurRuns.read(two))
    text = WRITERS["latex"](published_only(two, comparison))
    log = compile_latex(text, tmp_path / "report.tex")
    assert text.count(", continued.") == 7
    assert "Float too large" not in log
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\usepackage[T1]{fontenc}"
    body = rf"{document}\begin{{document}}{render.latex(comparison)}\end{{document}}"
    assert "Float too large" not in compile_latex(body, tmp_path / "compare.tex")


def published_only(results, comparison):
    found = gather(results, ())
    return build(found.subject, found.groups, published=[comparison])


def test_star_stands_only_where_it_can_be_reached(tmp_path, two):
    assert r"0.0312*" in WRITERS["latex"](made(two, against="maci.mcm=true"))
    write_seeds(tmp_path, (0.8, 0.9, 0.85, 0.83, 0.86))
    write_seeds(tmp_path, (0.5, 0.6, 0.55, 0.53, 0.52), maci__mcm=False)
    few = made(tmp_path, against="maci.mcm=true")
    assert "no star is possible, it takes 6 seeds" in WRITERS["latex"](few)
    assert not re.search(r"0\.\d+\*", WRITERS["latex"](few))
