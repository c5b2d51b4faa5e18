"""Checks of a KubeRay manifest: its structure strictly, then what costs money or fails late."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import jsonschema

from cider_platform.cluster import findings
from cider_platform.cluster.findings import Finding
from cider_platform.cluster.kubernetes_schema import manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KINDS = ("RayCluster", "RayJob")
_SHARED_VOLUMES = ("persistentVolumeClaim", "nfs", "csi")
_LONGEST_IDLE_SECONDS = 60 * findings.LONGEST_IDLE_MINUTES


def check(values: dict[str, Any], *, locked: str) -> list[Finding]:
    """Return what is wrong in a RayCluster or RayJob.

    Args:
        values: the parsed manifest.
        locked: the version of Ray that every pod must have.
    """
    kind = values.get("kind")
    if kind not in KINDS:
        text = f"kind is {kind!r}; allowed are {' and '.join(KINDS)}"
        return [Finding("schema", "kind", text)]
    shape = list(_shape(values, str(kind)))
    if shape:
        return shape
    spec = values["spec"]
    found = list(_job(spec)) if kind == "RayJob" else []
    cluster = spec if kind == "RayCluster" else spec.get("rayClusterSpec")
    if cluster is not None:
        found += _cluster(cluster, locked)
    return found


def _shape(values: dict[str, Any], kind: str) -> Iterator[Finding]:
    validator = jsonschema.Draft202012Validator(manifest(kind))
    for error in sorted(validator.iter_errors(values), key=lambda each: list(map(str, each.path))):
        where = ".".join(str(part) for part in error.absolute_path) or "the file"
        told = error.message if len(error.message) < 200 else f"{error.message[:200]}..."
        yield Finding(
            "schema", where, f"{where}: {told}; correct it, KubeRay would drop or refuse it"
        )


def _job(spec: Mapping[str, Any]) -> Iterator[Finding]:
    if not spec.get("rayClusterSpec") and not spec.get("clusterSelector"):
        yield Finding(
            "schema",
            "spec",
            "a RayJob needs rayClusterSpec, or clusterSelector of a cluster that runs; add one",
        )
    if spec.get("rayClusterSpec") and not spec.get("shutdownAfterJobFinishes"):
        yield Finding(
            "idle-timeout",
            "spec.shutdownAfterJobFinishes",
            "the job's cluster, head and GPUs, stays after the job has ended; set "
            "shutdownAfterJobFinishes: true",
        )
    if not spec.get("activeDeadlineSeconds"):
        yield Finding(
            "cost",
            "spec.activeDeadlineSeconds",
            "nothing ends a job that waits for ever; set activeDeadlineSeconds",
            "warning",
        )


def _cluster(spec: Mapping[str, Any], locked: str) -> list[Finding]:
    pods = dict(_pods(spec))
    images = {f"{name}.image": each["image"] for name, each in _containers(pods)}
    found = [*findings.ray_versions(images.items(), locked), *_images(images)]
    if spec["rayVersion"] != locked:
        found.append(
            Finding(
                "version",
                "rayVersion",
                f"rayVersion is {spec['rayVersion']}, but {locked} is locked; write {locked}",
            )
        )
    found += [*_token(spec), *_autoscaling(spec), *_gpus(spec)]
    for name, pod in pods.items():
        found += _storage(name, pod)
    return found


def _pods(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "head", spec["headGroupSpec"]["template"]["spec"]
    for group in spec["workerGroupSpecs"]:
        yield group["groupName"], group["template"]["spec"]


def _containers(pods: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods.items():
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            yield f"{name}.{container['name']}", container


def _images(images: Mapping[str, str]) -> Iterator[Finding]:
    for where, image in images.items():
        _, colon, tag = image.rpartition("/")[2].partition(":")
        if "@sha256" not in image and (not colon or tag == "latest" or tag.startswith("nightly")):
            yield Finding(
                "unpinned",
                where,
                f"{where} is {image}, which is another image tomorrow; name a version or a digest",
            )


def _token(spec: Mapping[str, Any]) -> Iterator[Finding]:
    mode = (spec.get("authOptions") or {}).get("mode", "missing")
    if mode == "token":
        return
    yield Finding(
        "token",
        "authOptions.mode",
        f"authOptions.mode is {mode}, so every pod of the Kubernetes cluster can run programs "
        "here; set authOptions: {mode: token} (KubeRay 1.5.1 or newer makes the secret)",
    )
    service = spec["headGroupSpec"].get("serviceType", "ClusterIP")
    if service != "ClusterIP" or spec["headGroupSpec"].get("enableIngress"):
        yield Finding(
            "port",
            "headGroupSpec.serviceType",
            f"the head's service is {service} without a token, open beyond the Kubernetes "
            "cluster; use ClusterIP and kubectl port-forward",
        )


def _autoscaling(spec: Mapping[str, Any]) -> Iterator[Finding]:
    if spec.get("enableInTreeAutoscaling"):
        seconds = (spec.get("autoscalerOptions") or {}).get("idleTimeoutSeconds")
        if seconds is None or not 0 < seconds <= _LONGEST_IDLE_SECONDS:
            yield Finding(
                "idle-timeout",
                "autoscalerOptions.idleTimeoutSeconds",
                f"idleTimeoutSeconds is {'missing' if seconds is None else seconds}; set it above "
                f"0 and to at most {_LONGEST_IDLE_SECONDS}, so that idle workers are given back",
            )
    else:
        yield Finding(
            "idle-timeout",
            "enableInTreeAutoscaling",
            "without enableInTreeAutoscaling: true idle GPU pods stay for ever; set it",
        )
    for group in spec["workerGroupSpecs"]:
        if "maxReplicas" not in group:
            yield Finding(
                "max-workers",
                f"{group['groupName']}.maxReplicas",
                f"worker group {group['groupName']} has no maxReplicas, and KubeRay's default is "
                "2147483647; say how many pods you will pay for",
            )


def _gpus(spec: Mapping[str, Any]) -> Iterator[Finding]:
    if not any(_num_gpus(group["template"]["spec"]) for group in spec["workerGroupSpecs"]):
        yield Finding(
            "gpu",
            "workerGroupSpecs",
            "no worker group asks for a GPU; set resources.limits of its container, e.g. "
            "nvidia.com/gpu: 1",
        )
    if _num_gpus(spec["headGroupSpec"]["template"]["spec"]):
        yield Finding(
            "gpu",
            "headGroupSpec",
            "the head asks for a GPU, which is paid for all the time and trains nothing; take it "
            "out of its resources",
        )


def _num_gpus(pod: Mapping[str, Any]) -> int:
    limits = [(each.get("resources") or {}).get("limits") or {} for each in pod["containers"]]
    return sum(int(value) for each in limits for name, value in each.items() if "gpu" in name)


def _storage(name: str, pod: Mapping[str, Any]) -> Iterator[Finding]:
    shared = {
        volume["name"]
        for volume in pod.get("volumes", ())
        if any(kind in volume for kind in _SHARED_VOLUMES)
    }
    container = pod["containers"][0]  # KubeRay runs Ray in the first one
    mounted = [
        each["mountPath"] for each in container.get("volumeMounts", ()) if each["name"] in shared
    ]
    variables = [
        f"{each['name']}={each['value']}"
        for each in container.get("env", ())
        if re.fullmatch(r"CIDER_\w+", each["name"]) and "value" in each
    ]
    for finding in findings.storage("\n".join(variables), mounted=mounted):
        text = f"group {name}: {finding.text}"
        yield Finding(finding.code, f"{name}.{finding.where}", text)
