"""The model of a report: what is grouped, averaged, compared and marked."""

from statistics import mean, stdev

import pytest
from made_up_runs import RATES, made_up_spec, write_made_up_run, write_row, write_seeds

from cider.errors import NothingMatchedError, UsageError
from cider.metrics import auilc
from cider.significance import compare_paired, summarise
from cider_platform.layout import RunFolder
from cider_platform.report.data import Group, build, by_configuration
from cider_platform.report.gather import gather
from cider_platform.report.model import Place
from cider_platform.results import all_runs, find_run

WITH = (0.80, 0.82, 0.78, 0.81, 0.79, 0.83, 0.80, 0.82)
WITHOUT = (0.70, 0.73, 0.66, 0.74, 0.70, 0.75, 0.71, 0.70)


def report_of(results, what=(), where=(), **options):
    found = gather(results, what, where)
    return build(found.subject, found.groups, **options)


def variant(report, value):
    return next(each for each in report.configurations if each.labels["maci.mcm"] == value)


def test_runs_that_differ_in_the_seed_alone_are_one_configuration(two):
    report = report_of(two)
    assert {each.name for each in report.configurations} == {"maci.mcm=true", "maci.mcm=false"}
    assert [len(each.runs) for each in report.configurations] == [8, 8]
    assert report.metrics == ("acc2",)
    assert report.marks == ()


def test_configurations_are_in_the_order_of_their_labels_whichever_ended_first(tmp_path):
    for layers in (10, 2, 4):
        write_seeds(tmp_path, (0.8,), model__layers=layers)
    found = [each.labels["model.layers"] for each in report_of(tmp_path).configurations]
    assert found == ["2", "4", "10"]


def test_number_is_the_mean_over_seeds_and_knows_its_runs(two):
    found = variant(report_of(two), "true").number(Place("rmfm", 0.5), "acc2")
    values = [base - 0.1 for base in WITH]
    assert found.values == pytest.approx(dict(enumerate(values, start=1)))
    assert found.summary.mean == pytest.approx(mean(values))
    assert found.summary.sd == pytest.approx(stdev(values))
    assert found.summary == summarise([found.values[seed] for seed in range(1, 9)])
    assert found.runs == {seed: made_up_spec(seed).run_id for seed in range(1, 9)}


def test_area_is_over_the_rates_that_were_evaluated(two):
    place = Place("rmfm", None, "", RATES)
    found = variant(report_of(two), "false").number(place, "acc2")
    expected = [auilc(RATES, [base - 0.2 * rate for rate in RATES]) for base in WITHOUT]
    assert list(found.values.values()) == pytest.approx(expected)
    assert [str(each) for each in report_of(two).places] == [
        "rmfm 0", "rmfm 0.5", "rmfm 1", "rmfm AUILC", "rmm 0", "rmm 0.5", "rmm 1", "rmm AUILC",
        "smm AV", "smm L",
    ]  # fmt: skip


def test_run_that_lacks_a_rate_has_no_area(tmp_path):
    write_seeds(tmp_path, (0.8, 0.7))
    lacking = write_made_up_run(tmp_path, made_up_spec(3))
    write_row(lacking, {"acc2": 0.9})
    write_row(lacking, {"acc2": 0.8}, rate=0.5)
    (found,) = report_of(tmp_path).configurations
    assert sorted(found.number(Place("rmfm", 0.0), "acc2").values) == [1, 2, 3]
    assert sorted(found.number(Place("rmfm", None, "", RATES), "acc2").values) == [1, 2]


def test_metrics_are_those_asked_for(two):
    assert report_of(two, metrics=["all"]).metrics == ("acc2", "f1")
    assert report_of(two, metrics=["f1"]).metrics == ("f1",)
    with pytest.raises(UsageError, match="brew"):
        report_of(two, metrics=["brew"])


def test_comparison_is_paired_over_common_seeds_and_corrected_over_all_tests(two):
    report = report_of(two, against="maci.mcm=true")
    # Two protocols with areas, and smm's two kept sets.
    assert sorted(str(each.place) for each in report.comparisons) == [
        "rmfm AUILC", "rmm AUILC", "smm AV", "smm L"
    ]  # fmt: skip
    found = next(each for each in report.comparisons if str(each.place) == "smm L")
    seeds = range(1, 9)
    first = {seed: value - 0.1 for seed, value in zip(seeds, WITHOUT, strict=True)}
    second = {seed: value - 0.1 for seed, value in zip(seeds, WITH, strict=True)}
    assert found.compared.difference.mean == pytest.approx(mean(WITHOUT) - mean(WITH))
    assert found.compared.test.p == compare_paired(first, second).test.p == 2 / 2**8
    assert found.adjusted_p == pytest.approx(4 * 2 / 2**8)
    assert found.star == "*"
    assert len(found.runs) == 16


