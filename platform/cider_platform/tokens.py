"""The token that opens a Ray cluster's ports: found as Ray finds it, demanded beyond this machine.

Ray reads its authentication mode when it is imported, so ``require_token`` and
``client_environment`` belong before ``import ray``. A token is never printed: ``Token`` hides it,
``mask`` takes it and other secrets out of a text.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cider.errors import CiderError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"
MODE_VARIABLE = "RAY_AUTH_MODE"
MASK = "[hidden]"

_HERE = ("", "auto", "local")
_SHORTEST = 16
"""Characters of a token; Ray makes 64, and takes anything."""
_HOW = (
    "make one with `ray get-auth-token --generate` and `chmod 600 ~/.ray/auth_token`, or copy the "
    f"cluster's into a file and name it in {PATH_VARIABLE}"
)


class AccessError(CiderError):
    """A cluster needs a token that was not given, is unsafe, or is not its own."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Token:
    """A token and where it was found."""

    value: str = field(repr=False)
    source: str
    """Variable or file, for messages."""
    path: Path | None = None
    """Its file, or None for a variable."""

    @property
    def header(self) -> dict[str, str]:
        """HTTP header that Ray's ports read."""
        return {"Authorization": f"Bearer {self.value}"}


def find_token(environment: Mapping[str, str] | None = None) -> Token | None:
    """Return the token that Ray would use, or None if there is none.

    The order is Ray's: ``RAY_AUTH_TOKEN``, the file named in ``RAY_AUTH_TOKEN_PATH``, then
    ``~/.ray/auth_token``; space around it is dropped, and an empty variable is no variable.

    Args:
        environment: variables to look in; None is this process's.

    Raises:
        AccessError: if ``RAY_AUTH_TOKEN_PATH`` names no readable file that holds something, or the
            token has characters that no HTTP header carries.
    """
    variables = os.environ if environment is None else environment
    if value := variables.get(TOKEN_VARIABLE, "").strip():
        return _sendable(Token(value, TOKEN_VARIABLE))
    if named := variables.get(PATH_VARIABLE, ""):
        value = _read(Path(named))
        if not value:
            raise AccessError(
                f"{PATH_VARIABLE} names {named!r}, which is no readable file or is empty; write "
                "the cluster's token into it, or unset the variable"
            )
        return _sendable(Token(value, f"{named} ({PATH_VARIABLE})", Path(named)))
    path = Path(variables.get("HOME") or Path.home()) / ".ray" / "auth_token"
    value = _read(path)
    return _sendable(Token(value, str(path), path)) if value else None


def _sendable(token: Token) -> Token:
    if not re.fullmatch(r"[!-~]+", token.value):
        raise AccessError(
            f"the token in {token.source} holds a space or another character that no header "
            "carries; copy it again"
        )
    return token


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def check_token(token: Token) -> Token:
    """Return the token if it can protect anything.

    Raises:
        AccessError: if it is short, or every user of the machine can read its file.
    """
    if len(token.value) < _SHORTEST:
        raise AccessError(
            f"the token in {token.source} has {len(token.value)} characters; at least {_SHORTEST} "
            f"are needed: {_HOW}"
        )
    if token.path is not None:
        mode = stat.S_IMODE(token.path.stat().st_mode)
        if mode & 0o007:
            raise AccessError(
                f"the token file {token.path} is open to every user of this machine (mode "
                f"{mode:03o}), allowed is 600; give chmod 600 {token.path}"
            )
    return token


