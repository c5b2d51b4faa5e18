"""Load a file that starts a cluster, tell its kind, and say what is wrong in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import yaml

from cider.errors import UsageError
from cider_platform.cluster import findings, kubernetes, launcher, slurm

if TYPE_CHECKING:
    from pathlib import Path

    from cider_platform.cluster.findings import Finding

MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in one file."""

    path: Path
    kind: str
    """``ray up``, ``RayCluster``, ``RayJob`` or ``slurm``."""
    validated_by: str
    """Whose rules the file was held against besides ours."""
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether the file can be used: it may have warnings, but no errors."""
        return not any(each.severity == "error" for each in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "file": str(self.path),
            "kind": self.kind,
            "validated_by": self.validated_by,
            "sound": self.is_sound,
            "findings": [asdict(each) for each in self.findings],
        }


def check_file(path: Path) -> Report:
    """Return what is wrong in a cluster file; nothing in it is run.

    Args:
        path: a YAML file for ``ray up``, a KubeRay manifest, or a Slurm batch script.

    Raises:
        UsageError: if it cannot be read, or is none of these.
    """
    text = read_text(path)
    locked = findings.locked_ray(path.resolve().parent)
    common = [*findings.placeholders(text), *findings.secrets(text)]
    if slurm.is_script(text):
        found = slurm.check(text, locked=locked)
        return _report(path, "slurm", "bash -n", common, found)
    values = parse(path, text)
    if str(values.get("apiVersion", "")).startswith("ray.io/"):
        found = kubernetes.check(values, locked=locked)
        rules = "a strict check of structure written after KubeRay's resource definitions"
        return _report(path, str(values.get("kind")), rules, common, found)
    if "provider" in values or "cluster_name" in values:
        found = launcher.check(values, locked=locked)
        return _report(path, "ray up", "Ray's ray-schema.json and validate_config", common, found)
    raise UsageError(
        f"{path} is no cluster file: a file for ray up has provider, a KubeRay manifest has "
        "apiVersion: ray.io/v1, a Slurm script has #SBATCH lines"
    )


def _report(
    path: Path, kind: str, rules: str, common: list[Finding], found: list[Finding]
) -> Report:
    every = sorted([*found, *common], key=lambda each: each.severity)
    return Report(path, kind, rules, tuple(dict.fromkeys(every)))


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        UsageError: if there is no such file, it is too large, or not UTF-8.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is larger than a cluster file can be ({MOST_BYTES} bytes)")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}; give a cluster file") from None


def parse(path: Path, text: str) -> dict[str, Any]:
    """Return the one table a YAML text holds; tags that would build objects are refused.

    Raises:
        UsageError: if it is not YAML, or holds something else than one table.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise UsageError(f"{path} is not YAML: {line}; correct it") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold one YAML table, it holds {type(values).__name__}")
    return values
