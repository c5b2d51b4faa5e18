"""Reports of grids and of studies."""

from dataclasses import replace

import pytest
from made_up_runs import write_made_up_run, write_row
from small_grid import Place
from small_study import SPACE, write_study

from cider.errors import NothingMatchedError, UsageError
from cider.spec import RunSpec
from cider_platform.grids.grid import store_grid
from cider_platform.layout import GridFolder, RunFolder, StudyFolder
from cider_platform.report.data import build
from cider_platform.report.gather import gather
from cider_platform.search.ledger import Ledger
from cider_platform.search.storage import Storage
from cider_platform.search.study import define, keep, write_definition

JOB = """
[base]
[axes]
dataset = ["tiny", "other"]
seed = "0:2"

[[axes.variant]]
name = "whole"

[[axes.variant]]
name = "without MCM"
"maci.mcm" = false
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Place with a stored grid of 4 cells, whose cells on tiny have run, with two rates."""
    place = Place(tmp_path_factory.mktemp("place"))
    grid = place.grid(JOB)
    store_grid(grid, GridFolder.of(place.results, grid.id))
    for cell in grid.cells:
        if cell.values["dataset"] == "tiny":
            for number, spec in enumerate(cell.specs):
                folder = write_made_up_run(place.results, spec, synthetic=True)
                for rate in (0.0, 1.0):
                    write_row(folder, {"acc2": 0.8 - 0.1 * rate + 0.01 * number}, rate=rate)
    return place


def test_grid_has_all_its_cells_and_says_what_has_not_begun(place):
    found = gather(place.results, ["demo"])
    report = build(found.subject, found.groups, against="variant=whole")
    assert report.subject.startswith("grid demo-")
    assert [each.name for each in report.configurations] == [
        "dataset=tiny, variant=whole", "dataset=tiny, variant=without MCM",
        "dataset=other, variant=whole", "dataset=other, variant=without MCM",
    ]  # fmt: skip
    states = [[run.state for run in each.runs] for each in report.configurations]
    assert states == [["COMPLETE"] * 2] * 2 + [["NOT BEGUN"] * 2] * 2
    assert [len(each.numbers) for each in report.configurations] == [3, 3, 0, 0]
    assert [each.configuration for each in report.comparisons] == [report.configurations[1].id]
    assert report.comparisons[0].compared.difference.mean == 0
    assert report.marks == ("synthetic",)
    assert "4 of 8 runs are not complete and have no numbers" in report.notes()


def test_cells_of_a_grid_are_chosen_by_their_axes(place):
    found = gather(place.results, ["demo"], ["dataset=tiny", "variant=whole"])
    (only,) = build(found.subject, found.groups).configurations
    assert only.labels == {"dataset": "tiny", "variant": "whole"}
    with pytest.raises(UsageError, match="one of dataset, variant"):
        gather(place.results, ["demo"], ["colour=red"])
    with pytest.raises(UsageError, match="chosen by its axes"):
        gather(place.results, ["demo"], ["state=done"])


def test_command_reports_a_grid(run_cli, place, tmp_path):
    options = ("--results", place.results, "--against", "variant=whole")
    code, out, err = run_cli("report", "demo", *options, "--out", tmp_path / "demo.md")
    assert (code, out.strip()) == (0, str(tmp_path / "demo.md"))
    assert "no star is possible" in err
    text = (tmp_path / "demo.md").read_text()
    assert "| tiny | whole | synthetic | 80.50 +- 0.71 |" in text
    assert "| other | whole | - | - |" in text
    assert text.count("NOT BEGUN") == 4


def test_study_has_the_runs_of_its_complete_trials(tmp_path):
    ledger = write_study(tmp_path, total=3)
    with pytest.raises(NothingMatchedError, match="study demo has no complete run"):
        gather(tmp_path, ["demo"])
    first, second = ledger.trials()[:2]
    for number, trial in enumerate((first, second)):
        spec = replace(RunSpec(), seed=number)
        folder = write_made_up_run(tmp_path, spec)
        target = RunFolder.of(tmp_path, trial.run)
        folder.root.rename(target.root)
        write_row(target, {"acc2": 0.7})
    found = gather(tmp_path, ["demo"])
    report = build(found.subject, found.groups)
    assert report.subject == "study demo"
    assert {run.id for run in report.runs} == {first.run, second.run}


def test_study_in_a_database_is_reported_with_its_storage(run_cli, tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    folder = StudyFolder.of(tmp_path, "kept")
    definition = define(RunSpec(), SPACE, sampler="random", pruner={"name": "none"})
    write_definition(folder, definition, Storage.parse(url))
    with keep(folder, Storage.parse(url)) as kept:
        ledger = Ledger(kept.storage, "kept", definition)
        proposal = ledger.ask(1)
        spec = replace(RunSpec(), seed=5)
        write_row(write_made_up_run(tmp_path, spec), {"acc2": 0.7})
        ledger.note(proposal.number, run=spec.run_id)
        ledger.complete(proposal.number, 0.7)
    words = ("report", "kept", "--results", tmp_path, "--out", tmp_path / "r.md")
    code, _, err = run_cli(*words, "--storage", url)
    assert code == 0, err
    assert spec.run_id in (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "# Report: study kept" in (tmp_path / "r.md").read_text(encoding="utf-8")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    code, _, err = run_cli(*words, "--storage", other)
    assert code == 3
    assert "there is no database" in err
    words = ("report", spec.run_id[:6], *words[2:])
    assert run_cli(*words, "--storage", other)[0] == 0
    code, _, err = run_cli("report", "kept", *words[2:])
    assert code == 3
    assert "which --storage must name" in err
