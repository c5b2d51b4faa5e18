"""Addresses and tokens: what is refused in a sentence, and that a token is never shown."""

from __future__ import annotations

import pytest

from cider.errors import UsageError
from cider_platform.submission.access import Access, find_access
from cider_platform.tokens import AccessError

SECRET = "s3cret-t0ken-of-a-cluster"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        (None, "http://127.0.0.1:8265"),
        ("localhost:8265", "http://localhost:8265"),
        ("http://127.0.0.2:99/", "http://127.0.0.2:99"),
        ("https://[::1]:8265", "https://[::1]:8265"),
    ],
)
def test_address_of_this_machine_needs_no_token(given, address):
    access = find_access(given)
    assert (access.address, access.token, access.headers) == (address, "", {})
    assert access.is_local


def test_address_comes_from_the_environment_if_the_option_does_not_give_it(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:99")
    assert find_access().address == "http://127.0.0.1:99"
    assert find_access("127.0.0.1:98").address == "http://127.0.0.1:98"


@pytest.mark.parametrize("address", ["head:8265", "http://10.1.2.3:8265", "127.0.0.1.evil.com:80"])
def test_address_elsewhere_is_refused_without_a_token(address):
    with pytest.raises(AccessError, match="no token for") as told:
        find_access(address)
    assert told.value.exit_code == 4
    assert "\n" not in str(told.value)


def test_token_goes_into_the_header(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", f" {SECRET}\n")
    assert find_access("head:8265").headers == {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize(
    "address",
    [
        "ray://head:10001",
        "head",
        "head:port",
        "http://head:8265/api",
        "http://head:8265?a=b",
        "file:///etc/passwd",
        "http://:8265",
        "head:99999",
        "$(reboot):8265/x",
    ],
)
def test_text_that_is_no_address_is_refused(address):
    with pytest.raises(UsageError, match="--address must be HOST:PORT"):
        find_access(address)


def test_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(UsageError, match="must not hold a name or password") as told:
        find_access(f"http://me:{SECRET}@head:8265")
    assert SECRET not in str(told.value)
    with pytest.raises(UsageError) as told:
        find_access(f"http://me:{SECRET}@head:8265/path")
    assert SECRET not in str(told.value)


def test_access_never_shows_its_token():
    access = Access("http://head:8265", SECRET)
    assert SECRET not in repr(access)
    assert SECRET not in str(access.refused())
    assert "refused the token" in str(access.refused())
    assert "asks for a token" in str(Access("http://127.0.0.1:8265").refused())
