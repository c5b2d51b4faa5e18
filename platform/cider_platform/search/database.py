"""Optuna's storage of a study in a database, for its one driver: few transactions, few readings.

Optuna commits every parameter and every fact of a trial by itself and reads the running trials anew
before each of its questions: a dozen transactions and a hundred statements per proposal. The driver
holds the study's lease, so nothing changes but by its own hand: what it writes it also remembers,
and what belongs together is one transaction.
"""

from __future__ import annotations

import contextlib
import copy
import json
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError
from optuna.storages._cached_storage import _CachedStorage
from sqlalchemy.orm import Session, scoped_session, sessionmaker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, TrialState


class _Session(Session):
    """A session that can keep its transaction open over several uses."""

    is_kept = False
    is_broken = False
    """True if a statement of a kept transaction failed, and what was before it is gone too."""

    def commit(self) -> None:
        if not self.is_kept:
            super().commit()

    def rollback(self) -> None:
        self.is_broken = self.is_kept
        super().rollback()

    def close(self) -> None:
        if not self.is_kept:
            super().close()

    def renew(self) -> None:
        """Send what is waiting, and forget what was read: the next reading finds all of it."""
        self.flush()
        self.expunge_all()


def _end(session: _Session) -> None:
    """Commit a kept transaction."""
    session.is_kept, session.autoflush = False, True
    try:
        if session.is_broken:
            raise StorageInternalError("a statement failed, and its transaction with it")
        session.commit()
    finally:
        session.close()


class Database(_CachedStorage):
    """Optuna's cached storage for the only writer of a study.

    Args:
        backend: the database; the lease of the study must be held.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        maker: sessionmaker[Session] = sessionmaker(bind=backend.engine, class_=_Session)
        backend.scoped_session = scoped_session(maker)
        self._is_fresh = False
        """True while the trials remembered are those of the database."""

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Store what is told while the context lasts in one transaction.

        Raises:
            StorageInternalError: if a statement failed: nothing of it is stored then.
        """
        session = self._session()
        if session.is_kept:  # inside another one, which commits
            yield
            return
        session.is_kept, session.is_broken = True, False
        session.autoflush = False  # what is new goes at the end, or before a reading
        try:
            yield
        except BaseException:
            with contextlib.suppress(StorageInternalError):  # the error itself tells more
                _end(session)
            raise
        _end(session)

    def _session(self) -> _Session:
        session = self._backend.scoped_session()
        assert isinstance(session, _Session)
        return session

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if not self._is_fresh:
            if self._session().is_kept:
                self._session().renew()
            super()._read_trials_from_remote_storage(study_id)
            self._is_fresh = True

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial, running ones too from memory."""
        place = self._trial_id_to_study_id_and_number.get(trial_id)
        if place is None or not self._is_fresh:
            return super().get_trial(trial_id)
        study_id, number = place
        return self._studies[study_id].trials[number]

    def _remembered(self, trial_id: int) -> FrozenTrial:
        """Return a copy of a trial that now takes its place; whoever has the other keeps it."""
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        trials = self._studies[study_id].trials
        trials[number] = copy.copy(trials[number])
        return trials[number]

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Store a parameter."""
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        trial = self._remembered(trial_id)
        value = distribution.to_external_repr(param_value_internal)
        trial.params = {**trial.params, param_name: value}
        trial.distributions = {**trial.distributions, param_name: distribution}

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Store how a trial ended."""
        self._is_fresh = False
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Store a score."""
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        trial = self._remembered(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401
        """Store a fact."""
        super().set_trial_user_attr(trial_id, key, value)
        trial = self._remembered(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: json.loads(json.dumps(value))}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401
        """Store a fact of Optuna's."""
        super().set_trial_system_attr(trial_id, key, value)
        trial = self._remembered(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: json.loads(json.dumps(value))}
