"""Cluster files: every template is sound once filled in, every broken variant is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cider.errors import UsageError
from cider_platform.cluster import findings, launcher
from cider_platform.cluster.files import check_file, parse

ROOT = Path(__file__).resolve().parents[3]
CLOUD = "cluster.yaml"
LOCAL = "platform/clusters/on-premises.yaml"
KUBERNETES = "platform/clusters/kubernetes.yaml"
JOB = "platform/clusters/kubernetes-job.yaml"
SLURM = "platform/clusters/slurm.sh"
TEMPLATES = (CLOUD, LOCAL, KUBERNETES, JOB, SLURM)
VALUES = {
    "EDIT_ME_HEAD": "10.0.0.1",
    "EDIT_ME_WORKER_1": "10.0.0.2",
    "EDIT_ME_WORKER_2": "10.0.0.3",
    "EDIT_ME_USER": "me",
    "EDIT_ME_SHARED": "lustre",
    "EDIT_ME": "registry.example",
}


def filled(name):
    """Return a template's text with values in place of what it leaves to the user."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for placeholder, value in VALUES.items():
        text = text.replace(placeholder, value)
    return text


@pytest.fixture
def checked(tmp_path):
    """Function that checks a text as a file of its own, beside the locked versions."""
    (tmp_path / "constraints.txt").write_bytes((ROOT / "constraints.txt").read_bytes())

    def check(text):
        path = tmp_path / "file"
        path.write_text(text, encoding="utf-8")
        return check_file(path)

    return check


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_that_is_filled_in_has_no_errors(name, checked):
    report = checked(filled(name))
    assert report.is_sound, report.findings
    # Ray's own way with ssh is the one thing that a file cannot help.
    assert {(each.severity, each.code) for each in report.findings} <= {("warning", "port")}


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != CLOUD])
def test_template_as_shipped_says_what_to_fill_in_and_nothing_else(name):
    found = check_file(ROOT / name).findings
    assert found
    assert {each.code for each in found} == {"placeholder"}


def test_cloud_file_needs_nothing_filled_in():
    assert check_file(ROOT / CLOUD).is_sound


@pytest.mark.parametrize("name", [CLOUD, LOCAL])
def test_ray_itself_validates_the_files_for_ray_up(name):
    full = launcher.prepare(parse(ROOT / name, filled(name)))
    assert "cluster_synced_files" in full  # of Ray's defaults, which it demands


def without(pattern):
    return lambda text: re.sub(pattern, "", text, count=0, flags=re.MULTILINE)


def put(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new)

    return change


