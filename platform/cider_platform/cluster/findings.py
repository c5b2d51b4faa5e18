"""What is wrong in a cluster file: findings, and the rules that every kind of file shares."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from cider_platform.tokens import find_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PLACEHOLDER = re.compile(r"\b(?:EDIT|CHANGE|REPLACE)[_-]ME\w*(?:-\w+)*", re.IGNORECASE)
LONGEST_IDLE_MINUTES = 60

RESULTS_VARIABLES = ("CIDER_RESULTS", "CIDER_STORE")
_CODES = {
    "schema": "the file is not what the program that reads it takes",
    "placeholder": "something is still to be filled in",
    "secret": "a password, key or token stands in the file",
    "version": "another version of Ray than the locked one",
    "unpinned": "packages are installed without fixed versions",
    "token": "the cluster's ports are open without a token",
    "port": "something listens to every address",
    "max-workers": "nothing limits the number of workers",
    "gpu": "no GPU where one is meant, or one where it idles",
    "idle-timeout": "idle workers are not given back",
    "storage": "results would lie on one node's own disk",
    "cost": "it costs more than it need",
}
CODES = tuple(_CODES)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    code: str
    """Of ``CODES``."""
    where: str
    """Field, line or part of the file."""
    text: str
    """One sentence: what, which value, what to do."""
    severity: Literal["error", "warning"] = "error"

    def __post_init__(self) -> None:
        if self.code not in _CODES:
            raise ValueError(f"a finding's code is one of {', '.join(CODES)}, got {self.code!r}")


def placeholders(text: str) -> Iterator[Finding]:
    """Find what a template leaves to the user."""
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.split(" #")[0]
        if not content.lstrip().startswith("#"):
            for match in PLACEHOLDER.finditer(content):
                yield Finding(
                    "placeholder",
                    f"line {number}",
                    f"line {number} still says {match[0]}; put your own value there, as the "
                    "comment beside it says",
                )


def secrets(text: str) -> Iterator[Finding]:
    """Find what must not stand in a file that is shared."""
    for each in find_secrets(text):
        yield Finding(
            "secret",
            each.split(" holds")[0],
            f"{each}; take it out and change it: give the path of a private file, or a secret's "
            "name, in its place",
        )


def locked_ray(folder: Path) -> str:
    """Return the version of Ray a cluster must have: ``constraints.txt``'s, else the one here.

    Args:
        folder: of the cluster file; ``constraints.txt`` is looked for there and above.
    """
    for place in (folder, *folder.parents):
        try:
            text = (place / "constraints.txt").read_text(encoding="utf-8")
        except OSError:
            continue
        if found := re.search(r"^ray==(\S+)", text, re.MULTILINE):
            return found[1]
    return version("ray")


_RAY_VERSION = re.compile(
    r"(?:\bray(?:\[[\w,]*\])?==|/ray(?:-ml)?:|-ray)v?(?P<version>\d+\.\d+\.\d+)"
)


def ray_versions(named: Iterable[tuple[str, str]], locked: str) -> Iterator[Finding]:
    """Find versions of Ray that are not the locked one.

    Args:
        named: place and text of commands, images and fields.
        locked: the version every node must have.
    """
    for where, text in named:
        for match in _RAY_VERSION.finditer(text):
            if match["version"] != locked:
                yield Finding(
                    "version",
                    where,
                    f"{where} names Ray {match['version']}, but {locked} is locked, and nodes of "
                    f"different versions do not join; write {locked}",
                )


_INSTALL = re.compile(r"\b(?:pip3?|uv pip) install\b(?P<arguments>[^\n;|&]*)")
_TAKES_VALUE = {"-c", "--constraint", "-r", "--requirement", "-f", "--find-links", "-t", "--target"}
_TAKES_VALUE |= {"-i", "--index-url", "--extra-index-url", "--python"}
_TOOLS = {"pip", "setuptools", "wheel", "uv"}


def unpinned(named: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Find installations whose result changes from day to day."""
    for where, text in named:
        for match in _INSTALL.finditer(text):
            if loose := _loose(match["arguments"]):
                yield Finding(
                    "unpinned",
                    where,
                    f"{where} installs {', '.join(loose)} without fixed versions, so nodes that "
                    "start on different days differ; add --constraint FILE, or ==VERSION",
                )


