"""Where a cluster's job server is, and the token that opens it.

The token goes into the header of requests and nowhere else: not into the command
line, the environment of jobs, their metadata or a message.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from cider.errors import UsageError
from cider_platform.tokens import (
    PATH_VARIABLE,
    TOKEN_VARIABLE,
    AccessError,
    is_loopback,
    require_token,
)

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_WHERE = f"{TOKEN_VARIABLE}, {PATH_VARIABLE} or the file ~/.ray/auth_token"


@dataclass(frozen=True, slots=True)
class Access:
    """A job server and the token for it."""

    address: str
    """``http://HOST:PORT`` or ``https://HOST:PORT``."""
    token: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def is_local(self) -> bool:
        """True if the address is one of this machine alone."""
        return is_loopback(urlsplit(self.address).hostname or "")

    def refused(self) -> AccessError:
        """Return the error of a request that the job server refused."""
        if not self.token:
            return AccessError(
                f"{self.address} asks for a token and none was found; set {_WHERE} to the cluster's"
            )
        return AccessError(
            f"{self.address} refused the token; {_WHERE} must hold the cluster's own, which "
            "'ray get-auth-token' prints on its head node"
        )


def find_access(address: str | None = None) -> Access:
    """Return the job server to talk to and the token for it.

    Args:
        address: what ``--address`` gave; None looks at RAY_API_SERVER_ADDRESS, then takes this
            machine's.

    Raises:
        UsageError: if it is no address of a job server.
        AccessError: if it is another machine's and there is no token, or the token is unsafe.
    """
    text = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    parts = _parts(text)
    address = f"{parts.scheme}://{parts.netloc}"
    token = require_token(address)
    return Access(address, "" if token is None else token.value)


def _parts(text: str) -> SplitResult:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port
    except ValueError:  # a port that is no number
        fits = None
    if not fits or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(
            "--address must be HOST:PORT of a Ray dashboard, where jobs are submitted, e.g. "
            f"http://127.0.0.1:8265; got {_without_secret(text)!r}"
        )
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"--address must not hold a name or password, got {_without_secret(text)!r}; a token "
            f"is read from {_WHERE}"
        )
    return parts


def _without_secret(text: str) -> str:
    before, at, after = text.rpartition("@")
    return f"...@{after}" if at else before + after
