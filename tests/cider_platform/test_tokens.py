"""Tokens: found as Ray finds them, checked, demanded beyond this machine, hidden in texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cider.errors import UsageError
from cider_platform import tokens
from cider_platform.tokens import AccessError

SECRET = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def without_tokens(home):
    """No test finds a token that is not its own."""
    return home


@pytest.fixture
def token_file(home):
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text(f" {SECRET}\n")
    path.chmod(0o600)
    return path


# What Ray's own loader finds for a list of environments, in one process.
RAYS = """
import json, os, sys
from ray._raylet import AuthenticationTokenLoader
from ray.exceptions import AuthenticationError
found = []
for variables in json.loads(sys.argv[1]):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    os.environ.update(variables)
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        found.append(loader.get_raw_token(ignore_auth_mode=True) or None)
    except AuthenticationError:
        found.append("refused")
print(json.dumps(found))
"""


def ours(variables):
    try:
        found = tokens.find_token(variables)
    except AccessError:
        return "refused"
    return found and found.value


def test_token_is_the_one_that_ray_finds(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "full").write_text("from-a-file\n")
    (folder / "empty").write_text("\n")
    cases = [
        {},
        {"RAY_AUTH_TOKEN": ""},
        {"RAY_AUTH_TOKEN": " from-a-variable "},
        {"RAY_AUTH_TOKEN_PATH": ""},
        {"RAY_AUTH_TOKEN_PATH": str(folder / "full")},
        {"RAY_AUTH_TOKEN_PATH": str(folder / "empty")},
        {"RAY_AUTH_TOKEN_PATH": str(folder / "none")},
        {"RAY_AUTH_TOKEN": "first", "RAY_AUTH_TOKEN_PATH": str(folder / "full")},
    ]
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("of-the-home\n")
    done = subprocess.run(
        [sys.executable, "-c", RAYS, json.dumps(cases)],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = json.loads(done.stdout.splitlines()[-1])
    assert [ours({"HOME": str(home), **case}) for case in cases] == expected
    assert set(expected) == {"of-the-home", "from-a-variable", "from-a-file", "first", "refused"}


@pytest.mark.parametrize(
    ("address", "here"),
    [
        (None, True),
        ("auto", True),
        ("local", True),
        ("http://127.0.0.1:8265", True),
        ("localhost:8265", True),
        ("[::1]:8265", True),
        ("ray://127.0.0.2:10001", True),
        ("10.77.0.1:6379", False),
        ("http://head.example:8265", False),
        ("http://localhost.example:8265", False),
        ("0.0.0.0:8265", False),
    ],
)
def test_address_of_this_machine_is_told_from_others(address, here):
    assert tokens.is_this_machine(address) is here


def test_address_in_the_environment_decides_where_auto_leads(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    assert not tokens.is_this_machine("auto")


@pytest.mark.parametrize("address", ["http://", "a b:1", "host:port", "$(reboot)", "http://;ls"])
def test_address_that_is_none_is_refused(address):
    with pytest.raises(UsageError, match="an address is"):
        tokens.is_this_machine(address)


def test_cluster_elsewhere_without_token_is_refused_and_says_how():
    with pytest.raises(AccessError, match=r"no token for .*generate"):
        tokens.require_token("http://10.0.0.5:8265")


def test_cluster_here_without_token_is_allowed():
    assert tokens.require_token("http://127.0.0.1:8265") is None
    assert tokens.client_environment(None) == {}


def test_cluster_elsewhere_with_tokens_off_is_refused(token_file, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UsageError, match="RAY_AUTH_MODE"):
        tokens.require_token("http://10.0.0.5:8265")


def test_token_of_a_private_file_is_used_and_not_shown(token_file):
    found = tokens.require_token("http://10.0.0.5:8265")
    assert found.header == {"Authorization": f"Bearer {SECRET}"}
    assert SECRET not in repr(found)
    assert tokens.client_environment("http://10.0.0.5:8265") == {"RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o604])
def test_token_file_that_everybody_reads_is_refused(token_file, mode):
    token_file.chmod(mode)
    with pytest.raises(AccessError, match="chmod 600"):
        tokens.require_token("http://10.0.0.5:8265")


def test_token_that_is_short_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "short")
    with pytest.raises(AccessError, match="has 5 characters; at least 16"):
        tokens.require_token("10.0.0.5:6379")


@pytest.mark.parametrize("value", [f"{'x' * 8} {'y' * 20}", "line\nbreak", "caf\u00e9", "bell\a"])
@pytest.mark.parametrize("address", ["10.0.0.5:6379", "127.0.0.1:8265"])
def test_token_that_no_header_carries_is_refused_without_showing_it(monkeypatch, value, address):
    monkeypatch.setenv("RAY_AUTH_TOKEN", value)
    with pytest.raises(AccessError, match="copy it again") as caught:
        tokens.require_token(address)
    assert value not in str(caught.value)


@pytest.mark.parametrize("address", ["10.0.0.5:6379", None])
def test_mode_that_ray_does_not_know_is_refused(monkeypatch, address):
    monkeypatch.setenv("RAY_AUTH_MODE", "password")
    with pytest.raises(UsageError, match="RAY_AUTH_MODE must be token or disabled"):
        tokens.require_token(address)


TEXTS = [
    (f"RAY_AUTH_TOKEN={SECRET} ray start", SECRET),
    (f'{{"Authorization": "Bearer {SECRET}"}}', SECRET),
    ("postgresql://me:pass-word@db.example/optuna", "pass-word"),
    ('aws_secret_access_key = "wJalrXUtnFEMIK7MDENGbPxRfiCY"', "wJalrXUtnFEMIK7MDENGbPxRfiCY"),
    ("key AKIAABCDEFGHIJKLMNOP in use", "AKIAABCDEFGHIJKLMNOP"),
    ("hf_abcdefghijklmnopqrstuv", "hf_abcdefghijklmnopqrstuv"),
    ("secret_key=/x7K/abcdefgh", "/x7K/abcdefgh"),
    ("password: correct-horse", "correct-horse"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----", "abc"),
]


@pytest.mark.parametrize(("text", "secret"), TEXTS)
def test_secret_is_hidden(text, secret):
    assert secret not in tokens.mask(text)
    assert tokens.MASK in tokens.mask(text)


@pytest.mark.parametrize(
    ("text", "secret"), [each for each in TEXTS if not each[1].startswith("/")]
)
def test_secret_is_found_and_told_without_its_value(text, secret):
    (found, *_) = tokens.find_secrets(f"\n{text}")
    assert found.startswith("line 2 holds")
    assert secret not in found


@pytest.mark.parametrize(
    "text",
    [
        "tokens = 50, max_tokens=128",
        "RAY_AUTH_TOKEN_PATH=/etc/ray/token",
        "token: $RAY_AUTH_TOKEN",
        'key_name: "auth_token"',
        "the token file ~/.ray/auth_token",
        "s3://bucket/results",
        "sk-learn is scikit-learn",
    ],
)
def test_text_without_secret_stays_as_it_is(text):
    assert tokens.mask(text) == text
    assert not tokens.find_secrets(text)


def test_path_that_stands_for_a_secret_is_no_find():
    assert tokens.find_secrets("token: ~/.ray/auth_token") == []


def test_mask_hides_the_token_in_use_and_given_values(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "in-use-in-use-in-use")
    assert tokens.mask("a in-use-in-use-in-use b given c", ["given"]) == (
        f"a {tokens.MASK} b {tokens.MASK} c"
    )
