"""Studies in a database: the same search, secrets that never show, errors in one sentence."""

import json
import sqlite3
import sys
from dataclasses import asdict

import optuna
import pytest
from small_study import SPACE, write_study

from cider.errors import NothingMatchedError, UsageError
from cider.spec import RunSpec
from cider_platform import cli
from cider_platform.layout import StudyFolder, read_json
from cider_platform.search.ledger import Ledger
from cider_platform.search.storage import Storage, StorageError, open_rdb, telling
from cider_platform.search.study import (
    check_same,
    define,
    keep,
    open_study,
    read_study,
    study_names,
    write_definition,
)

NO_PRUNER = {"name": "none"}
SECRET = "ge/heim"
URL = f"postgresql://ann:{SECRET.replace('/', '%2F')}@db.example:5432/studies"


@pytest.fixture
def database(tmp_path):
    return Storage.parse(f"sqlite:///{tmp_path / 'studies.db'}")


@pytest.fixture
def place(tmp_path):
    from chaos_harness import Place  # which imports Ray

    place = Place(tmp_path)
    yield place
    place.remove()


def folder_of(root, name="study"):
    return StudyFolder.of(root / "results", name)


def definition(sampler="tpe", **changes):
    return define(RunSpec(), SPACE, sampler=sampler, **{"pruner": NO_PRUNER, **changes})


def finish(ledger, total):
    while (proposal := ledger.ask(total)) is not None:
        ledger.note(proposal.number, run=f"{proposal.number:016x}")
        ledger.report(proposal.number, 1, proposal.values["optimizer.lr"])
        ledger.complete(proposal.number, proposal.values["optimizer.lr"])
    return ledger.trials()


