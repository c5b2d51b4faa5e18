"""Which feature files a path means, and what their names tell: alignment, task, test split.

MMSA and CIDer keep one file per alignment (``aligned_50.pkl``, ``MOSI_unaligned_50.pkl``), OOD
files in one folder per task (``OOD_MOSI/binary``, ``OOD_MOSI/seven``), and cross-dataset files side
by side (``mosi.pkl``, ``mosei.pkl``), of which one trains and the other tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cider.errors import StoreError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from cider.spec import Alignment, Distribution, Task

TASK_FOLDERS: dict[str, Task] = {
    "binary": "three_class",
    "three_class": "three_class",
    "seven": "seven_class",
    "seven_class": "seven_class",
}
"""Task of CIDer's OOD folders; the published ``binary`` has three classes."""
_SUFFIXES = (".pkl", ".pickle", ".joblib")
_CROSS = {"mosi": "mosei", "mosei": "mosi"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFile:
    """One file to import."""

    path: Path
    alignment: Alignment | None = None
    """As the user or the file name says; None: its arrays must tell."""
    alignment_from: str = ""
    """``option`` or ``file name``, for the message."""
    task: str = "any"
    test_from: Path | None = None
    """File whose test split replaces this one's (cross-dataset)."""


def plan_imports(
    path: Path,
    *,
    dataset: str,
    distribution: Distribution,
    alignment: Alignment | None = None,
    task: Task | None = None,
    test_from: Path | None = None,
) -> list[ImportFile]:
    """Return the files that ``path`` means, at least one.

    Args:
        path: a file, or a folder of the layouts described above.
        dataset: name the corpus will have; picks the training file of cross-dataset folders.
        distribution: iid, ood or cross_dataset.
        alignment: takes only this alignment of a folder.
        task: ``ood`` only: takes only this task of a folder.
        test_from: ``cross_dataset`` only: file of the corpus that tests.

    Raises:
        StoreError: if there is nothing to import.
        UsageError: if an option is missing or does not go with another.
    """
    _check_options(distribution, task, test_from)
    if not path.exists():
        raise StoreError(f"there is no file or folder {path}; check the path")
    if distribution == "cross_dataset" and path.is_dir():
        return [_cross_dataset(path, dataset, alignment)]
    if path.is_dir():
        files = _in_folder(path, distribution, alignment, task)
    else:
        files = [_described(ImportFile(path=path, test_from=test_from), alignment)]
    if distribution == "ood":
        files = [replace(file, task=task or _task_of(file.path)) for file in files]
    return files


def _check_options(distribution: str, task: Task | None, test_from: Path | None) -> None:
    if task is not None and distribution != "ood":
        raise UsageError(
            f"--task is for corpora whose splits differ by task (--distribution ood), got {task} "
            f"with {distribution}; other corpora serve both tasks"
        )
    if test_from is not None and distribution != "cross_dataset":
        raise UsageError(f"--test-from is for --distribution cross_dataset, got {distribution}")


def _described(file: ImportFile, alignment: Alignment | None) -> ImportFile:
    if alignment is not None:
        return replace(file, alignment=alignment, alignment_from="option")
    name = file.path.name.lower()
    if "aligned" not in name:
        return file
    told: Alignment = "unaligned" if "unaligned" in name else "aligned"
    return replace(file, alignment=told, alignment_from="file name")


def _task_of(path: Path) -> Task:
    for folder in (path.parent.name.lower(), path.parent.parent.name.lower()):
        if folder in TASK_FOLDERS:
            return TASK_FOLDERS[folder]
    raise UsageError(
        f"the splits of {path.name} belong to one task, and its folder's name does not tell which; "
        "give --task three_class (CIDer's 'binary') or --task seven_class (CIDer's 'seven')"
    )


def _in_folder(
    folder: Path, distribution: str, alignment: Alignment | None, task: Task | None
) -> list[ImportFile]:
    places = [folder, folder / "Processed"]
    if distribution == "ood":
        places += [folder / name for name, of in TASK_FOLDERS.items() if task is None or of == task]
    found = [
        _described(ImportFile(path=path), None)
        for place in places
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.suffix in _SUFFIXES and "aligned" in path.name.lower()
    ]
    files = [file for file in found if alignment in (None, file.alignment)]
    if not files:
        raise StoreError(
            f"{folder} holds no {alignment or 'aligned or unaligned'} feature file; expected are "
            "aligned_50.pkl and unaligned_50.pkl (OOD: in the folders binary and seven), or name "
            "the file itself"
        )
    _refuse_doubles(files)
    return files


def _refuse_doubles(files: list[ImportFile]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for file in files:
        other = seen.setdefault((str(file.path.parent), str(file.alignment)), file.path)
        if other != file.path:
            raise UsageError(
                f"{other.name} and {file.path.name} are both {file.alignment}; name the file to "
                "import instead of the folder"
            )


def _cross_dataset(folder: Path, dataset: str, alignment: Alignment | None) -> ImportFile:
    if dataset not in _CROSS:
        raise UsageError(
            f"a cross-dataset folder trains on mosi or mosei, got --dataset {dataset}; name the "
            "training file itself and the testing file with --test-from"
        )
    paths = {name: folder / f"{name}.pkl" for name in (dataset, _CROSS[dataset])}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise StoreError(f"{folder} lacks {' and '.join(missing)}; name the file itself")
    file = ImportFile(path=paths[dataset], test_from=paths[_CROSS[dataset]])
    return _described(file, alignment)
