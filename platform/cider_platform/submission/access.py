"""Where a cluster's job server is, and the token that opens it.

The token is read here, goes into the header of requests and nowhere else: not into the command
line, the environment of jobs, their metadata or a message.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from cider.errors import CiderError, UsageError
from cider_platform.tokens import MODE_VARIABLE, PATH_VARIABLE, TOKEN_VARIABLE, is_loopback

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_TOKEN_FILE = Path(".ray") / "auth_token"
_WHERE = f"{TOKEN_VARIABLE}, {PATH_VARIABLE} or the file ~/{_TOKEN_FILE}"


class AccessError(CiderError):
    """A cluster asks for a token that was not given, or was given another."""

    exit_code = 4


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
        AccessError: if it is another machine's and there is no token, or the token cannot be read.
    """
    text = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    parts = _parts(text)
    access = Access(f"{parts.scheme}://{parts.netloc}", _token())
    if not access.token and not access.is_local:
        raise AccessError(
            f"{access.address} is not on this machine and no token was found; anyone who reaches "
            f"an open job server runs what they like there, so give it one, and set {_WHERE}"
        )
    return access


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


def _token() -> str:
    """Return the token that Ray itself would send, or nothing."""
    if os.environ.get(MODE_VARIABLE, "token") not in ("token", "disabled"):
        raise UsageError(
            f"{MODE_VARIABLE} must be token or disabled, got {os.environ[MODE_VARIABLE]!r}"
        )
    token = os.environ.get(TOKEN_VARIABLE, "")
    named = os.environ.get(PATH_VARIABLE)
    if not token:
        path = Path(named).expanduser() if named else Path.home() / _TOKEN_FILE
        try:
            token = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if named:
                raise AccessError(f"{PATH_VARIABLE} names {named}, which is not there") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise AccessError(f"the token file {path} cannot be read: {reason}") from None
    token = token.strip()
    if not token.isascii() or any(each.isspace() or not each.isprintable() for each in token):
        raise AccessError(
            f"the token from {_WHERE} has blanks or characters that no header carries; copy it "
            "again"
        )
    return token
