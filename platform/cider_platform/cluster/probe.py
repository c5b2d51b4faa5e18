"""What one machine says of itself: versions, GPUs, storage, features, encoder, clock.

It runs on every node of a cluster, in a process of its own, and returns JSON values; judging is
``diagnosis``'s. A node may lack anything, so every fact that cannot be had is a fault in words.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cider
import cider_platform
from cider.errors import CiderError
from cider_platform import tokens
from cider_platform.execution.capacity import usable_cpus, usable_memory
from cider_platform.roots import results_root, store_root

PACKAGES = ("ray", "torch", "cider-platform", "numpy", "optuna", "pyarrow", "transformers")
_KNOCK_SECONDS = 3.0
_SEEN = ".node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a machine is asked; paths that are None are what its own environment says."""

    nonce: str
    """Name of the folder for this examination's files, at the results' root."""
    store: str | None = None
    results: str | None = None
    datasets: tuple[str, ...] = ()
    """Corpora that must be there, as ``data list`` names them; none asks for all there are."""
    encoder: str = ""
    """Text encoder that must be there; empty asks for those the corpora name."""
    verify: bool = False
    """Whether the corpora's files are hashed, not their manifests read."""


class Probe:
    """Answers about the machine it runs on."""

    def __init__(self, question: dict[str, Any]) -> None:
        self.question = Question(**{**question, "datasets": tuple(question["datasets"])})
        self._results = _path(self.question.results)
        self._store = _path(self.question.store)

    def facts(self) -> dict[str, Any]:
        """Return everything that needs no other machine."""
        values: dict[str, Any] = {
            "host": platform.node(),
            "python": platform.python_version(),
            "versions": {name: installed_version(name) for name in PACKAGES},
            "code": source_hash(),
            "cpus": usable_cpus(),
            "memory_bytes": usable_memory(),
            "gpus": _gpus(),
            "token": _token(),
        }
        corpora = self._corpora()
        encoders = {self.question.encoder} if self.question.encoder else {
            each["encoder"] for each in corpora.values() if each.get("encoder")
        }  # fmt: skip
        return {
            **values,
            "results": self._place(self._results, results_root),
            "store": self._place(self._store, store_root),
            "corpora": corpora,
            "encoders": {name: _encoder(name) for name in sorted(encoders)},
        }

    def write(self, name: str) -> str:
        """Write a file for the others to find; return what is wrong, or nothing.

        Args:
            name: of this node, as a file name.
        """
        try:
            folder = results_root(self._results) / self.question.nonce
            folder.mkdir(parents=True, exist_ok=True)
            # A name can be an address, whose dots are no suffix.
            path, part = folder / f"{name}{_SEEN}", folder / f"{name}.part"
            part.write_text(name, encoding="utf-8")
            part.replace(path)
            with path.open("r+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (OSError, CiderError) as error:
            return str(error)
        return ""

    def look(self) -> list[str]:
        """Return the names of the files that are seen here."""
        try:
            folder = results_root(self._results) / self.question.nonce
            return sorted(path.name.removesuffix(_SEEN) for path in folder.glob(f"*{_SEEN}"))
        except (OSError, CiderError):
            return []

    def tidy(self) -> None:
        """Remove this examination's files."""
        shutil.rmtree(results_root(self._results) / self.question.nonce, ignore_errors=True)

    def clock(self) -> float:
        """Return the time here, in seconds since 1970."""
        return time.time()

    def knock(self, url: str) -> int:
        """Return the HTTP status of a page asked for without a token; 0 if nobody answers."""
        try:
            with urllib.request.urlopen(url, timeout=_KNOCK_SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ValueError):
            return 0

    def _place(self, path: Path | None, root: Any) -> dict[str, Any]:  # noqa: ANN401 - a function
        try:
            folder = root(path)
        except CiderError as error:
            return {"path": str(path), "fault": str(error)}
        nearest = next(each for each in (folder, *folder.parents) if each.exists())
        return {"path": str(folder), "free_bytes": shutil.disk_usage(nearest).free, "fault": ""}

    def _corpora(self) -> dict[str, dict[str, Any]]:
        from cider_platform.corpora import CorpusFilter, list_corpora  # noqa: PLC0415 - pyarrow

        try:
            stored = list_corpora(store_root(self._store))
        except (OSError, CiderError) as error:
            return {name: {"fault": str(error)} for name in self.question.datasets}
        found = {}
        for asked in self.question.datasets or ("",):
            wanted = CorpusFilter(name=asked or None)
            named = [each for each in stored if wanted.matches(each)]
            if asked and not named:
                found[asked] = {"fault": "is not in the store"}
            found |= {each.name: _corpus(each, verify=self.question.verify) for each in named}
        return found


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def installed_version(name: str) -> str:
    """Return a package's version; ``checkout`` or ``none`` for one that is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "checkout" if name == "cider-platform" else "none"


def source_hash() -> str:
    """Return 16 digits of a hash over the sources of both packages, wherever they are installed."""
    digest = hashlib.sha256()
    for package in (cider, cider_platform):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root.parent).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _gpus() -> list[dict[str, Any]]:
    import torch  # noqa: PLC0415 - two seconds, on the node alone

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append({"name": name, "memory_bytes": total, "free_bytes": free})
    return found


def _token() -> dict[str, Any]:
    values = {"mode": os.environ.get(tokens.MODE_VARIABLE, ""), "fault": ""}
    try:
        token = tokens.find_token()
        if token is not None:
            tokens.check_token(token)
    except CiderError as error:
        return {**values, "found": True, "fault": str(error)}
    return {**values, "found": token is not None}


def _corpus(corpus: Any, *, verify: bool) -> dict[str, Any]:  # noqa: ANN401 - a StoredCorpus
    if corpus.manifest is None:
        return {"fault": corpus.fault}
    missing = [name for name in corpus.manifest.files if not (corpus.folder / name).is_file()]
    fault = f"lacks {', '.join(missing)}" if missing else ""
    if verify and not fault:
        from cider.data.verify import verify_corpus  # noqa: PLC0415 - pyarrow

        fault = "; ".join(verify_corpus(corpus.folder).faults)
    manifest = asdict(corpus.manifest)
    return {
        "content_sha256": manifest["content_sha256"],
        "encoder": manifest["default_encoder"],
        "fault": fault,
    }


def _encoder(source: str) -> dict[str, Any]:
    if source == "scratch":
        return {"sha256": "", "fault": ""}
    from cider.modules.text import locate_encoder  # noqa: PLC0415 - torch

    try:
        return {"sha256": locate_encoder(source).sha256, "fault": ""}
    except CiderError as error:
        return {"sha256": "", "fault": str(error)}
