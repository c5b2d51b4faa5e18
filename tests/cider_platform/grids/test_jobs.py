"""Job files: what may stand in them, what their cells are, and what is refused."""

import math
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cider.errors import UsageError
from cider_platform.cli import app
from cider_platform.commands.options import SpecOptions, build_spec
from cider_platform.grids.cells import expand
from cider_platform.grids.job import read_job
from cider_platform.grids.job_files import find_job, read_document, shipped_jobs
from cider_platform.grids.specs import seeds_of, spec_of

ROOT = Path(__file__).resolve().parents[3]
HEADER = re.compile(
    r"Cells: (?P<cells>\d+)\. (?:Searches: (?P<searches>\d+) of (?P<trials>\d+) trials\. )?"
    r"Runs: (?P<runs>\d+)\."
)


def job_of(text, *, axes=(), settings=()):
    return read_job("demo", tomllib.loads(text), axes=axes, settings=settings)


def cells_of(text, **given):
    return expand(job_of(text, **given))


def labels(cells):
    return [tuple(cell.values.values()) for cell in cells]


# The shipped jobs


def test_shipped_jobs_are_the_ones_that_are_documented():
    assert set(shipped_jobs()) == {
        "smoke", "paper_table4", "paper_table5_ablation", "paper_table7_cross_dataset",
        "paper_table8_protocols", "paper_table9_smm", "paper_table10_12_complete", "paper_search",
        "robustness_sweep", "synthetic_ablation",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(shipped_jobs()))
def test_shipped_job_expands_to_the_counts_of_its_header(name):
    path = find_job(name)
    text = path.read_text(encoding="utf-8")
    (said,) = HEADER.finditer(text)
    cells = expand(read_job(*read_document(path)))
    assert len(cells) == int(said["cells"])
    assert sum(len(cell.seeds) for cell in cells) == int(said["runs"])
    searches = [cell.search for cell in cells if cell.search is not None]
    assert len(searches) == int(said["searches"] or 0)
    assert {block.trials for block in searches} == ({int(said["trials"])} if searches else set())
    assert text.startswith("# ")
    assert text.splitlines()[0].endswith("?"), "a job says first which question it answers"
    row = next(line for line in (ROOT / "jobs/README.md").read_text().splitlines()
               if line.startswith(f"| `{name}` |"))  # fmt: skip
    assert row.split("|")[3:5] == [f" {said['cells']} ", f" {said['runs']} "]


def test_smoke_has_the_shape_of_the_papers_tables():
    cells = expand(read_job(*read_document(find_job("smoke"))))
    assert len(cells) >= 8
    data = [cell.spec.data for cell in cells]
    assert {each.dataset.split("-x")[0] for each in data} == {"synthetic-mosi", "synthetic-mosei"}
    assert {each.distribution for each in data} == {"iid", "ood"}
    assert len({cell.spec.missing.protocol for cell in cells}) == 3


def test_jobs_of_the_paper_share_runs():
    def runs(name):
        cells = expand(read_job(*read_document(find_job(name))))
        return {run for cell in cells for run in cell.run_ids}

    assert runs("paper_table9_smm") < runs("paper_table8_protocols")
    assert len(runs("paper_table10_12_complete") & runs("paper_table4")) == 32
    assert runs("paper_table7_cross_dataset") < runs("paper_table10_12_complete")


# Cells


def test_cell_and_train_command_that_say_the_same_are_one_run():
    options = SpecOptions(
        dataset="synthetic-mosi-x0.1", scale=None, alignment="aligned", distribution="ood",
        task="seven_class", model="late_fusion", missing="smm", kept="LA", behaviour="released",
        encoder="scratch", seed=3, epochs=None, maci=None, selection="validation",
        settings=["model.dropout=0.2", "selection.rates=0,0.3", "training.patience=2"],
    )  # fmt: skip
    names = ("dataset", "alignment", "distribution", "task", "model", "missing", "kept",
             "behaviour", "encoder", "seed", "selection")  # fmt: skip
    values = {name: getattr(options, name) for name in names}
    values |= {"model.dropout": 0.2, "selection.rates": [0, 0.3], "training.patience": "2"}
    assert spec_of(values) == build_spec(options)


