"""Commands are imported when they are called; help and completion say the same nevertheless."""

import json
import os
import subprocess
import sys

import pytest
from typer.main import get_command

from cider_platform.cli import app
from cider_platform.commands.table import ENTRIES

LOADED = """
import contextlib, io, json, sys
from cider_platform.cli import main
sys.argv = ["cider-platform", *sys.argv[1:]]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture
def group():
    return get_command(app)


@pytest.fixture
def real(group):
    """Every command as it is, by name."""
    return {name: group.resolve_command(None, [name])[1] for name in group.commands}


@pytest.fixture
def modules_after():
    def run(*arguments):
        command = [sys.executable, "-c", LOADED, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return set(json.loads(done.stdout))

    return run


@pytest.fixture
def complete():
    """Function that completes the last word of a line as the shell asks for it."""

    def run(line):
        environment = {
            "_CIDER_PLATFORM_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        command = [sys.executable, "-m", "cider_platform"]
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        return done.stdout.split()

    return run


def test_help_is_what_it_would_be_with_every_command_imported(group, real, capsys):
    def help_text():
        group.main(["--help"], prog_name="cider-platform", standalone_mode=False)
        return capsys.readouterr().out

    from_the_table = help_text()
    group.commands = real
    assert from_the_table == help_text()
    assert "tune" in from_the_table


def test_every_line_of_help_is_the_first_paragraph_of_the_commands_own(real):
    firsts = {name: " ".join(each.help.split("\n\n")[0].split()) for name, each in real.items()}
    assert {entry.name: entry.help for entry in ENTRIES} == firsts
    assert list(firsts) == [entry.name for entry in ENTRIES], "no name twice"


def test_help_imports_no_command(modules_after):
    found = modules_after("--help")
    ours = {name for name in found if name.startswith("cider_platform.commands.")}
    assert ours == {f"cider_platform.commands.{name}" for name in ("lazy_group", "table")}
    assert not found & {"numpy", "pyarrow", "pydantic", "cider.spec"}


def test_a_command_imports_no_other(modules_after):
    found = modules_after("metrics")
    assert "cider_platform.commands.lists" in found
    assert "cider_platform.commands.train" not in found


def test_a_group_has_the_commands_of_all_its_modules(real):
    assert {"list", "show", "over-seeds", "significance"} <= set(real["runs"].commands)
    assert {"list", "show", "best", "why", "leak"} <= set(real["study"].commands)


def test_a_mistyped_command_is_refused_with_the_likely_one(run_cli):
    code, _, err = run_cli("tunne")
    assert code == 2
    assert "No such command 'tunne'. Did you mean 'tune'?" in err


def test_completion_knows_commands_those_of_groups_and_options(complete):
    assert complete("cider-platform eval") == ["evaluate", "evaluate-runs"]
    assert complete("cider-platform study imp") == ["importance"]
    assert complete("cider-platform tune --tri") == ["--trials"]
