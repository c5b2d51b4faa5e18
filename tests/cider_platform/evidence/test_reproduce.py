"""Published tables as grids: runs, what cannot be run, and the command from plan to report."""

import json

import pytest
from latex import PDFLATEX, compile_latex
from small_grid import Place
from tiny_corpus import write_tiny_corpus

from cider.errors import UsageError
from cider.published import TABLES, cells
from cider_platform.evidence.ours import OurRuns
from cider_platform.evidence.reproduce import (
    paper_grid,
    read_corpora,
    read_settings,
    tables_of,
)
from cider_platform.grids.grid import make_grid
from cider_platform.grids.job import read_job
from cider_platform.grids.job_files import find_job, read_document

SMALL = ("training.epochs=1", "model.width=8", "model.layers=1", "text_encoder.width=8",
         "text_encoder.layers=1", "training.batch_size=6")  # fmt: skip
SETS = [word for each in SMALL for word in ("--set", each)]


def runs_of(grid):
    return {run for cell in grid.cells for run in cell.run_ids}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Corpora under the published names: MOSI and MOSEI, unaligned, IID and OOD."""
    root = tmp_path_factory.mktemp("store")
    for dataset in ("mosi", "mosei"):
        for distribution in ("iid", "ood"):
            write_tiny_corpus(root, dataset, "unaligned", distribution, len(dataset))
    return root


@pytest.mark.parametrize(
    ("table", "job"),
    [
        ("table4", "paper_table4"),
        ("table5", "paper_table5_ablation"),
    ],
)
def test_runs_are_those_of_the_shipped_job(store, table, job):
    name, document = read_document(find_job(job))
    shipped = make_grid(read_job(name, document), store)
    made = paper_grid(tables_of([table]), store, rules=("validation",))
    assert runs_of(made.grid) == runs_of(shipped)
    assert {cell.id for cell in made.grid.cells} == {cell.id for cell in shipped.cells}
    both = paper_grid(tables_of([table]), store)
    assert runs_of(made.grid) < runs_of(both.grid)
    assert len(runs_of(both.grid)) == 2 * len(runs_of(made.grid))


def test_every_published_number_is_served_or_blocked_with_a_reason(store):
    made = paper_grid(tables_of(["all"]), store, rules=("validation",))
    assert made.cells == sum(len(cells(table)) for table in TABLES)
    assert sum(made.serves.values()) + sum(each.cells for each in made.blocked) == made.cells
    reasons = {each.what: each.reason for each in made.blocked}
    models = next(what for what in reasons if "GLoMo" in what)
    assert "no such model here" in reasons[models]
    assert "cider-platform complexity" in reasons["table VI"]
    assert (
        "cider-platform data import PATH --dataset mosi --alignment aligned"
        in reasons["mosi (aligned, iid)"]
    )
    assert reasons["mosi (aligned, cross_dataset)"].endswith(
        "data import PATH --dataset mosi --distribution cross_dataset"
    )


def test_tables_share_runs_and_their_conditions_come_together(store):
    made = paper_grid(tables_of(["4", "5", "13"]), store, rules=("validation",), models=["CIDer"])
    # MOSI and MOSEI, IID and OOD, two tasks: table V's whole model is table IV's.
    assert len(made.grid.cells) == 8
    (iid,) = [
        cell
        for cell in made.grid.cells
        if cell.values["dataset"] == "mosi" and cell.values["distribution"] == "iid"
        and cell.values["task"] == "three_class"
    ]  # fmt: skip
    assert [each.rate for each in iid.conditions] == [step / 10 for step in range(11)]
    alone = paper_grid(["X"], store, rules=("validation",), models=["CIDer"])
    assert {str(each) for cell in alone.grid.cells for each in cell.conditions} == {"none@0"}
    smm = paper_grid(["IX"], store, rules=("validation",))
    assert [each.kept for each in smm.grid.cells[0].conditions] == ["L", "A", "V", "LA", "LV", "AV"]


def test_empty_store_has_no_grid_and_nothing_synthetic_takes_its_place(tmp_path):
    made = paper_grid(["V"], tmp_path / "store")
    assert made.grid is None
    assert "--distribution ood --task three_class" in made.blocked[0].reason
    assert not (tmp_path / "store").exists()


def test_synthetic_corpus_has_no_cross_dataset_form_and_says_so(tmp_path):
    corpora = read_corpora(["synthetic-mosi-x0.02"])
    made = paper_grid(["VII"], tmp_path, models=["CIDer"], corpora=corpora)
    reasons = {each.what: each.reason for each in made.blocked}
    assert "iid, ood" in reasons["synthetic-mosi-x0.02 (aligned, cross_dataset)"]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], {"mosi": "mosi", "mosei": "mosei"}),
        (["mosi=tiny"], {"mosi": "tiny", "mosei": "mosei"}),
        (["synthetic-mosei-x0.10"], {"mosi": "mosi", "mosei": "synthetic-mosei"}),
        (["mosei", "mosi=mine"], {"mosi": "mine", "mosei": "mosei"}),
    ],
)
def test_dataset_option_names_what_stands_for_which_corpus(texts, found):
    assert read_corpora(texts) == found


@pytest.mark.parametrize("texts", [["tiny"], ["iemocap=x"], ["mosi="], ["mosi=a", "mosi=b"]])
def test_dataset_option_refuses_what_stands_for_nothing(texts):
    with pytest.raises(UsageError, match="--dataset names"):
        read_corpora(texts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.epochs", "--set must be FIELD=VALUE"),
        ("training.epoch=1", "training.epochs"),
        ("seed=3", "--seeds"),
        ("task=seven_class", "decided by the published cells"),
    ],
)
def test_settings_refuse_what_the_cells_decide(text, message):
    with pytest.raises(UsageError, match=message):
        read_settings([text])


def test_setting_that_every_row_has_fixed_is_refused_and_one_of_some_rows_is_not(store):
    with pytest.raises(UsageError, match=r"--set maci\.mcm would change"):
        paper_grid(["V"], store, settings={"maci.mcm": "false"})
    made = paper_grid(["V"], store, rules=("validation",), settings={"loss.attention": "0.2"})
    weights = {cell.values["model"]: cell.spec.loss.attention for cell in made.grid.cells}
    assert (weights["CIDer"], weights["w/o attn"]) == (0.2, 0.0)
    with pytest.raises(UsageError, match="does not stand for V:CIDer"):
        paper_grid(["V"], store, settings={"loss.attention": "0"})


def test_best_found_configuration_gets_its_further_seeds(made_up, store):
    # Made-up runs name a corpus of other content; here it is the stored one.
    content = paper_grid(["V"], store).grid.cells[0].spec.data.content_sha256
    encoder = {"text_encoder__source": "scratch", "data": {"content_sha256": content}}
    known = made_up.seeds([0.6, 0.61], model__layers=3, **encoder)
    ours = OurRuns.read(made_up.results)
    made = paper_grid(
        ["V"], store, rules=("validation",), models=["CIDer"], seeds=(0, 1, 2, 3), found=ours
    )
    searched, default = sorted(made.grid.cells, key=lambda cell: cell.spec.model.layers)[::-1]
    assert (searched.seeds, searched.run_ids[:2]) == ((1, 2, 0, 3), tuple(known))
    assert (default.seeds, default.spec.model.layers) == ((0, 1, 2, 3), 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store where MOSI's name stands for real features; its table X (complete input) is run."""
    made = Place(tmp_path_factory.mktemp("reproduce"))
    write_tiny_corpus(made.store, "mosi", synthetic=False)
    grid = paper_grid(
        ["X"], made.store, seeds=(0, 1, 2), models=["CIDer"], settings=read_settings(SMALL)
    ).grid
    assert set(made.run_inline(grid).values()) == {""}
    yield made
    made.stop()