def test_cells_are_in_row_major_order_and_named_by_their_axes():
    cells = cells_of(
        """
        [base]
        dataset = "a"
        [axes]
        distribution = ["iid", "ood"]
        model.layers = [1, 2]
        missing = ["rmfm", "rmm"]
        """
    )
    expected = [
        (first, second, third)
        for first in ("iid", "ood")
        for second in ("1", "2")
        for third in ("rmfm", "rmm")
    ]
    assert labels(cells) == expected
    assert list(cells[0].values) == ["distribution", "model.layers", "missing"]
    assert [cell.spec.model.layers for cell in cells[:4]] == [1, 1, 2, 2]


def test_dotted_keys_and_nested_tables_are_the_same_job():
    flat = cells_of('[base]\n"training.epochs" = 5\n"missing.train_rate" = "per_position"')
    nested = cells_of('[base.training]\nepochs = 5\n[base.missing]\ntrain_rate = "per_position"')
    assert [cell.id for cell in flat] == [cell.id for cell in nested]
    assert flat[0].spec.training.epochs == 5


def test_exclude_leaves_out_what_it_names_and_nothing_else():
    text = """
        [axes]
        alignment = ["unaligned", "aligned"]
        missing = ["rmfm", "tmfm", "stmfm"]
        [[exclude]]
        alignment = "unaligned"
        missing = ["tmfm", "stmfm"]
        """
    expected = [("unaligned", "rmfm")]
    expected += [("aligned", name) for name in ("rmfm", "tmfm", "stmfm")]
    assert labels(cells_of(text)) == expected
    assert labels(cells_of(text, axes=["missing=rmfm"])) == [("unaligned", "rmfm"),
                                                             ("aligned", "rmfm")]  # fmt: skip


def test_variants_are_named_sets_of_fields():
    text = """
        [axes]
        task = ["three_class", "seven_class"]
        [[axes.variant]]
        name = "whole"
        [[axes.variant]]
        name = "without MACI"
        "maci.mcm" = false
        "maci.counterfactual" = false
        """
    cells = cells_of(text)
    assert labels(cells)[1] == ("three_class", "without MACI")
    assert [cell.spec.maci.mcm for cell in cells] == [True, False, True, False]
    (only,) = cells_of(text, axes=["variant=without MACI", "task=seven_class"])
    assert not only.spec.maci.counterfactual


def test_command_line_narrows_replaces_and_adds_axes():
    text = '[axes]\ndataset = ["mosi", "mosei"]\nseed = "0:8"\n'
    cells = cells_of(text, axes=["dataset=mosei", "seed=2:4", "missing=rmfm,rmm"],
                     settings=["training.epochs=7"])  # fmt: skip
    assert labels(cells) == [("mosei", "rmfm"), ("mosei", "rmm")]
    assert {cell.seeds for cell in cells} == {(2, 3)}
    assert {cell.spec.training.epochs for cell in cells} == {7}


@pytest.mark.parametrize(
    ("value", "seeds"),
    [("0:3", [0, 1, 2]), ("5", [5]), ("3,1", [3, 1]), (4, [4]), ([7, 8], [7, 8])],
)
def test_seeds_are_ranges_lists_or_numbers(value, seeds):
    assert seeds_of("axes.seed", value) == seeds


@pytest.mark.parametrize("value", ["3:3", "4:2", "a", "-1:2", [], [1.5], [True], "0:1000000000"])
def test_seeds_of_another_form_are_refused(value):
    with pytest.raises(UsageError, match="must be FIRST:LAST"):
        seeds_of("axes.seed", value)


def test_evaluation_names_each_condition_once_and_follows_the_cell():
    (cell,) = cells_of(
        '[base]\nmissing = "rmm"\n[evaluate]\nprotocols = ["own", "rmm", "smm", "none"]\n'
        'rates = "0:1:0.5"\nkept = ["L", "AV"]'
    )
    expected = ["rmm@0", "rmm@0.5", "rmm@1", "smm/L", "smm/AV", "none@0"]
    assert list(map(str, cell.conditions)) == expected


