"""Which of our runs stand for a published cell, and what they have for it."""

import pytest

from cider.models import names
from cider.published import TABLES, cell, cells
from cider.spec import RunSpec
from cider_platform.commands.options import SpecOptions, build_spec
from cider_platform.evidence.ours import OurRuns
from cider_platform.evidence.paper_runs import ABLATIONS, wanted_run
from cider_platform.evidence.quantity import Quantity
from cider_platform.tables import flat

AREA = cell("IV:CIDer:mosi:unaligned:ood:rmfm@auilc:acc2")
COMPLETE = cell("IV:CIDer:mosi:unaligned:ood:none:acc2")
RATES = [step / 10 for step in range(11)]


def of(made_up, place, rule="validation", **options):
    return OurRuns.read(made_up.results, **options).of(place, rule)


def test_cell_without_a_fitting_run_is_not_run(made_up):
    assert of(made_up, AREA).state == "not run"
    made_up.run(data={"distribution": "iid"})
    made_up.run(data={"dataset": "mosei"})
    made_up.run(data={"task": "seven_class"})
    made_up.run(data={"alignment": "aligned"})
    made_up.run(missing__protocol="rmm")
    made_up.run(maci__mcm=False)
    made_up.run(rule="published")
    made_up.run(seed=7, state="FAILED")
    made_up.run(seed=8, synthetic=True)
    assert of(made_up, AREA).state == "not run"
    assert of(made_up, AREA, "published").state == "not evaluated"


def test_run_that_fits_gives_its_area_in_percent_by_seed(made_up):
    runs = made_up.seeds([0.60, 0.64])
    found = of(made_up, AREA)
    assert found.state == "measured"
    assert found.values == pytest.approx({1: 60.0, 2: 64.0})
    assert found.runs == tuple(runs)
    assert (found.evaluate, found.marks) == ((), ())
    assert found.summary.mean == pytest.approx(62.0)


def test_run_without_its_evaluation_names_the_command_that_makes_it(made_up):
    run = made_up.run()
    made_up.evaluate(run, {"acc2": 0.7}, rates=RATES[:-1])  # one rate of eleven is missing
    found = of(made_up, AREA)
    assert (found.state, found.values) == ("not evaluated", {})
    assert found.evaluate == (f"cider-platform evaluate {run} --missing rmfm --rates 0:1:0.1",)
    assert of(made_up, COMPLETE).values == pytest.approx({1: 70.0})


def test_seed_that_was_not_evaluated_is_missing_beside_those_that_were(made_up):
    made_up.seeds([0.60, 0.64])
    late = made_up.run(seed=3)
    found = of(made_up, AREA)
    assert (found.state, sorted(found.values)) == ("measured", [1, 2])
    assert [each.split()[2] for each in found.evaluate] == [late]


def test_configuration_with_most_seeds_stands_whatever_the_test_says(made_up):
    made_up.seeds([0.60, 0.61])
    made_up.seeds([0.99], score=0.99, model__layers=3)
    assert of(made_up, AREA).summary.num_seeds == 2


def test_best_validation_score_decides_among_configurations_and_never_the_test(made_up):
    made_up.seeds([0.90], score=0.70)
    better_on_validation = made_up.seeds([0.50], score=0.71, model__layers=3)
    assert of(made_up, AREA).runs == tuple(better_on_validation)


def test_scores_that_do_not_compare_choose_nothing(made_up):
    runs = made_up.seeds([0.6]) + made_up.seeds([0.7], selection__rates=(0.0,))
    found = of(made_up, AREA)
    assert found.state == "several configurations"
    assert set(found.runs) == set(runs)
    assert of(made_up, AREA, where=["selection.rates!=0.5"]).state == "measured"


def test_imported_weights_stand_for_the_published_selection_where_nothing_else_does(made_up):
    theirs = made_up.seeds([0.65], imported=True, model__layers=3)
    assert of(made_up, AREA).state == "not run"
    found = of(made_up, AREA, "published")
    assert found.runs == tuple(theirs)
    assert found.marks == ("imported weights",)
    trained = made_up.seeds([0.60], rule="published")
    assert of(made_up, AREA, "published").runs == tuple(trained)


def test_synthetic_runs_stand_only_where_they_are_asked_for_and_are_marked(made_up):
    made_up.seeds([0.6], data={"dataset": "synthetic-mosi-x0.5"}, synthetic=True)
    made_up.seeds([0.9], synthetic=True)  # a generated corpus under a real name
    assert of(made_up, AREA).state == "not run"
    found = of(made_up, AREA, synthetic=True, where=["dataset=synthetic-mosi-x0.5"])
    assert found.values == pytest.approx({1: 60.0})
    assert found.marks == ("synthetic",)


