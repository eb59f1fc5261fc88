"""Rules of KubeRay 1.7's operator beyond its schema, from its controllers/ray/utils/validation.go."""

from collections.abc import Iterator
from typing import Any


def refusals(manifest: dict[str, Any]) -> Iterator[str]:
    """The reasons why the operator would refuse a RayJob or a RayCluster."""
    spec = manifest["spec"]
    if len(manifest["metadata"]["name"]) > 47:
        yield "name is too long"
    if manifest["kind"] == "RayJob":
        yield from job_refusals(spec)
        spec = spec["rayClusterSpec"]
    yield from cluster_refusals(spec)


def job_refusals(spec: dict[str, Any]) -> Iterator[str]:
    if spec.get("backoffLimit") and (spec.get("clusterSelector") or spec.get("submissionMode") == "InteractiveMode"):
        yield "backoffLimit with clusterSelector or InteractiveMode"
    if spec.get("submissionMode") not in (None, "K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"):
        yield "unknown submissionMode"
    if spec.get("submissionMode") == "SidecarMode" and (
        spec.get("submitterPodTemplate") or spec.get("submitterConfig")
    ):
        yield "SidecarMode with submitterPodTemplate or submitterConfig"
    if (spec.get("suspend") or spec.get("ttlSecondsAfterFinished")) and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend or ttlSecondsAfterFinished without shutdownAfterJobFinishes"
    if spec.get("submitterPodTemplate", {}).get("spec", {}).get("restartPolicy") not in (None, "Never", "OnFailure"):
        yield "the submitter's restartPolicy"
    if spec["rayClusterSpec"].get("authOptions", {}).get("enableK8sTokenAuth"):
        yield "k8s-token auth in a RayJob"


def cluster_refusals(spec: dict[str, Any]) -> Iterator[str]:
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    names = [group["groupName"] for group in groups[1:]]
    if len(set(names)) < len(names) or any(len(name) > 63 for name in names):
        yield "group names"
    for group in groups:
        if "labels" in group.get("rayStartParams", {}):
            yield "rayStartParams.labels"
        if group.get("resources") and {"resources", "num-cpus", "num-gpus", "memory"} & group["rayStartParams"].keys():
            yield "resources beside rayStartParams"
    for group in groups[1:]:
        if not group.get("minReplicas", 0) <= group.get("replicas", 0) <= group["maxReplicas"]:
            yield "replicas out of range"
    yield from autoscaler_refusals(spec, groups)
    major, minor = (int(part) for part in spec["rayVersion"].split(".")[:2])
    if spec.get("authOptions", {}).get("mode") == "token" and (major, minor) < (2, 52):
        yield "token auth before Ray 2.52"
    if spec.get("gcsFaultToleranceOptions", {}).get("backend") == "rocksdb":
        yield "embedded RocksDB is an alpha gate"


def autoscaler_refusals(spec: dict[str, Any], groups: list[dict[str, Any]]) -> Iterator[str]:
    head = groups[0]["template"]["spec"]["containers"]
    variables = {item["name"] for container in head for item in container.get("env", [])}
    version = spec.get("autoscalerOptions", {}).get("version")
    if version and "RAY_enable_autoscaler_v2" in variables:
        yield "autoscaler version and its environment variable"
    if version == "v2":
        for group in groups[1:]:
            if group["template"]["spec"].get("restartPolicy") not in (None, "Never"):
                yield "restartPolicy with autoscaler v2"