BROKEN = [
    (CLOUD, put("upscaling_speed: 1.0", "upscaling_sped: 1.0"), "schema", "upscaling_sped"),
    (CLOUD, put("head_node_type: head", "head_node_type: heart"), "schema", "head_node_type"),
    (CLOUD, put("type: aws", "type: brewery"), "schema", "brewery"),
    (CLOUD, put("us-west-2a,", "EDIT_ME,"), "placeholder", "EDIT_ME"),
    (CLOUD, put("ssh_user: ubuntu", "ssh_user: ubuntu\n# AKIAABCDEFGHIJKLMNOP"), "secret", "key"),
    (CLOUD, put("MODE=token", "MODE=token RAY_AUTH_TOKEN=0123456789ab"), "secret", "token"),
    (CLOUD, put("--quiet --constraint", "ray==2.59.0 --constraint"), "version", "2.59.0"),
    (CLOUD, without(r"--constraint \S+ "), "unpinned", "cider-platform"),
    (CLOUD, without(r"^.*pip install.*$"), "unpinned", "no command installs"),
    (CLOUD, put("RAY_AUTH_MODE=token", "A=b"), "token", "RAY_AUTH_MODE"),
    (CLOUD, without(r'^  "~/.ray/auth_token".*$'), "token", "brings none"),
    (CLOUD, without(r"^max_workers: 4$"), "max-workers", "default of 2"),
    (CLOUD, without(r"^    max_workers: 4$"), "max-workers", "gpu_worker"),
    (CLOUD, put("g5.xlarge", "m6i.xlarge"), "gpu", "no worker type"),
    (CLOUD, put("m6i.xlarge", "g5.xlarge"), "gpu", "the head head"),
    (CLOUD, without("^idle_timeout_minutes.*$"), "idle-timeout", "missing"),
    (CLOUD, put("idle_timeout_minutes: 10", "idle_timeout_minutes: 600"), "idle-timeout", "600"),
    (CLOUD, without(r"CIDER_RESULTS=\S+"), "storage", "CIDER_RESULTS"),
    (CLOUD, put("CIDER_STORE=/srv/cider/store", "CIDER_STORE=~/store"), "storage", "own disk"),
    (CLOUD, put("sudo mount -t nfs4", "true"), "storage", "nothing in the file mounts"),
    (CLOUD, put("GroupName: cider-platform", "GroupName: a\n    IpPermissions: "
     '[{FromPort: 8265, ToPort: 8265, IpRanges: [{CidrIp: "0.0.0.0/0"}]}]'), "port", "8265"),
    (LOCAL, without("^  head_ip.*$"), "schema", "head_ip"),
    (LOCAL, put("/mnt/cider/results", "/tmp/results"), "storage", "own disk"),
    (LOCAL, put("RAY_AUTH_MODE=token", "A=b"), "token", "RAY_AUTH_MODE"),
    (KUBERNETES, put("maxReplicas: 4", "maxReplica: 4"), "schema", "maxReplica"),
    (KUBERNETES, put("kind: RayCluster", "kind: RayBrewery"), "schema", "RayBrewery"),
    (KUBERNETES, put("ray.io/v1", "ray.io/v1alpha1"), "schema", "apiVersion"),
    (KUBERNETES, put("mountPath: /mnt/cider", "path: /mnt/cider"), "schema", "volumeMounts"),
    (KUBERNETES, without("^ +maxReplicas: 4$"), "max-workers", "2147483647"),
    (KUBERNETES, without(r"nvidia.com/gpu: 1"), "gpu", "no worker group"),
    (KUBERNETES, put("mode: token", "mode: disabled"), "token", "disabled"),
    (KUBERNETES, without("^ +idleTimeoutSeconds.*$"), "idle-timeout", "missing"),
    (KUBERNETES, put("Autoscaling: true", "Autoscaling: false"), "idle-timeout", "for ever"),
    (KUBERNETES, put('"2.60.0"', '"2.59.1"'), "version", "2.59.1"),
    (KUBERNETES, put("ray2.60.0", "ray2.58.0"), "version", "2.58.0"),
    (KUBERNETES, put(":0.1.0-ray2.60.0", ":latest"), "unpinned", "latest"),
    (KUBERNETES, put("persistentVolumeClaim: {claimName: cider}", "emptyDir: {}"), "storage",
     "group gpu"),
    (JOB, put("shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false"), "idle-timeout",
     "stays"),
    (JOB, put("mode: token", "mode: disabled"), "token", "authOptions"),
    (SLURM, put("done\n", "don\n"), "schema", "bash cannot read"),
    (SLURM, without("^set -euo.*$"), "schema", "set -euo"),
    (SLURM, without("^#SBATCH --nodes.*$"), "max-workers", "--nodes"),
    (SLURM, without("^#SBATCH --time.*$"), "idle-timeout", "--time"),
    (SLURM, without("^#SBATCH --gpus.*$"), "gpu", "GPU"),
    (SLURM, put("CIDER_RESULTS=/lustre/", "CIDER_RESULTS=$HOME/"), "storage", "own disk"),
    (SLURM, put("RAY_AUTH_MODE=token", "A=b"), "token", "RAY_AUTH_MODE"),
    (SLURM, put("mapfile", "pip install ray\nmapfile"), "unpinned", "ray"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "code", "told"), BROKEN)
