"""cluster.yaml against a played cloud: bootstrapped by Ray, node types launched and terminated."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from unittest import mock

import boto3
import pytest
from moto import mock_aws
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from cider_platform.cluster.files import parse
from cider_platform.cluster.launcher import prepare

ROOT = Path(__file__).resolve().parents[3]
REGION = "us-west-2"


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """A played AWS, empty but for its own images and policies, and a home without credentials."""
    (tmp_path / ".ssh").mkdir()
    values = {
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        yield boto3.client("ec2", region_name=REGION)


def bootstrapped():
    """Return cluster.yaml as ``ray up`` completes it; what Ray prints is swallowed."""
    values = parse(ROOT / "cluster.yaml", (ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        # It waits for what a played cloud has at once.
        mock.patch("ray.autoscaler._private.aws.config.time.sleep"),
    ):
        return _bootstrap_config(prepare(values), no_config_cache=True)


def running(client):
    reservations = client.describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    )["Reservations"]
    return [each for reservation in reservations for each in reservation["Instances"]]


def launch(provider, full, kind):
    node_type = full["available_node_types"][kind]
    tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: kind}
    with contextlib.redirect_stdout(io.StringIO()):
        provider.create_node(dict(node_type["node_config"]), tags, 1)


@pytest.mark.filterwarnings("default")  # of the played cloud and the client library
def test_cloud_file_is_bootstrapped_launched_and_terminated(cloud):
    client = cloud
    group = client.create_security_group(GroupName="cider-platform", Description="ssh from one")
    client.authorize_security_group_ingress(
        GroupId=group["GroupId"], CidrIp="192.0.2.7/32", IpProtocol="tcp", FromPort=22, ToPort=22
    )
    full = bootstrapped()

    worker = full["available_node_types"]["gpu_worker"]
    assert worker["resources"]["GPU"] == 1
    assert worker["resources"]["CPU"] == 4
    assert worker["resources"]["accelerator_type:A10G"] == 1
    assert worker["max_workers"] == full["max_workers"] == 4
    head = full["available_node_types"]["head"]
    assert head["resources"] == {"CPU": 0}
    # The group that was there is used as it is: no second rule opens ssh to everybody.
    for node in (head, worker):
        assert node["node_config"]["SecurityGroupIds"] == [group["GroupId"]]
    (found,) = client.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    assert "0.0.0.0/0" not in str(found["IpPermissions"])

    provider = _get_node_provider(full["provider"], full["cluster_name"])
    for kind in ("head", "gpu_worker"):
        launch(provider, full, kind)
    machines = {each["InstanceType"]: each for each in running(client)}
    assert set(machines) == {"m6i.xlarge", "g5.xlarge"}
    assert machines["g5.xlarge"].get("InstanceLifecycle") == "spot"
    assert machines["m6i.xlarge"].get("InstanceLifecycle") != "spot"
    with contextlib.redirect_stdout(io.StringIO()):
        provider.terminate_nodes(provider.non_terminated_nodes({}))
    assert running(client) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_group_that_ray_makes_itself_opens_ssh_to_everybody_as_the_check_warns(cloud):
    full = bootstrapped()
    (group,) = full["available_node_types"]["head"]["node_config"]["SecurityGroupIds"]
    (found,) = cloud.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    everybody = [
        rule["FromPort"]
        for rule in found["IpPermissions"]
        if {"CidrIp": "0.0.0.0/0"} in [{"CidrIp": each["CidrIp"]} for each in rule["IpRanges"]]
    ]
    assert everybody == [22]
