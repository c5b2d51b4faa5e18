"""The Slurm script on two hosts, with a played Slurm: srun is ssh, scontrol knows the hosts."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from pathlib import Path

import fake_hosts
import pytest
import tiny_corpus

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(fake_hosts.missing()), reason=fake_hosts.missing() or "-"),
]

ROOT = Path(__file__).resolve().parents[2]

SRUN = """#!/usr/bin/env bash
# srun of two hosts: --nodelist=HOST, or every host but --exclude=HOST; its environment goes along.
set -euo pipefail
hosts=({hosts})
while [[ $1 == --* ]]; do
  case $1 in
    --nodelist=*) hosts=("${{1#*=}}") ;;
    --exclude=*) left=(); for h in "${{hosts[@]}}"; do [ "$h" = "${{1#*=}}" ] || left+=("$h"); done
                 hosts=("${{left[@]}}") ;;
  esac
  shift
done
mapfile -t variables < <(env | grep -E '^(RAY_|CIDER_|PATH=|PYTHONPATH=|OMP_)')
for h in "${{hosts[@]}}"; do
  ssh -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \\
    "root@$h" "$(printf '%q ' env "${{variables[@]}}" "$@")" &
done
trap 'kill $(jobs -p) 2> /dev/null' TERM
wait
"""
PROGRAMS = {
    "scontrol": "#!/bin/sh\nprintf '%s\\n' {hosts}\n",
    "cider-platform": '#!/bin/sh\nexec python -m cider_platform "$@"\n',
    # Two Rays beside each other need less than what each would take.
    "ray": "#!/bin/sh\nwhat=$1; shift\n"
    'if [ "$what" = start ]; then set -- "$@" --num-cpus=1 --object-store-memory=100000000; fi\n'
    'exec {ray} "$what" "$@"\n',
}


def test_slurm_script_starts_ray_examines_the_nodes_and_runs_the_command(tmp_path):
    names = ["nodea", "nodeb"]
    shared, bin_folder = tmp_path / "shared", tmp_path / "bin"
    (shared / "cider" / "results").mkdir(parents=True)
    tiny_corpus.write_tiny_corpus(shared / "cider" / "store")
    bin_folder.mkdir()
    text = (ROOT / "platform/clusters/slurm.sh").read_text(encoding="utf-8")
    text = text.replace(
        "/EDIT_ME_SHARED/cider-venv/bin", f"{bin_folder}:{Path(sys.prefix) / 'bin'}"
    )
    script = tmp_path / "slurm.sh"
    script.write_text(text.replace("/EDIT_ME_SHARED", str(shared)))
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    with fake_hosts.FakeHosts(names) as hosts:
        known = {"hosts": " ".join(names), "key": hosts.key, "ray": shutil.which("ray", path=str(
            Path(sys.prefix) / "bin"))}  # fmt: skip
        for name, program in {**PROGRAMS, "srun": SRUN}.items():
            path = bin_folder / name
            path.write_text(program.format(**known))
            path.chmod(0o755)
        environment = {
            "SLURM_JOB_NODELIST": "node[a-b]",
            "SLURM_JOB_ID": "1",
            "RAY_AUTH_TOKEN_PATH": token,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        words = [f"{name}={value}" for name, value in environment.items()]
        doctor = ["doctor", "--address", "auto", "--dataset", "tiny", "--json"]
        done = hosts.ssh(
            "nodea", fake_hosts.quoted(["env", *words, "bash", script, *doctor]), check=False
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        # The script's own examination comes first, as a table; then the command's, as JSON.
        start = done.stdout.index('{\n  "schema"')
        data, _ = json.JSONDecoder().raw_decode(done.stdout[start:])
        assert {each["host"] for each in data["data"]["nodes"]} == set(names)
        assert all(check["well"] for check in data["data"]["checks"])

        refused = hosts.ssh(
            "nodea", fake_hosts.quoted(["env", *words, "bash", script]), check=False
        )
        assert refused.returncode == 2
        assert "give the command to run" in refused.stderr