def _loose(arguments: str) -> list[str]:
    try:
        words = iter(shlex.split(arguments))
    except ValueError:
        words = iter(arguments.split())
    required = []
    for word in words:
        if word.partition("=")[0] in ("-c", "--constraint"):
            return []
        if word in _TAKES_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            required.append(word)
    return [each for each in required if "==" not in each and each not in _TOOLS]


_LOCAL = re.compile(r"(?:~|\$\{?HOME|\.|/(?:tmp|root|home|var/tmp|dev/shm)(?:/|$))")
_URI = re.compile(r"[a-z0-9]+://")
_MOUNT = re.compile(r"\bmount\b[^;&|\n]*?\s(?P<path>/[\w./-]+)\s*(?=$|[;&|\"'])", re.MULTILINE)


def shared_folders(text: str) -> list[str]:
    """Return the folders that commands mount."""
    return [match["path"] for match in _MOUNT.finditer(text)]


def exports(text: str) -> dict[str, str]:
    """Return the values that commands give to the variables of the two root folders."""
    found = re.findall(r"\b(CIDER_RESULTS|CIDER_STORE)=[\"']?([^\s\"';,]+)", text)
    return dict(reversed(found))


def storage(text: str, *, mounted: Iterable[str] | None = None) -> Iterator[Finding]:
    """Find roots of results and features that only one node would see.

    Args:
        text: every command of the file.
        mounted: folders that the file itself mounts from elsewhere; None if the machines' own
            mounts decide, which a file cannot tell.
    """
    named = exports(text)
    for variable in RESULTS_VARIABLES:
        path = named.get(variable)
        if path is None:
            yield Finding(
                "storage",
                variable,
                f"no command exports {variable}, so each node would use its own disk; export it "
                "as a folder that every node mounts",
            )
        elif problem := _own_disk(path, mounted):
            yield Finding(
                "storage",
                variable,
                f"{variable} is {path}, which {problem}; name a folder that every node mounts "
                "(NFS, EFS, Lustre)",
            )


def _own_disk(path: str, mounted: Iterable[str] | None) -> str:
    if _URI.match(path):
        return "is no folder (object stores take copies: cider-platform results push)"
    if _LOCAL.match(path) or not path.startswith("/"):
        return "lies on each node's own disk"
    if mounted is None or any(path == each or path.startswith(f"{each}/") for each in mounted):
        return ""
    return "nothing in the file mounts"


_EVERYWHERE = re.compile(r"--dashboard-host[= ]+[\"']?(?:0\.0\.0\.0|::)")


def tokens_on(text: str, *, has_token: bool, where: str) -> Iterator[Finding]:
    """Find ports that are open without a token.

    Args:
        text: every command of the file.
        has_token: whether the file brings a token to the nodes.
        where: the part of the file to name.
    """
    if not re.search(r"\bRAY_AUTH_MODE[\"']?\s*[=:]\s*[\"']?token\b", text):
        yield Finding(
            "token",
            where,
            f"{where} does not set RAY_AUTH_MODE=token, so who reaches a port runs programs on "
            "every node; export it before ray start on all nodes",
        )
        if _EVERYWHERE.search(text):
            yield Finding(
                "port",
                where,
                f"{where} lets the dashboard listen to 0.0.0.0 without a token; give "
                "--dashboard-host=127.0.0.1 and reach it by ssh",
            )
    elif not has_token:
        yield Finding(
            "token",
            where,
            f"{where} switches tokens on but brings none to the nodes; mount a token file there "
            "(file_mounts: ~/.ray/auth_token, or RAY_AUTH_TOKEN_PATH)",
        )