def host_of(address: str) -> str:
    """Return the host of ``http://host:port``, ``ray://host:port``, ``host:port`` or ``host``.

    Raises:
        UsageError: if it is no such address.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or re.search(r"[^A-Za-z0-9.:_%-]", host):
        raise UsageError(
            f"an address is http://HOST:PORT, ray://HOST:PORT or HOST:PORT, got {mask(address)!r}"
        )
    return host


def is_this_machine(address: str | None) -> bool:
    """Return whether an address stays inside this machine: none, ``auto``, ``local``, loopback.

    ``auto`` and none mean what ``RAY_ADDRESS`` says, as for Ray. A name other than ``localhost``
    counts as elsewhere: what it stands for can change.
    """
    if address is None or address in _HERE:
        address = os.environ.get("RAY_ADDRESS", "")
    if address in _HERE:
        return True
    return is_loopback(host_of(address))


def is_loopback(host: str) -> bool:
    """Return whether a host is ``localhost`` or an address of the loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_token(address: str | None) -> Token | None:
    """Return the token for a cluster, checked; None only on this machine, where it may be absent.

    Args:
        address: of the cluster's job or head port; None is this machine.

    Raises:
        AccessError: if the cluster is beyond this machine and there is no token, or the token is
            unsafe.
        UsageError: if ``RAY_AUTH_MODE`` is unknown, or switches tokens off for a cluster beyond
            this machine.
    """
    here = is_this_machine(address)
    mode = os.environ.get(MODE_VARIABLE, "").lower()
    if mode not in ("", "token", "disabled"):
        raise UsageError(f"{MODE_VARIABLE} must be token or disabled, got {mode!r}")
    if not here and mode == "disabled":
        raise UsageError(
            f"{MODE_VARIABLE} is {mode!r}, but {mask(str(address))} is beyond this machine, and "
            "who reaches an open cluster runs programs there; unset it or set it to token"
        )
    token = find_token()
    if token is None:
        if here:
            return None
        raise AccessError(
            f"no token for {mask(str(address))}: {TOKEN_VARIABLE}, {PATH_VARIABLE} and "
            f"~/.ray/auth_token hold none, and a cluster beyond this machine needs one; {_HOW}"
        )
    return token if here and token.path is None else check_token(token)


def client_environment(address: str | None) -> dict[str, str]:
    """Return the variables to set before ``import ray`` so that a client sends its token.

    Raises:
        AccessError, UsageError: as ``require_token``.
    """
    token = require_token(address)
    return {} if token is None else {MODE_VARIABLE: "token"}


_SECRETS = (
    # name = value, of variables, TOML and YAML keys, options; the name stays.
    (
        "a password, key or token",
        re.compile(
            r"(?i)(?P<keep>\b[\w.-]*(?:token|secret(?:[_-]?key)?|passw(?:or)?d|api[_-]?key|access[_-]?key"
            r"(?:[_-]?id)?|credentials?)\b[\"']?\s*[:=]\s*[\"']?)"
            r"(?P<hide>[^\s\"',;}{$]{8,})"
        ),
    ),
    ("an authorization header", re.compile(r"(?i)(?P<keep>\bbearer\s+)(?P<hide>[!-~]{8,})")),
    ("a password in a URL", re.compile(r"(?P<keep>://[^\s/:@]*:)(?P<hide>[^\s/@]+)(?=@)")),
    ("an access key", re.compile(r"(?P<keep>\b)(?P<hide>(?:AKIA|ASIA)[A-Z0-9]{16})\b")),
    (
        "an access token",
        re.compile(r"(?P<keep>\b)(?P<hide>(?:gh[pousr]|hf|glpat|sk)[_-][A-Za-z0-9_-]{16,})"),
    ),
    (
        "a private key",
        re.compile(
            r"(?s)(?P<keep>)(?P<hide>-----BEGIN [A-Z ]*PRIVATE KEY-----.*?"
            r"(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))"
        ),
    ),
)
# A reference to a variable, or nothing, stands for a secret without being one.
_REFERENCE = re.compile(r"\\?\$|<|\[hidden\]|(?:RAY_)?AUTH_TOKEN|None\b|null\b")
_PATH = re.compile(r"[~/.]")


def find_secrets(text: str) -> list[str]:
    """Return what kinds of secrets a text seems to hold, each with its line; never their values."""
    return [
        f"line {text.count(chr(10), 0, match.start()) + 1} holds {kind}"
        for kind, pattern in _SECRETS
        for match in pattern.finditer(text)
        if not (_REFERENCE.match(match["hide"]) or _PATH.match(match["hide"]))
    ]


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text with every secret in it replaced.

    Args:
        text: what is to be printed, logged or stored.
        secrets: values to hide besides the token in ``RAY_AUTH_TOKEN`` and what looks like one.
    """
    known = {os.environ.get(TOKEN_VARIABLE, "").strip(), *(each.strip() for each in secrets)}
    for value in sorted(known - {""}, key=len, reverse=True):
        text = text.replace(value, MASK)
    for _, pattern in _SECRETS:
        text = pattern.sub(_hide, text)
    return text


def _hide(match: re.Match[str]) -> str:
    if _REFERENCE.match(match["hide"]):
        return match[0]
    return f"{match['keep']}{MASK}"
