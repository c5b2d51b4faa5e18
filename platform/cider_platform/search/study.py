"""What defines a study, where it is stored, and the refusal to mix two studies under one name."""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import optuna

from cider.errors import NothingMatchedError, UsageError
from cider.registry import lookup
from cider_platform.layout import StudyFolder, read_json, write_json_atomic
from cider_platform.search.database import Database
from cider_platform.search.journal import Journal
from cider_platform.search.ledger import TrialRecord, records
from cider_platform.search.objectives import Objective, parse_objectives
from cider_platform.search.racing import Racing
from cider_platform.search.samplers import SAMPLER_OPTIONS, SINGLE_OBJECTIVE, grid_size
from cider_platform.search.space import Space, axis_from_dict
from cider_platform.search.storage import VARIABLE, Storage, open_rdb, telling
from cider_platform.search.storage_lease import hold_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from optuna.storages import BaseStorage, RDBStorage

    from cider.spec import RunSpec

COMPARED = ("base", "space", "sampler", "pruner", "objectives", "racing", "starts")
"""Parts of a definition that must be equal for a command to continue a study."""


def define(
    spec: RunSpec,
    space: Space,
    *,
    sampler: str,
    pruner: Mapping[str, Any],
    objectives: Sequence[str] = (),
    racing: Racing | None = None,
    starts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return what defines a study, as JSON values: its user attributes.

    Args:
        spec: the resolved base spec; its seed is the sampler's seed too.
        space: what is searched.
        sampler: a name of ``samplers.SAMPLER_OPTIONS``.
        pruner: ``name`` (of ``pruning.PRUNERS``) and its options.
        objectives: names; none means the score by which runs select their epoch.
        racing: how many seeds configurations are searched on.
        starts: what the first trials are: ``values`` of some or all searched fields, and a ``seed``
            if it is not the study's.

    Raises:
        UsageError: for parts that do not go together.
    """
    found = parse_objectives(objectives, spec)
    check_together(space, sampler, pruner, found, racing or Racing())
    return {
        "base": spec.to_dict(),
        "space": [axis.to_dict() for axis in space],
        "sampler": {
            "name": sampler,
            "seed": spec.seed,
            **lookup("sampler", sampler, SAMPLER_OPTIONS),
        },
        "pruner": dict(pruner),
        "objectives": [each.name for each in found],
        "racing": (racing or Racing()).to_dict(),
        "starts": [dict(start) for start in starts],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("optuna", "ray", "torch", "numpy")},
        },
    }


def check_together(
    space: Space,
    sampler: str,
    pruner: Mapping[str, Any],
    objectives: Sequence[Objective],
    racing: Racing,
) -> None:
    """Raise ``UsageError`` if parts of a study do not go together."""
    names = ", ".join(each.name for each in objectives)
    if sampler == "grid":
        grid_size(space)
    if len(objectives) > 1 and sampler in SINGLE_OBJECTIVE:
        raise UsageError(
            f"the sampler {sampler} has one objective, got {names}; use tpe, nsga2, gp, random, "
            "grid or qmc"
        )
    if len(objectives) > 1 and racing.seeds > 1:
        raise UsageError(f"a search on several seeds has one objective, got {names}")
    if pruner["name"] != "none" and (len(objectives) > 1 or not objectives[0].metric):
        raise UsageError(
            f"trials are stopped by their validation score, which cannot stand for the objective "
            f"{names}; use --pruner none"
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a study is kept, open for writing."""

    storage: BaseStorage
    check: Callable[[], None]
    """Raises if another driver has taken the study over."""


@contextlib.contextmanager
def keep(folder: StudyFolder, database: Storage | None) -> Iterator[Kept]:
    """Open where a study is kept, for writing; the lease in the study's folder must be held.

    Args:
        folder: the study.
        database: what keeps it; None is the journal in its folder.

    Raises:
        UsageError: if the study was begun elsewhere, or the database cannot be used.
        LeaseTakenError: if another driver, on whichever machine, drives the study in the database.
        StorageError: if the database fails, now or while the context lasts.
    """
    _check_place(folder, database)
    if database is None:
        yield Kept(open_storage(folder), lambda: None)
        return
    with telling(database):
        storage = open_rdb(database)
        try:
            with hold_in(storage.engine, folder.name) as lease:
                yield Kept(Database(storage), lease.check)
        finally:
            storage.engine.dispose()


def _check_place(folder: StudyFolder, database: Storage | None) -> None:
    """Raise ``UsageError`` if a study was begun in another place than a command names."""
    begun = begun_in(folder)
    if begun is None or begun == (database.identity if database else ""):
        return
    there = begun or f"the journal {folder.journal}"
    here = f"--storage {database}" if database else "no --storage"
    remedy = "give the same --storage" if begun else f"leave out --storage and {VARIABLE}"
    raise UsageError(
        f"study {folder.name} was begun in {there}, this command says {here}; {remedy} to continue "
        "it, or another name with --study"
    )


def begun_in(folder: StudyFolder) -> str | None:
    """Return the identity of the database a study was begun in; empty for the journal.

    None is a study that its folder knows nothing of.
    """
    if folder.journal.exists() and folder.journal.stat().st_size:
        return ""
    if not folder.definition.exists():
        return None
    return str(read_json(folder.definition).get("storage") or "") or None


def open_storage(folder: StudyFolder) -> BaseStorage:
    """Return a study's storage for writing; the study's lease must be held.

    What a killed writer may have left is put right first: a last line without its end, which
    Optuna would append to, and its lock, for which Optuna would wait half a minute.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    _cut_partial_line(folder.journal)
    _remove_dead_lock(folder.journal.with_name(f"{folder.journal.name}.lock"))
    return _storage(folder)


def _storage(folder: StudyFolder) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return Journal(folder.journal)


def _cut_partial_line(journal: Path) -> None:
    if not journal.exists() or not journal.stat().st_size:
        return
    with journal.open("r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)


def _remove_dead_lock(lock: Path) -> None:
    """Remove a lock that stays for a second; a living writer holds it for milliseconds."""
    if not lock.is_symlink():
        return
    before = lock.lstat().st_mtime_ns
    time.sleep(1.0)
    try:
        if lock.lstat().st_mtime_ns == before:
            lock.unlink()
    except FileNotFoundError:  # a dashboard held it and let go
        return


def check_same(folder: StudyFolder, storage: BaseStorage, definition: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` if the study exists and was defined otherwise; name the first field."""
    stored: dict[str, Any] = {}
    if folder.name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=folder.name, storage=storage)
        stored = study.user_attrs
        if "base" not in stored and study.get_trials(deepcopy=False):
            raise UsageError(
                f"there is a study {folder.name} that is not of cider-platform; take another name "
                "with --study, or another --storage"
            )
    for part in COMPARED:
        if part not in stored:
            continue
        there, here = dict(_leaves(stored[part], part)), dict(_leaves(definition[part], part))
        for path in [*there, *here]:
            if there.get(path) != here.get(path):
                name = path.removeprefix("base.")
                raise UsageError(
                    f"study {folder.name} was begun with {name} = {_said(there.get(path))}, this "
                    f"command says {_said(here.get(path))}; give the same options to continue it, "
                    "or another name with --study"
                )


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}")
    elif isinstance(value, list) and value and isinstance(value[0], dict):  # axes, starts
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}.{item.get('path', index)}")
    else:
        yield path, value