def command(place, *words):
    return ("reproduce", "table10", "--seeds", "0:3", *SETS, "--slots", 1, "--device", "cpu",
            "--store", place.store, "--results", place.results, *words)  # fmt: skip


def test_command_prints_ours_beside_the_published_numbers_and_writes_the_report(
    place, run_cli, tmp_path
):
    target = tmp_path / "tables.md"
    code, out, err = run_cli(*command(place, "--out", target))
    assert code == 0, err
    # MOSEI is not stored: two tasks, two rules, three seeds are left.
    assert "4 configurations, 12 runs: 12 done, 0 to do; nothing to run" in err
    assert "data import PATH --dataset mosei --alignment unaligned" in out
    line = next(each for each in out.splitlines() if "CIDer" in each and "acc2" in each)
    assert "(3)" in line
    assert any(verdict in line for verdict in ("within", "above", "below", "equal seeds"))
    assert "not comparable" not in out + err
    assert any("mosei" in each and "not run" in each for each in out.splitlines())
    assert any("GLoMo" in each and "no such model" in each for each in out.splitlines())
    text = target.read_text(encoding="utf-8")
    assert "Table X" in text
    assert text.count("no such model") > 50


@pytest.mark.skipif(not PDFLATEX, reason="pdflatex is not installed")
def test_latex_report_of_real_runs_compiles(place, run_cli, tmp_path):
    code, _, err = run_cli(*command(place, "--out", tmp_path / "tables.tex"))
    assert code == 0, err
    text = (tmp_path / "tables.tex").read_text(encoding="ascii")
    assert r"\caption{Table X" in text
    log = compile_latex(text, tmp_path / "copy.tex")
    assert "Float too large" not in log


