"""The journal: Optuna's lines, read on from where the reader was, written once per decision."""

import json
import os
from contextlib import suppress
from types import SimpleNamespace

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from cider.spec import RunSpec
from cider_platform.layout import StudyFolder
from cider_platform.search import journal
from cider_platform.search.journal import Journal, JournalFile
from cider_platform.search.ledger import Ledger, records
from cider_platform.search.samplers import Draw, make_sampler
from cider_platform.search.search import Report, Search
from cider_platform.search.space import TABLE_II, parse_axis
from cider_platform.search.study import define, open_storage

SPACE = (
    *TABLE_II,
    parse_axis("optimizer.lr=log:1e-4:1e-2"),
    parse_axis("training.batch_size=int:8:32:8"),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "optuna.journal"


@pytest.fixture
def ledger(tmp_path):
    return open_ledger(tmp_path)


def open_ledger(root, space=TABLE_II):
    definition = define(RunSpec(), space, sampler="tpe", pruner={"name": "none"})
    return Ledger(open_storage(StudyFolder.of(root, "study")), "study", definition)


def finish(ledger, total):
    while (proposal := ledger.ask(total)) is not None:
        ledger.report(proposal.number, 1, 0.5)
        ledger.complete(proposal.number, proposal.values["loss.joint"])


def counted(monkeypatch, owner, name):
    """Count the calls of a function from now on."""
    calls, whole = [], getattr(owner, name)

    def count(*arguments, **options):
        calls.append(arguments)
        return whole(*arguments, **options)

    monkeypatch.setattr(owner, name, count)
    return calls


def test_ask_reads_the_journal_only_from_where_it_was_however_long_it_is(ledger, monkeypatch):
    parsed = []
    asked = {}
    for trials in (12, 60):
        finish(ledger, trials)
        with monkeypatch.context() as patch:
            # The journal parses each line that it reads or is given, and nothing else.
            loads = SimpleNamespace(loads=lambda line: parsed.append(line) or json.loads(line))
            loads.dumps = json.dumps
            patch.setattr(journal, "json", loads)
            parsed.clear()
            proposal = ledger.ask(trials + 1)
            asked[trials] = len(parsed)
        ledger.complete(proposal.number, 0.5)
    # A trial, its seed, its parameters, and what TPE notes of them.
    assert asked[12] == asked[60] == 3 + len(TABLE_II)


def test_ask_waits_for_the_disk_once_and_a_whole_trial_three_times(tmp_path, ledger, monkeypatch):
    waits = counted(monkeypatch, os, "fsync")
    ledger.ask(1)
    assert len(waits) == 1
    ledger.complete(0, 0.5)
    search = Search(
        ledger, RunSpec(), total=3, results=tmp_path, resolve=lambda spec: spec,
        listener=lambda _: None,
    )  # fmt: skip
    waits.clear()
    number = search.next_job().number
    search.on_report(number, Report(history=[(1, 0.5)], is_last=True))
    search.on_report(number, Report(history=[(1, 0.5)], is_last=True, is_finished=True))
    assert len(waits) == 3


def test_listener_is_told_of_what_is_stored(tmp_path, ledger):
    seen = []

    def listen(change):
        stored = optuna.load_study(
            study_name="study",
            storage=JournalStorage(JournalFileBackend(str(journal_of(tmp_path)))),
        )
        trial = records(stored, TABLE_II)[change.number]
        seen.append((trial.state, trial.run == change.run, len(trial.params)))
        assert trial.state == change.state

    search = Search(
        ledger, RunSpec(), total=1, results=tmp_path, resolve=lambda spec: spec, listener=listen
    )
    search.next_job()
    search.on_report(0, Report(history=[(1, 0.5)], is_finished=True))
    assert seen == [("RUNNING", True, len(TABLE_II)), ("COMPLETE", True, len(TABLE_II))]


def journal_of(root):
    return StudyFolder.of(root, "study").journal


def test_optunas_own_journal_reads_the_same_trials(tmp_path, ledger):
    finish(ledger, 12)
    ledger.ask(13)
    theirs = JournalStorage(JournalFileBackend(str(journal_of(tmp_path))))
    study = optuna.load_study(study_name="study", storage=theirs)
    assert study.trials == ledger._study.trials
    assert records(study, TABLE_II) == open_ledger(tmp_path).trials()
    # And what they write is read on.
    study.tell(12, 0.25)
    assert ledger.trials()[12].value == 0.25


def test_entries_are_written_in_their_order_whatever_ends_the_context(path):
    file = JournalFile(path)
    file.append_logs([{"n": 0}])
    assert list(file.read_logs(0)) == [{"n": 0}]
    with suppress(ZeroDivisionError), file.together():
        file.append_logs([{"n": 1}])
        with file.together():
            file.append_logs([{"n": 2, "tuple": (1, 2)}])
        assert path.read_text() == '{"n":0}\n'
        assert list(file.read_logs(1)) == [{"n": 1}, {"n": 2, "tuple": [1, 2]}]
        assert list(file.read_logs(3)) == []
        file.append_logs([{"n": 3}])
        raise ZeroDivisionError
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
    file.append_logs([{"n": 4}])
    assert list(file.read_logs(4)) == [{"n": 4}]
    assert [entry["n"] for entry in JournalFile(path).read_logs(2)] == [2, 3, 4]
    assert not path.with_name(f"{path.name}.lock").is_symlink()


def test_line_that_is_being_written_is_read_when_it_is_whole(path):
    file = JournalFile(path)
    path.write_bytes(b'{"n":0}\n{"n":')
    assert list(file.read_logs(0)) == [{"n": 0}]
    assert list(file.read_logs(1)) == []
    with path.open("ab") as other:
        other.write(b'1}\n{"n":2}\n')
    assert list(file.read_logs(1)) == [{"n": 1}, {"n": 2}]


def test_journal_remembers_no_more_of_a_longer_file(path):
    storage = Journal(path)
    before = len(vars(storage._file))
    study = optuna.create_study(storage=storage)
    for _ in range(5):
        study.tell(study.ask(), 1.0)
    assert len(vars(storage._file)) == before
    assert all(not isinstance(each, dict | list) for each in vars(storage._file).values())


@pytest.mark.parametrize("ended", [[], ["fail"], ["prune"], ["complete"], ["complete", "fail"]])
def test_tpe_searches_the_fields_that_optuna_would_find(tmp_path, ended):
    ledger = open_ledger(tmp_path, SPACE)
    for number, how in enumerate(ended):
        ledger.ask(10)
        ledger.report(number, 1, 0.5)
        getattr(ledger, how)(number, *{"fail": ["no"], "prune": [], "complete": [0.5]}[how])
    ledger.ask(10)
    ours = make_sampler(
        "tpe", {"multivariate": True, "constant_liar": True},
        Draw(space=SPACE, study_seed=1, number=9, index=9),
    )  # fmt: skip
    theirs = TPESampler(seed=1, multivariate=True, constant_liar=True)
    found = [each.infer_relative_search_space(ledger._study, None) for each in (ours, theirs)]
    assert list(found[0].items()) == list(found[1].items())
    assert bool(found[0]) == bool({"prune", "complete"} & set(ended))
