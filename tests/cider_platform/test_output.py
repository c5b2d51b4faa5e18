import io
import json
import sys

import pytest

from cider_platform.output import emit_json, emit_table, fail, progress_bar, say, warn


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that makes stderr a terminal and returns what it shows."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def install():
        # Not in the fixture itself: pytest sets stderr anew between set-up and test.
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return install


def test_emit_json_prints_one_versioned_envelope_on_stdout(capsys):
    emit_json("data-list", [{"name": "a"}])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"schema": "cider.data-list/1", "data": [{"name": "a"}]}
    assert captured.err == ""


def test_emit_json_refuses_what_is_not_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit_json("x", float("nan"))


def test_emit_table_on_a_pipe_is_neither_cut_nor_coloured(capsys):
    emit_table(("name", "value"), [("long", "x" * 300), ("[bold]markup[/bold]", None)])
    out = capsys.readouterr().out
    assert "x" * 300 in out
    assert "[bold]markup[/bold]" in out
    assert "\x1b" not in out


def test_messages_go_to_stderr_whole(capsys):
    say("a [path] " + "y" * 300)
    warn("first")
    fail("second")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a [path] " + "y" * 300 in captured.err
    assert captured.err.splitlines()[1:] == ["warning: first", "error: second"]


def test_messages_on_a_terminal_are_coloured_unless_no_color(terminal, monkeypatch):
    shown = terminal()
    warn("look")
    assert "\x1b[1;33mwarning:" in shown.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    shown = terminal()
    warn("look")
    assert "warning:" in shown.getvalue()
    assert "33m" not in shown.getvalue()


def test_progress_bar_draws_on_a_terminal_only(terminal, monkeypatch):
    shown = terminal()
    with progress_bar() as progress:
        progress("read file.pkl", 1, 4)
        progress("read file.pkl", 4, 4)
    assert "read file.pkl" in shown.getvalue()
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress_bar() as progress:
        assert progress is None
    assert pipe.getvalue() == ""