def test_broken_variant_is_told_with_its_code_and_what_to_do(name, change, code, told, checked):
    report = checked(change(filled(name)))
    errors = [each for each in report.findings if each.severity == "error"]
    assert not report.is_sound
    assert {each.code for each in errors} == {code}, report.findings
    assert any(told in each.text for each in errors), errors
    assert all(";" in each.text or "in its place" in each.text for each in errors)


def test_every_code_of_an_error_has_a_broken_variant():
    warned_only = {"cost"}
    tried = {code for *_, code, _ in BROKEN} | {"port"}
    assert set(findings.CODES) - warned_only <= tried


def test_dashboard_open_to_everybody_without_token_is_two_findings(checked):
    text = put("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0")(filled(CLOUD))
    assert checked(text).is_sound  # behind the token
    codes = {each.code for each in checked(put("MODE=token", "MODE=off")(text)).findings}
    assert {"token", "port"} <= codes


def test_head_service_open_without_token_is_two_findings(checked):
    text = put("serviceType: ClusterIP", "serviceType: LoadBalancer")(filled(KUBERNETES))
    assert checked(text).is_sound
    codes = {each.code for each in checked(put("mode: token", "mode: disabled")(text)).findings}
    assert codes == {"token", "port"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            put("    min_workers: 0\n    max_workers", "    min_workers: 2\n    max_workers"),
            "2 mach",
        ),
        (without("^ +InstanceMarketOptions:\n +MarketType: spot$"), "not spot"),
        (put("cache_stopped_nodes: false", "cache_stopped_nodes: true"), "stopped"),
    ],
)
def test_what_costs_more_than_it_need_is_a_warning(change, told, checked):
    report = checked(change(filled(CLOUD)))
    assert report.is_sound
    assert [each.code for each in report.findings if told in each.text] == ["cost"]


def test_locked_version_is_that_of_constraints_above_the_file(tmp_path):
    (tmp_path / "constraints.txt").write_text("numpy==1\nray==9.8.7\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert findings.locked_ray(tmp_path / "a" / "b") == "9.8.7"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"a: [", "is not YAML"),
        (b"- 1", "must hold one YAML table"),
        (b"a: 1", "is no cluster file"),
        (b"!!python/object/apply:os.system ['true']", "is not YAML"),
        (b"a" * 1_000_001, "larger than"),
    ],
)
def test_file_that_is_none_is_refused_in_a_sentence(content, told, tmp_path):
    path = tmp_path / "cluster.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=told):
        check_file(path)


@pytest.mark.parametrize(
    ("command", "loose"),
    [
        ("pip install -c constraints.txt .", []),
        ("pip install --constraint=constraints.txt -e .[aws]", []),
        ("pip install ray==2.60.0 torch==2.13.0", []),
        ("pip install -U pip", []),
        ("pip install -U 'optuna>=5'", ["optuna>=5"]),
        ("python -m pip install . && echo done", ["."]),
        ("uv pip install -r requirements.txt typer", ["typer"]),
    ],
)
def test_installation_without_fixed_versions_is_told_from_one_with(command, loose):
    found = [each.text for each in findings.unpinned([("setup", command)])]
    assert bool(found) == bool(loose)
    assert all(name in found[0] for name in loose)


def test_cluster_check_command_ends_with_zero_or_two(run_cli, tmp_path):
    code, out, err = run_cli("cluster", "check", ROOT / CLOUD, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == "cider.cluster.check/1"
    assert document["data"]["sound"]
    broken = tmp_path / "cluster.yaml"
    broken.write_text(put("idle_timeout_minutes: 10", "")(filled(CLOUD)))
    code, out, err = run_cli("cluster", "check", broken)
    assert code == 2
    assert "idle-timeout" in out
    assert "1 error" in err