def test_evaluation_without_rates_is_at_rate_0_and_those_of_the_selection():
    (cell,) = cells_of('[base]\n"selection.rates" = [0.2, 0.6]')
    assert list(map(str, cell.conditions)) == ["rmfm@0", "rmfm@0.2", "rmfm@0.6"]


def test_search_space_leaves_out_what_the_job_sets():
    (cell,) = cells_of('[base]\n"model.layers" = 3\n[search]\ntrials = 9\nfinal_seeds = "0:2"')
    paths = [text.split("=")[0] for text in cell.search.space]
    assert "model.heads" in paths
    assert "model.layers" not in paths
    assert cell.seeds == (0, 1)
    assert cell.spec.seed == cell.search.seed


# Refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ax]\n", r"unknown block 'ax'; did you mean axes\?.*base"),
        ("[axes]\ndatset = ['mosi']", r"unknown field in \[axes\] 'datset'; did you mean dataset"),
        ("[axes]\n'training.epoch' = [3]", r"did you mean training\.epochs\?"),
        ("[base]\n'model.layerz' = 3", r"did you mean model\.layers\?"),
        ("[base]\nmodel = 'late_fusion'\n'model.heads' = 2", r"unknown field in this job 'model"),
        ("[base]\n'data.content_sha256' = 'aa'", "unknown field"),
        ("[search]\ntrails = 3", r"unknown key in \[search\] 'trails'; did you mean trials\?"),
        ("[evaluate]\nprotocol = ['rmm']", r"did you mean protocols\?"),
        ("[execution]\nslot = 3", r"did you mean slots\?.*threads"),
        ("[evaluate]\nprotocols = ['rmfn']", "unknown missing protocol 'rmfn'; known: none, rmfm"),
        ("[axes]\nmodel = ['cidr']", "unknown model 'cidr'; known: cider"),
        ("[axes]\nmissing = ['rmfm', 'rmfm']", "none twice"),
        ("[axes]\nmissing = []", "at least one"),
        ("[axes]\nseed = [1, 1]", "same seed twice"),
        ("[axes]\nmissing = ['tmfm']", r"needs aligned data.*\(cell missing=tmfm\)"),
        ("[evaluate]\nprotocols = ['tmfm']", "needs aligned data"),
        ("[axes]\ntask = ['three_class']\n[[exclude]]\ntask = 'three_class'", "no cell left"),
        ("[axes]\ntask = ['three_class']\n[[exclude]]\ntask = 'two'", "a value the axis does not"),
        ("[axes]\ntask = ['three_class']\n[[exclude]]\nmodel = 'cider'", "which is no axis"),
        ("[[exclude]]\n", "is empty"),
        ("[axes]\nseed = '0:2'\n[search]\n", r"search\.final_seeds; leave out the axis seed"),
        ("[search]\nfinal_seeds = [1111]", "the seed that is searched with"),
        ("[evaluate]\nrates = [1.5]", r"evaluate\.rates must be in \[0\.0, 1\.0\], got 1\.5"),
        ("[execution]\nslots = 0", "must be above 0"),
        ("[base]\ntraining = 3", "unknown field in"),
        ("base = 3", r"\[base\] must be a table"),
        ("[[axes.variant]]\nname = 'a'\n'loss.joint' = 0.0\n[[axes.variant]]\nname = 'b'\n"
         "'loss.joint' = 0", "two cells are the same: variant=a, and variant=b"),
        ("[axes]\n'loss.joint' = [0.0, 1.0]\n[[axes.variant]]\nname = 'a'\n'loss.joint' = 0.5",
         "loss.joint is both an axis and set by a variant"),
        ("[base]\n'training.epochs' = inf", "finite number"),
        ("[base]\n'training.epochs' = 2020-01-01", "finite number"),
        ("[axes]\n" + "\n".join(f"'loss.{name}' = [{', '.join(map(str, range(60)))}]"
         for name in ("joint", "attention", "reconstruction")), "more than 100,000 cells"),
    ],
)  # fmt: skip
def test_job_with_a_fault_is_refused_in_one_sentence_that_names_it(text, message):
    with pytest.raises(UsageError, match=message) as refusal:
        cells_of(text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1_500


@pytest.mark.parametrize(
    ("axes", "settings", "message"),
    [
        (["dataset"], [], "--axis must be NAME=VALUE"),
        (["datset=a"], [], "did you mean dataset"),
        (["dataset=a", "dataset=b"], [], "given twice"),
        ([], ["training.epochs"], "--set must be FIELD=VALUE"),
        ([], ["dataset=a"], "dataset is an axis of this job; give --axis dataset=a"),
        ([], ["seed=3"], "give --axis seed=3"),
        (["variant=x"], [], "no variant 'x'; known: none"),
    ],
)
def test_command_line_with_a_fault_is_refused(axes, settings, message):
    with pytest.raises(UsageError, match=message):
        cells_of('[axes]\ndataset = ["mosi"]', axes=axes, settings=settings)


EVIL = (
    "../../x", "/etc/passwd", "a/../../b", "..", "~/x", "$(touch pwned)", "`touch pwned`",
    "a; touch pwned", "a && touch pwned", "a | sh", "{{ 7 * 7 }}", "${HOME}", "%(x)s", "{0.x}",
    "a\nb", "a\u001b[2J", "file://x", "a\\b", "-rf", "x" * 500, "\u202eabc", "a\u0000b",
)  # fmt: skip


def toml_text(value):
    return '"' + "".join(
        char if char.isprintable() and char not in '"\\' else f"\\u{ord(char):04x}"
        for char in value
    ) + '"'  # fmt: skip


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
@pytest.mark.parametrize(
    "place",
    [
        "[axes]\ndataset = [{}]",
        "[base]\ndataset = {}",
        "[base]\nencoder = {}",
        "[base]\nmodel = {}",
        "[axes]\nmissing = [{}]",
        "[[axes.variant]]\nname = {}",
        "[[exclude]]\ndataset = {}",
        "[search]\nsampler = {}",
        "[search]\nspace = [{}]",
        "[evaluate]\nkept = [{}]",
        "[execution]\ndevice = {}",
        "[base]\n{} = 3",
        "[{}]\n",
    ],
)
def test_malicious_job_file_is_refused_and_nothing_is_run(place, evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "evil.toml"
    job.write_text(place.format(toml_text(evil)), encoding="utf-8")
    before = {path for path in tmp_path.rglob("*")}
    runner = CliRunner()
    result = runner.invoke(app, ["run", str(job), "--store", "store", "--results", "results"])
    assert isinstance(result.exception, UsageError), result.output
    assert str(result.exception).isprintable(), "nothing of it reaches the terminal as it is"
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../evil.toml", "Evil.toml", "a b.toml", ".toml", "$(x).toml"])
def test_job_file_with_an_improper_name_is_refused(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(UsageError, match=r"a job's name has|there is no job file"):
        read_document(path)


def test_job_files_that_are_no_job_files_are_refused(tmp_path):
    deep = tmp_path / "deep.toml"
    deep.write_text("x = " + "[" * 100_000, encoding="utf-8")
    big = tmp_path / "big.toml"
    big.write_bytes(b"#" * 1_000_001)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    for path, message in (
        (deep, "too deep|is not TOML"), (big, "larger than 1 MB"), (binary, "is not TOML"),
        (folder, "there is no job file"), (tmp_path / "none.toml", "there is no job file"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            read_document(path)


def test_unknown_job_names_the_nearest_and_all_there_are():
    with pytest.raises(UsageError, match=r"unknown job 'smok'; did you mean smoke\?.*paper_search"):
        find_job("smok")


def test_order_of_seeds_and_rates_of_evaluation_are_as_asked():
    (cell,) = cells_of("[axes]\nseed = [5, 1]\n[evaluate]\nrates = [0.9, 0.1]")
    assert [spec.seed for spec in cell.specs] == [5, 1]
    rates = [each.rate for each in cell.conditions]
    assert all(first > second for first, second in pairwise(rates))
    assert math.isclose(sum(rates), 1.0)
