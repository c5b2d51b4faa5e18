"""A driver's study in a database: few transactions, and memory that agrees with the database."""

import pytest
import sqlalchemy as sql
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from cider.spec import RunSpec
from cider_platform.layout import StudyFolder
from cider_platform.search.ledger import Ledger
from cider_platform.search.space import TABLE_II
from cider_platform.search.storage import Storage
from cider_platform.search.study import define, keep


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def kept(tmp_path, url):
    with keep(StudyFolder.of(tmp_path, "study"), Storage.parse(url)) as kept:
        yield kept


@pytest.fixture
def ledger(kept):
    asha = {"name": "asha", "grace": 1, "reduction": 3}
    return Ledger(kept.storage, "study", define(RunSpec(), TABLE_II, sampler="tpe", pruner=asha))


def finish(ledger, total):
    while (proposal := ledger.ask(total)) is not None:
        number, value = proposal.number, proposal.values["loss.joint"]
        with ledger.together():
            ledger.note(number, run="abc", seconds=0.5)
            if ledger.report(number, 1, value):
                ledger.prune(number)
            elif number % 5 == 4:
                ledger.fail(number, "no")
            else:
                ledger.complete(number, value)


def in_database(url):
    """Return the trials as another process reads them."""
    storage = RDBStorage(url)
    found = storage.get_all_trials(storage.get_study_id_from_name("study"))
    storage.engine.dispose()
    return found


def test_what_the_driver_remembers_is_what_the_database_has(ledger, kept, url):
    finish(ledger, 14)
    running = ledger.ask(15).number
    assert ledger._study.trials == in_database(url)
    ledger.note(running, run="def")
    ledger.report(running, 1, 0.25)
    remembered = ledger._study.trials
    assert remembered == in_database(url)
    assert kept.storage.get_trial(remembered[running]._trial_id) == remembered[running]
    assert len({trial.state for trial in remembered}) == 4


def test_ask_is_one_transaction_and_its_statements_do_not_grow_with_the_study(ledger, kept):
    commits, statements = [], []
    engine = kept.storage._backend.engine
    sql.event.listen(engine, "commit", commits.append)
    sql.event.listen(
        engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    asked = []
    for trials in (12, 30):
        finish(ledger, trials)
        commits.clear()
        statements.clear()
        number = ledger.ask(trials + 1).number
        asked.append((len(commits), len(statements)))
        ledger.complete(number, 0.5)
    assert asked[0] == asked[1]
    assert asked[0][1] < 50
    assert asked[0][0] == 1


def test_statement_that_fails_takes_its_transaction_along_and_is_told(ledger, url):
    finish(ledger, 2)
    before = in_database(url)
    with pytest.raises(StorageInternalError, match="its transaction with it"):
        ask_and_fail(ledger)
    assert in_database(url) == before


def ask_and_fail(ledger):
    """Ask, and store a parameter twice in the same transaction."""
    with ledger.together():
        trial = ledger._live[ledger.ask(3).number]
        backend = ledger._study._storage._backend
        distribution = trial.distributions["model.layers"]
        backend.set_trial_param(trial._trial_id, "model.layers", 1.0, distribution)
        session = backend.scoped_session()
        try:
            session.flush()
        except sql.exc.IntegrityError:
            session.rollback()
