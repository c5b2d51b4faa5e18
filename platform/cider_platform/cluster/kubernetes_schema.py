"""The shape of KubeRay's RayCluster and RayJob, as a strict JSON Schema: unknown fields fail.

Written by hand after the fields of KubeRay's v1 resource definitions (1.5) and of Kubernetes pods;
the definitions themselves come from no package registry. The API server ignores an unknown field
without a word, which is why one is an error here.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TABLE: Schema = {"type": "object"}
_LIST: Schema = {"type": "array"}
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_QUANTITY: Schema = {"type": ["string", "number"]}


def _table(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(of: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": of, "minItems": least}


def _fields(kind: Schema, names: str) -> Schema:
    return dict.fromkeys(names.split(), kind)


_RESOURCES = _table(
    {
        "limits": {"type": "object", "additionalProperties": _QUANTITY},
        "requests": {"type": "object", "additionalProperties": _QUANTITY},
        "claims": _LIST,
    }
)
_VARIABLE = _table({"name": _TEXT, "value": _TEXT, "valueFrom": _TABLE}, ("name",))
_PORT = _table(
    {
        "name": _TEXT,
        "containerPort": _COUNT,
        "hostPort": _COUNT,
        "hostIP": _TEXT,
        "protocol": _TEXT,
    },
    ("containerPort",),
)
_MOUNT = _table(
    {
        **_fields(_TEXT, "name mountPath subPath subPathExpr mountPropagation recursiveReadOnly"),
        "readOnly": _FLAG,
    },
    ("name", "mountPath"),
)
_CONTAINER = _table(
    {
        **_fields(
            _TEXT,
            "name image imagePullPolicy workingDir terminationMessagePath "
            "terminationMessagePolicy restartPolicy",
        ),
        **_fields(_list(_TEXT), "command args"),
        **_fields(_TABLE, "lifecycle livenessProbe readinessProbe startupProbe securityContext"),
        **_fields(_LIST, "envFrom volumeDevices resizePolicy"),
        **_fields(_FLAG, "stdin stdinOnce tty"),
        "env": _list(_VARIABLE),
        "ports": _list(_PORT),
        "resources": _RESOURCES,
        "volumeMounts": _list(_MOUNT),
    },
    ("name", "image"),
)
_VOLUME: Schema = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        **_fields(
            _TABLE,
            "persistentVolumeClaim emptyDir hostPath nfs csi secret configMap projected ephemeral "
            "downwardAPI",
        ),
    },
    "required": ["name"],
    "minProperties": 2,
    "maxProperties": 2,
    "additionalProperties": False,
}
_POD = _table(
    {
        "containers": _list(_CONTAINER, 1),
        "initContainers": _list(_CONTAINER),
        "volumes": _list(_VOLUME),
        "nodeSelector": _TEXTS,
        **_fields(_TABLE, "affinity securityContext dnsConfig overhead os"),
        **_fields(
            _LIST,
            "tolerations imagePullSecrets hostAliases topologySpreadConstraints readinessGates "
            "resourceClaims schedulingGates",
        ),
        **_fields(
            _TEXT,
            "serviceAccountName priorityClassName runtimeClassName schedulerName restartPolicy "
            "dnsPolicy hostname subdomain nodeName preemptionPolicy",
        ),
        **_fields(
            _FLAG,
            "hostNetwork hostPID hostIPC hostUsers shareProcessNamespace enableServiceLinks "
            "automountServiceAccountToken",
        ),
        **_fields(_COUNT, "terminationGracePeriodSeconds activeDeadlineSeconds priority"),
    },
    ("containers",),
)
_TEMPLATE = _table(
    {"metadata": _table({"labels": _TEXTS, "annotations": _TEXTS}), "spec": _POD}, ("spec",)
)
_HEAD = _table(
    {
        "serviceType": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        "headService": _TABLE,
        "enableIngress": _FLAG,
        "rayStartParams": _TEXTS,
        "template": _TEMPLATE,
        "resources": _TEXTS,
        "labels": _TEXTS,
    },
    ("template",),
)
_WORKERS = _table(
    {
        "groupName": _TEXT,
        **_fields(_COUNT, "replicas minReplicas maxReplicas numOfHosts idleTimeoutSeconds"),
        "rayStartParams": _TEXTS,
        "template": _TEMPLATE,
        "scaleStrategy": _TABLE,
        "suspend": _FLAG,
        "resources": _TEXTS,
        "labels": _TEXTS,
    },
    ("groupName", "template"),
)
_AUTOSCALER = _table(
    {
        "resources": _RESOURCES,
        **_fields(_TEXT, "image imagePullPolicy"),
        "version": {"enum": ["v1", "v2"]},
        "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
        "idleTimeoutSeconds": _COUNT,
        "env": _list(_VARIABLE),
        **_fields(_LIST, "envFrom volumeMounts"),
        "securityContext": _TABLE,
    }
)
CLUSTER = _table(
    {
        "rayVersion": _TEXT,
        "authOptions": {
            "type": "object",
            "properties": {"mode": {"enum": ["disabled", "token"]}},
            "required": ["mode"],
        },
        "enableInTreeAutoscaling": _FLAG,
        "autoscalerOptions": _AUTOSCALER,
        "gcsFaultToleranceOptions": _TABLE,
        "headServiceAnnotations": _TEXTS,
        "suspend": _FLAG,
        "managedBy": _TEXT,
        "upgradeStrategy": _TABLE,
        "headGroupSpec": _HEAD,
        "workerGroupSpecs": _list(_WORKERS),
    },
    ("rayVersion", "headGroupSpec", "workerGroupSpecs"),
)
JOB = _table(
    {
        **_fields(_TEXT, "entrypoint runtimeEnvYAML jobId entrypointResources managedBy"),
        **_fields(
            _COUNT,
            "activeDeadlineSeconds preRunningDeadlineSeconds backoffLimit ttlSecondsAfterFinished",
        ),
        **_fields({"type": "number", "minimum": 0}, "entrypointNumCpus entrypointNumGpus"),
        **_fields(_FLAG, "shutdownAfterJobFinishes suspend"),
        **_fields(_TEXTS, "metadata clusterSelector"),
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        "submitterPodTemplate": _TEMPLATE,
        "submitterConfig": _table({"backoffLimit": _COUNT}),
        "deletionStrategy": _TABLE,
        "rayClusterSpec": CLUSTER,
    },
    ("entrypoint",),
)
_NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$"}


def manifest(kind: str) -> Schema:
    """Return the schema of a whole manifest.

    Args:
        kind: ``RayCluster`` or ``RayJob``.
    """
    return _table(
        {
            "apiVersion": {"const": "ray.io/v1"},
            "kind": {"const": kind},
            "metadata": _table(
                {"name": _NAME, "namespace": _TEXT, "labels": _TEXTS, "annotations": _TEXTS},
                ("name",),
            ),
            "spec": {"RayCluster": CLUSTER, "RayJob": JOB}[kind],
        },
        ("apiVersion", "kind", "metadata", "spec"),
    )