def _said(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:20]}..."


def write_definition(
    folder: StudyFolder, definition: Mapping[str, Any], database: Storage | None = None
) -> None:
    """Write ``study.json``: a copy of the definition for people, and which database keeps it."""
    place = None if database is None else database.identity
    values = {"schema": 1, "name": folder.name, "storage": place, **definition}
    write_json_atomic(folder.definition, values)


def study_names(results: Path, database: Storage | None = None) -> list[str]:
    """Return the names of the studies under a results root, or in a database, in order.

    Raises:
        NothingMatchedError: if the database keeps no studies of any kind.
    """
    if database is not None:
        with telling(database):
            studies = _reader(database).get_all_studies()
        return sorted(each.study_name for each in studies if "base" in each.user_attrs)
    parent = results / "studies"
    folders = parent.iterdir() if parent.is_dir() else ()
    return sorted(folder.name for folder in folders if StudyFolder(folder).journal.is_file())


def open_study(results: Path, name: str, database: Storage | None = None) -> optuna.Study | None:
    """Return a study for reading, or None if it has been made but not begun.

    Args:
        results: root of runs and studies.
        name: the study's name.
        database: what keeps it; None is the journal in its folder.

    Raises:
        NothingMatchedError: if there is no such study.
        StorageError: if the database fails.
    """
    folder = StudyFolder.of(results, name)
    if database is not None:
        found = _study_in(database, name)
        if found is not None:
            return found
    elif folder.journal.is_file():
        storage = _storage(folder)
        if name not in optuna.get_all_study_names(storage):
            return None
        return optuna.load_study(study_name=name, storage=storage)
    known = ", ".join(study_names(results, database)) or "none"
    begun = None if database else begun_in(folder)
    kept = f"; it is kept in {begun}, which --storage must name" if begun else ""
    raise NothingMatchedError(f"no study {name!r} in {database or results}{kept}; known: {known}")


def _study_in(database: Storage, name: str) -> optuna.Study | None:
    """Return a study of ours that a database keeps, for reading; None if there is none."""
    with telling(database):
        try:
            found = optuna.load_study(study_name=name, storage=_reader(database))
        except KeyError:
            return None
        return found if "base" in found.user_attrs else None


@functools.lru_cache(maxsize=4)
def _reader(database: Storage) -> RDBStorage:
    return open_rdb(database, reading=True)


def read_study(
    results: Path, name: str, database: Storage | None = None
) -> tuple[dict[str, Any], list[TrialRecord]]:
    """Return a study's definition and trials, without changing anything.

    Raises:
        NothingMatchedError: if there is no such study.
        StorageError: if the database fails.
    """
    study = open_study(results, name, database)
    if study is None:
        return {}, []
    with telling(database) if database else contextlib.nullcontext():
        definition = study.user_attrs
        return definition, records(study, space_of(definition))


def space_of(definition: Mapping[str, Any]) -> Space:
    """Return the axes that a stored definition searches."""
    return tuple(axis_from_dict(axis) for axis in definition.get("space", ()))


def objective_names(definition: Mapping[str, Any]) -> list[str]:
    """Return the names of what a stored study makes best, e.g. ``["valid/acc2"]``."""
    named = definition.get("objectives", definition.get("objective", "value"))
    return [named] if isinstance(named, str) else [str(name) for name in named]