def test_command_as_json_has_plan_and_comparisons(place, run_cli, tmp_path):
    code, out, _ = run_cli(*command(place, "--model", "CIDer", "--json", "--out",
                                    tmp_path / "r.html"))  # fmt: skip
    assert code == 0
    data = json.loads(out)["data"]
    assert (data["plan"]["grid"]["done"], data["plan"]["grid"]["to_do"]) == (12, 0)
    (table,) = data["comparisons"]
    row = next(each for each in table["rows"] if each["cell"].endswith("none:acc2"))
    for side in ("published_selection", "honest_selection"):
        assert row[side]["seeds"] == 3
        assert row[side]["interval"] is None or len(row[side]["interval"]) == 2
    assert row["published_selection"]["marks"] == ["published selection"]
    assert "Published table X" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_dry_run_plans_what_is_missing_and_writes_nothing(place, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_cli(*command(place, "--seeds", "0:5", "--dry-run"))
    assert code == 0
    assert "4 configurations, 20 runs: 12 done, 8 to do" in err
    assert "3 of 5" in out
    assert list(tmp_path.iterdir()) == []
    code, out, _ = run_cli(*command(place, "--seeds", "0:5", "--dry-run", "--json"))
    assert json.loads(out)["data"]["plan"]["grid"]["to_do"] == 8


def test_nothing_that_can_be_run_is_exit_code_3_and_says_what_to_import(place, run_cli):
    code, out, err = run_cli("reproduce", "table5", "--store", place.store, "--results",
                             place.results)  # fmt: skip
    assert code == 3
    assert "nothing of table V can be run here" in err
    assert "--distribution ood --task three_class" in out


@pytest.mark.slow
def test_command_trains_evaluates_and_marks_every_line_of_another_corpus(place):
    words = ("table10", "--dataset", "mosi=tiny", "--model", "CIDer", "--selection",
             "validation", "--seeds", "0:1", *SETS, "--slots", 2, "--device", "cpu",
             "--out", "tiny.html")  # fmt: skip
    data = place.command("reproduce", *words, "--json")
    (table,) = data["comparisons"]
    measured = [each for each in table["rows"] if each["honest_selection"]["seeds"]]
    assert {each["metric"] for each in measured} == {"acc2", "f1", "acc7"}
    for row in measured:
        assert row["honest_selection"]["verdict"] == "synthetic: not comparable"
        assert row["honest_selection"]["difference"] is None
        assert row["honest_selection"]["marks"] == ["synthetic", "tiny in place of mosi"]
    assert {each["published_selection"]["verdict"] for each in table["rows"]} == {"not run"}
    messages = (place.root / "messages").read_text()
    assert "tiny stands in the place of mosi: its numbers are not comparable" in messages
    assert (place.root / "tiny.html").read_text().count("synthetic: not comparable") == 3