def run_command(monkeypatch, capsys, *words):
    """Return exit code, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["cider-platform", *map(str, words)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    return code, *capsys.readouterr()


@pytest.mark.slow
def test_search_whose_driver_is_killed_ends_on_a_database_as_on_the_journal(place):
    from chaos_driver import Options
    from chaos_harness import Driver, undisturbed

    options = Options(
        root=str(place.root), study="kept", total=7, epochs=3,
        storage=f"sqlite:///{place.root / 'kept.db'}",
    )  # fmt: skip
    first = Driver(place, options, CHAOS_EPOCH_SECONDS="0.2")
    first.wait_for(r"trial 2 RUNNING epoch 0")
    # Another results folder, so nothing is shared but the database: refused by its lease alone.
    elsewhere = keep(folder_of(place.root / "other", "kept"), Storage.parse(options.storage))
    with pytest.raises(Exception, match=f"in the hands of process {first.process.pid} on"):
        elsewhere.__enter__()
    first.kill()
    again = Driver(place, options)
    code, out = again.end()
    assert code == 0, again.said()
    assert "begin 3 of 7" in again.said()
    expected = undisturbed(options)
    trials = json.loads(out)
    for trial in (*trials, *expected):
        trial.pop("seconds")
    assert trials == json.loads(json.dumps(expected))
    assert not folder_of(place.root, "kept").journal.exists()
    assert read_json(folder_of(place.root, "kept").definition)["storage"] == options.storage


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])  # both note things of their own in trials
def test_study_in_a_database_proposes_what_one_in_a_journal_does(tmp_path, database, sampler):
    total = 12
    found = []
    for place in (None, database):
        folder = folder_of(tmp_path, f"in-{place is None}")
        defined = definition(sampler)
        for end in (6, total):  # two commands, the second begins with a trial of the first
            with keep(folder, place) as kept:
                ledger = Ledger(kept.storage, folder.name, defined)
                while (proposal := ledger.ask(end)) is not None:
                    if proposal.number == 5 and not proposal.is_continued:
                        break
                    ledger.complete(proposal.number, proposal.values["loss.joint"])
                trials = ledger.trials()
        found.append(trials)
    assert len(found[0]) == total
    assert found[0] == found[1]


@pytest.mark.parametrize("given", [
    URL,
    f"{URL}?sslpassword={SECRET}&connect_timeout=3",
    f"mysql+pymysql://ann:{SECRET.replace('/', '%2F')}@db.example/studies",
])  # fmt: skip
def test_secret_of_a_url_is_in_no_text_of_it(given):
    storage = Storage.parse(given)
    for text in (str(storage), repr(storage), f"{storage}", storage.identity, str([storage])):
        assert SECRET not in text
        assert "%2F" not in text
        assert "db.example" in text
    assert "ann:***@" in str(storage)
    assert storage.identity == Storage.parse(given.replace("heim", "other")).identity


def test_secret_is_in_no_file_of_the_study_and_in_no_error(tmp_path, monkeypatch, capsys):
    folder = folder_of(tmp_path)
    write_definition(folder, definition(), Storage.parse(URL))
    assert all(SECRET not in path.read_text() for path in folder.root.iterdir())
    monkeypatch.setenv("CIDER_STORAGE", URL)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    code, out, err = run_command(monkeypatch, capsys, "study", "list", "--results", tmp_path)
    assert (code, out) == (2, "")
    assert "needs the package psycopg[binary]" in err
    assert "ann:***@db.example" in err
    monkeypatch.setenv("CIDER_STORAGE", f"postgresql://ann:{SECRET}@db.example:port/studies")
    code, out, err = run_command(monkeypatch, capsys, "study", "list", "--results", tmp_path)
    assert code == 2
    assert "must be the URL of a database" in err
    assert SECRET not in out + err
    assert "heim" not in err


def test_word_of_a_driver_with_a_secret_in_it_is_masked():
    storage = Storage.parse(URL)
    with pytest.raises(StorageError) as told, telling(storage):
        raise optuna.exceptions.StorageInternalError(f"no such login: ann {SECRET}\nmore")
    assert "no such login: ann ***; see that it runs" in str(told.value)
    assert told.value.__suppress_context__


def other_optuna(file):
    with sqlite3.connect(file) as connection:
        connection.execute("update alembic_version set version_num = 'v9.9.9.a'")
        connection.execute("update version_info set library_version = '9.9.9'")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda file: file.write_text("no database " * 100), StorageError, "not a database"),
        (lambda file: None, NothingMatchedError, "there is no database"),
        (lambda file: sqlite3.connect(file).execute("create table t (a)"), NothingMatchedError,
         "keeps none"),
    ],
)  # fmt: skip
def test_database_that_keeps_no_studies_is_told_in_a_sentence(
    tmp_path, database, make, kind, message
):
    make(tmp_path / "studies.db")
    with pytest.raises(kind, match=message) as told:
        study_names(tmp_path, database)
    assert "\n" not in str(told.value)


def test_tables_of_another_optuna_are_refused_with_both_versions(tmp_path, database):
    with keep(folder_of(tmp_path), database):
        pass
    other_optuna(tmp_path / "studies.db")
    message = rf"tables of Optuna 9\.9\.9, which Optuna {optuna.__version__} does not read"
    with pytest.raises(StorageError, match=message), keep(folder_of(tmp_path), database):
        raise AssertionError("it was opened")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("studies.db", "must be the URL of a database"),
        ("sqlite://", "in memory"),
        ("foo://a:b@c/d", "unknown kind of database, 'foo'"),
    ],
)
def test_url_that_names_no_database_is_refused(url, message):
    with pytest.raises(UsageError, match=message):
        open_rdb(Storage.parse(url))


def test_database_that_cannot_be_reached_is_told_and_nothing_is_left(tmp_path):
    storage = Storage.parse(f"sqlite:///{tmp_path / 'no-folder' / 'x.db'}")
    with pytest.raises(StorageError, match="unable to open database file; see that it runs"):
        keep(folder_of(tmp_path), storage).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_relative_file_means_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Storage.parse("sqlite:///a.db").url.database == str(tmp_path / "a.db")


def test_study_is_continued_only_where_it_was_begun(tmp_path, database):
    begun, journal = folder_of(tmp_path, "begun"), folder_of(tmp_path, "journal")
    with keep(begun, database) as kept:
        finish(Ledger(kept.storage, "begun", definition()), 2)
        write_definition(begun, definition(), database)
    with keep(journal, None) as kept:
        finish(Ledger(kept.storage, "journal", definition()), 2)
        write_definition(journal, definition())
    other = Storage.parse(f"sqlite:///{tmp_path / 'other.db'}")
    for folder, place, message in [
        (begun, None, r"begun in sqlite:.*studies\.db, this command says no --storage"),
        (
            begun,
            other,
            r"begun in sqlite:.*studies\.db, this command says --storage sqlite:.*other",
        ),
        (journal, database, r"begun in the journal .*; leave out --storage and CIDER_STORAGE"),
    ]:
        with pytest.raises(UsageError, match=message):
            keep(folder, place).__enter__()
    with pytest.raises(NothingMatchedError, match=r"it is kept in sqlite:.*which --storage must"):
        open_study(tmp_path / "results", "begun")
    assert len(read_study(tmp_path / "results", "begun", database)[1]) == 2


def test_study_of_somebody_else_is_neither_listed_nor_continued(tmp_path, database):
    storage = open_rdb(database)
    optuna.create_study(study_name="theirs", storage=storage).ask()
    assert study_names(tmp_path, database) == []
    with pytest.raises(UsageError, match="not of cider-platform"):
        check_same(folder_of(tmp_path, "theirs"), storage, definition())


def test_commands_read_a_database_and_change_nothing(tmp_path, database, monkeypatch, capsys):
    ledger = write_study(tmp_path / "journals", total=12)
    with keep(folder_of(tmp_path, "demo"), database) as kept:
        stored = Ledger(kept.storage, "demo", ledger.definition)
        stored._study.add_trials(ledger._study.get_trials())
    file = tmp_path / "studies.db"
    before = file.read_bytes()

    def ask(*words):
        options = ("--results", tmp_path / "results", "--storage", f"sqlite:///{file}")
        code, out, err = run_command(monkeypatch, capsys, "study", *words, *options)
        assert code == 0, err
        return out

    assert [each["study"] for each in json.loads(ask("list", "--json"))["data"]] == ["demo"]
    shown = json.loads(ask("show", "demo", "--json"))["data"]
    assert shown["storage"] == f"sqlite:///{file}"
    trials = json.loads(ask("trials", "demo", "--json"))["data"]
    assert trials == json.loads(json.dumps([asdict(each) for each in ledger.trials()]))
    best = json.loads(ask("best", "demo", "--json"))["data"]
    assert best["trial"] == shown["best"]["number"]
    assert json.loads(ask("importance", "demo", "--json"))["data"]["study"] == "demo"
    assert json.loads(ask("why", "demo", "0", "--json"))["data"]["trial"] == 0
    ask("export", "demo", "--out", tmp_path / "table.csv")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 13
    assert file.read_bytes() == before
    with pytest.raises(Exception, match="for looking only"):
        open_study(tmp_path, "demo", database).set_user_attr("a", 1)
    assert file.read_bytes() == before