def test_model_that_is_not_here_says_so_and_table_vi_is_not_of_runs(made_up):
    assert of(made_up, cell("IV:DMD:mosi:unaligned:ood:none:acc2")).state == "no such model"
    assert of(made_up, cell("VI:CIDer:parameters")).state == "not of runs"


def test_every_ablation_is_found_by_the_fields_that_leave_its_part_out(made_up):
    full = made_up.run(score=0.99)
    ids = {}
    for name, fields in ABLATIONS.items():
        options = {path.replace(".", "__"): value for path, value in fields.items()}
        ids[name] = made_up.run(**options)
    places = {each.model: each for each in cells("V") if each.metric == "acc2"}
    assert set(places) == {*ABLATIONS, "CIDer"}
    runs = {name: of(made_up, place).runs for name, place in places.items()}
    assert runs == {name: (run,) for name, run in ids.items()} | {"CIDer": (full,)}


def test_published_models_are_looked_for_under_their_names_and_training_protocol():
    known = {"emt_dlfr", "mplmm", "dlf", "cider"}

    def wanted(address):
        return wanted_run(cell(address), known)

    assert wanted("IV:EMT-DLFR:mosi:unaligned:ood:none:acc2").model == "emt_dlfr"
    assert wanted("IV:DMD:mosi:unaligned:ood:none:acc2") is None
    assert wanted("IV:DLF:mosi:unaligned:ood:none:acc2").fields["maci.mcm"] is False
    assert wanted("IV:DLF+MACI:mosi:unaligned:ood:none:acc2").fields["maci.mcm"] is True
    assert wanted("VIII:CIDer:mosi:unaligned:iid:rmm@auilc:acc2").protocol == "rmfm"
    assert wanted("VIII:MPLMM:mosi:unaligned:iid:rmm@auilc:acc2").protocol == "rmm"
    assert wanted("X:MPLMM (trained for RMM):mosi:unaligned:iid:none:f1").protocol == "rmm"
    traditional = "X:MPLMM (trained for Traditional RMFM):mosi:unaligned:iid:none:f1"
    assert wanted(traditional).protocol == "rmfm_per_modality"
    assert wanted("X:MPLMM RMFM:mosi:unaligned:iid:none:f1").protocol == "rmfm"


def test_options_of_a_wanted_run_make_a_spec_that_fits():
    places = [each for table in TABLES if table != "VI" for each in cells(table)]
    seen, models = {}, names()
    for place in places:
        if (found := wanted_run(place, models)) is not None:
            seen.setdefault(repr(found), found)
    assert len(seen) > 20
    for found in seen.values():
        words = found.options(rule="validation", seed=5)
        pairs = list(zip(words[::2], words[1::2], strict=True))
        given = {name[2:]: value for name, value in pairs if name != "--set"}
        spec = build_spec(
            SpecOptions(
                scale=None, kept="", behaviour="corrected", encoder="", epochs=None, maci=None,
                settings=[value for name, value in pairs if name == "--set"],
                **given | {"seed": int(given["seed"])},
            )
        )  # fmt: skip
        assert found.fits(dict(flat(spec.to_dict())))
        assert isinstance(spec, RunSpec)
        assert (spec.data.dataset, spec.seed) == (found.dataset, 5)


def test_complete_input_is_the_same_under_every_protocol():
    tested = {("rmm", 0.0, ""): {"acc2": 0.8}}
    assert Quantity.of(COMPLETE).value(tested) == 0.8
    # A kept set is stored with rate 0, and is not complete.
    assert Quantity.of(COMPLETE).value({("smm", 0.0, "LA"): {"acc2": 0.8}}) is None


def test_kept_set_is_found_and_asked_for_by_its_letters():
    place = cell("IX:CIDer:mosi:unaligned:iid:smm/LA:acc2")
    assert Quantity.of(place).value({("smm", 0.0, "LA"): {"acc2": 0.8}}) == 0.8
    assert Quantity.of(place).value({("smm", 0.0, "L"): {"acc2": 0.8}}) is None
    assert Quantity.of(place).command("ab").endswith("evaluate ab --missing smm --kept LA")
    at_rate = cell("XIII:CIDer:mosi:unaligned:iid:rmfm@0.3:acc2")
    assert Quantity.of(at_rate).command("ab").endswith("--missing rmfm --rates 0.3")
    assert Quantity.of(COMPLETE).command("ab").endswith("--missing none")


def test_metric_that_is_undefined_is_no_value():
    place = cell("XIII:CIDer:mosi:unaligned:iid:rmfm@0.3:acc2")
    assert Quantity.of(place).value({("rmfm", 0.3, ""): {"acc2": None}}) is None
