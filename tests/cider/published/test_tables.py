"""The shipped published numbers: the same as the recorded ones, complete, each with an address."""

import csv
from collections import Counter
from pathlib import Path

import pytest

import cider.published
from cider.errors import NothingMatchedError, UsageError
from cider.missing import names as protocols
from cider.modality import KEPT_SETS
from cider.published import TABLES, cell, cells, table_name
from cider.spec import NUM_CLASSES

EVERY = [each for table in TABLES for each in cells(table)]


@pytest.mark.parametrize("name", ["results.csv", "complexity.csv"])
def test_shipped_file_is_the_recorded_one_byte_by_byte(published_dir, name):
    shipped = Path(cider.published.__file__).with_name(name)
    assert shipped.read_bytes() == (published_dir / name).read_bytes()


def test_every_row_of_the_recorded_tables_is_one_cell(published_dir):
    with (published_dir / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = [each for each in EVERY if each.table != "VI"]
    assert Counter(row["table"] for row in rows) == Counter(each.table for each in found)
    key = ("table", "model", "train", "test", "alignment", "metric")
    expected = Counter(
        (*(row[name] for name in key), row["protocol"].lower(), row["kept_modalities"],
         float(row["value"]))
        for row in rows
    )  # fmt: skip
    assert expected == Counter(
        (*(getattr(each, name) for name in key), each.protocol, each.kept, each.value)
        for each in found
    )


def test_addresses_name_one_cell_each_and_find_it():
    addresses = [each.address for each in EVERY]
    assert len(addresses) == 3831 + 31
    assert len(set(addresses)) == len(addresses)
    for each in EVERY[::97]:
        assert cell(each.address) is each
    assert cell("IV:CIDer:mosi:unaligned:ood:rmfm@auilc:acc2").value == 65.8
    assert cell("table9:CIDer:mosi:unaligned:iid:smm/LA:acc7").kept == "LA"
    assert cell("V:w/o MCM:mosi:unaligned:ood:rmfm@auilc:f1").value == 61.3
    assert cell("VII:CIDer:mosi>mosei:aligned:cross_dataset:rmfm@auilc:acc2").value == 70.0
    assert cell("VI:MACI:parameters").value == 37405


def test_cells_speak_the_names_of_this_program():
    for each in EVERY:
        if each.table == "VI":
            assert (each.protocol, each.task, each.is_area) == ("", "", False)
            continue
        assert each.protocol in protocols()
        assert each.task in NUM_CLASSES
        assert each.unit == "percent"
        assert 0 < each.value < 100
        assert each.rate is None or 0 <= each.rate <= 1
        assert (each.kept in KEPT_SETS) == (each.protocol == "smm")
        assert (each.distribution == "cross_dataset") == (each.train != each.test)
        assert each.alignment in ("aligned", "unaligned")
    assert {each.condition for each in cells("XIII")} == {
        f"rmfm@{step / 10:g}" for step in range(1, 11)
    }


def test_printed_digits_give_the_margin_of_rounding():
    assert cell("IV:CIDer:mosi:unaligned:ood:rmfm@auilc:acc2").margin == pytest.approx(0.05)
    assert cell("VI:CIDer:parameters").margin == 0.5


@pytest.mark.parametrize("text", ["table4", "4", "IV", "iv", "Table IV", "table_4"])
def test_table_is_found_by_any_of_its_names(text):
    assert table_name(text) == "IV"


@pytest.mark.parametrize("text", ["table3", "table23", "", "III", "tables"])
def test_table_the_paper_does_not_have_is_refused(text):
    with pytest.raises(UsageError, match=r"known: table4 to table22 \(IV to XXII\)"):
        cells(text)


def test_address_of_no_cell_is_refused_with_one_that_there_is():
    with pytest.raises(NothingMatchedError, match="one that it has is 'DMD:mosi"):
        cell("IV:CIDer:mosi:acc2")
    with pytest.raises(UsageError, match="unknown table 'nowhere'"):
        cell("nowhere:CIDer")
