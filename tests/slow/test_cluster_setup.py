"""The cloud file's setup commands, run in an empty home: the project comes out installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

# What a machine of the cloud has and this one may not; root's commands are written down, not run.
PLAYED = {
    "python3.12": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    "mount.nfs4": "#!/bin/sh\n",
    "sudo": '#!/bin/sh\necho "$@" >> "$HOME/sudo.log"\n',
}


@pytest.mark.slow
def test_setup_commands_install_the_project_at_its_locked_versions(tmp_path):
    home, programs = tmp_path / "home", tmp_path / "programs"
    for folder in (home / ".ray", programs):
        folder.mkdir(parents=True)
    for name, text in PLAYED.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (home / ".bashrc").write_text("")
    (home / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    values = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    left = shutil.ignore_patterns(".git", ".*cache", "__pycache__", ".venv")
    shutil.copytree(ROOT, home / "cider-platform", ignore=left)

    environment = {name: os.environ[name] for name in os.environ if name.startswith("PIP_")}
    environment |= {
        "HOME": str(home),
        "USER": "me",
        "PATH": f"{programs}:/usr/bin:/bin",
    }

    def shell(text):
        done = subprocess.run(
            ["bash", "-c", text], env=environment, cwd=home, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    for _ in range(2):  # ray up runs them again on a cluster that is there
        for command in values["setup_commands"]:
            shell(command)

    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert (home / ".bashrc").read_text().count("RAY_AUTH_MODE=token") == 1
    told = shell(". ~/.bashrc && cider-platform --version && ray --version && echo $CIDER_RESULTS")
    locked = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    version = next(line for line in locked.splitlines() if line.startswith("ray==")).split("==")[1]
    assert "cider-platform 0.1.0" in told
    assert f"version {version}" in told
    assert "/srv/cider/results" in told
    assert "mkdir -p /srv/cider" in (home / "sudo.log").read_text()