def test_no_star_where_the_seeds_cannot_reach_it(tmp_path):
    write_seeds(tmp_path, WITH[:5])
    write_seeds(tmp_path, WITHOUT[:5], maci__mcm=False)
    report = report_of(tmp_path, against="maci.mcm=true")
    (found,) = report.comparisons
    assert (found.compared.test.p, found.star) == (0.0625, "")
    assert "no star is possible, it takes 6 seeds" in " ".join(report.notes())


def test_reference_may_be_a_run_of_a_configuration(two):
    run = made_up_spec(3).run_id
    report = report_of(two, against=run[:9])
    assert {each.configuration for each in report.comparisons} == {variant(report, "false").id}
    assert {each.reference for each in report.comparisons} == {variant(report, "true").id}


@pytest.mark.parametrize(
    ("against", "kind", "said"),
    [
        ("maci.mcm=maybe", UsageError, "values of maci.mcm: "),
        ("colour=red", UsageError, "labels: maci.mcm"),
        ("zzzz", NothingMatchedError, "no run of the report"),
    ],
)
def test_reference_that_is_none_is_refused_with_what_there_is(two, against, kind, said):
    with pytest.raises(kind, match=said):
        report_of(two, against=against)


def test_marks_of_runs_reach_their_configuration_and_the_report(tmp_path):
    write_seeds(tmp_path, (0.8,), dataset="synthetic-mosi")
    write_seeds(tmp_path, (0.8,), rule="published")
    imported = write_made_up_run(tmp_path, made_up_spec(7, model__layers=3), imported_from={})
    write_row(imported, {"acc2": 0.8})
    report = report_of(tmp_path)
    assert set(report.marks) == {"synthetic", "published selection", "imported weights"}
    assert sorted(each.marks for each in report.configurations) == [
        ("imported weights",), ("published selection",), ("synthetic",)
    ]  # fmt: skip


def test_run_that_failed_is_shown_without_numbers(two):
    failed = made_up_spec(99, maci__mcm=False).run_id
    report = report_of(two, [failed, made_up_spec(1).run_id])
    run = next(run for run in report.runs if run.id == failed)
    assert (run.state, run.error) == ("FAILED", "the loss is <b>not</b> finite")
    assert "1 of 2 runs are not complete and have no numbers" in report.notes()


def test_run_that_was_not_evaluated_is_told_with_the_command(tmp_path):
    spec = made_up_spec()
    write_made_up_run(tmp_path, spec)
    notes = " ".join(report_of(tmp_path).notes())
    assert f"cider-platform evaluate {spec.run_id}" in notes


def test_provenance_of_a_run_is_in_its_json(two):
    report = report_of(two)
    run = report.configurations[0].runs[0]
    assert run.provenance["git"] == "c0ffee"
    assert run.provenance["differs_from_commit"] is True
    assert report.to_dict()["configurations"][0]["runs"][0]["provenance"] == run.provenance


def test_where_chooses_runs_and_unknown_names_say_what_there_is(two):
    report = report_of(two, where=["maci.mcm=false"])
    assert [each.labels for each in report.configurations] == [{}]
    assert report.subject == "maci.mcm=false"
    with pytest.raises(NothingMatchedError, match="also made of a grid"):
        report_of(two, ["nothing"])
    with pytest.raises(UsageError, match="leave it out"):
        report_of(two, [made_up_spec().run_id], ["maci.mcm=false"])
    with pytest.raises(NothingMatchedError, match="meets seed=12345"):
        report_of(two, where=["seed=12345"])


def test_run_of_a_group_that_has_no_folder_is_not_begun(tmp_path):
    write_seeds(tmp_path, (0.8,))
    records = all_runs(tmp_path)
    group = Group(records=records, labels={"variant": "whole"}, absent={"feed": 2})
    (found,) = build("grid g", [group]).configurations
    assert [(run.seed, run.state) for run in found.runs] == [(1, "COMPLETE"), (2, "NOT BEGUN")]
    assert found.name == "variant=whole"


def test_two_runs_of_one_seed_in_a_configuration_are_refused(tmp_path):
    (run,) = write_seeds(tmp_path, (0.8,))
    record = find_run(tmp_path, run)
    copy = RunFolder.of(tmp_path, "f" * 16)
    copy.root.mkdir()
    for path in (record.folder.spec, record.folder.status):
        (copy.root / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="of one configuration and seed 1"):
        build("x", by_configuration(all_runs(tmp_path)))
