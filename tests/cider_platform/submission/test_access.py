"""Addresses and tokens: what is refused in a sentence, and that a token is never shown."""

from __future__ import annotations

import pytest

from cider.errors import UsageError
from cider_platform.submission.access import Access, AccessError, find_access

SECRET = "s3cret-t0ken"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home, and none of Ray's variables."""
    for name in (
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_AUTH_MODE",
        "RAY_API_SERVER_ADDRESS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


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
    with pytest.raises(AccessError, match="is not on this machine and no token was found") as told:
        find_access(address)
    assert told.value.exit_code == 4
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("source", ["variable", "file", "home"])
def test_token_is_found_where_ray_looks_for_it(source, home, monkeypatch):
    if source == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    else:
        path = home / ("token" if source == "file" else ".ray/auth_token")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{SECRET}\n")
        if source == "file":
            monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    access = find_access("head:8265")
    assert access.headers == {"Authorization": f"Bearer {SECRET}"}


def test_variable_wins_over_the_file(home, monkeypatch):
    (home / "token").write_text("other")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "token"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    assert find_access("head:8265").token == SECRET


def test_token_file_that_is_named_but_not_there_is_refused(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "gone"))
    with pytest.raises(AccessError, match="gone, which is not there"):
        find_access()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home))
    with pytest.raises(AccessError, match="cannot be read"):
        find_access()


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "caf\u00e9", "bell\a"])
def test_token_that_no_header_carries_is_refused_without_showing_it(token, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(AccessError, match="copy it again") as told:
        find_access("head:8265")
    assert token not in str(told.value)


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


def test_unknown_mode_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "password")
    with pytest.raises(UsageError, match="RAY_AUTH_MODE must be token or disabled"):
        find_access()


def test_access_never_shows_its_token():
    access = Access("http://head:8265", SECRET)
    assert SECRET not in repr(access)
    assert SECRET not in str(access.refused())
    assert "refused the token" in str(access.refused())
    assert "asks for a token" in str(Access("http://127.0.0.1:8265").refused())
