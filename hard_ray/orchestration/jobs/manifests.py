"""Kubernetes manifests of one command: a shipped overlay, rendered by kustomize, with the user's settings."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from hard_ray.errors import HardrayError, suggestion

Manifest = dict[str, Any]

OVERLAYS = {
    "cpu": "one command, on a cluster of CPUs that ends with it",
    "gpu": "one command, on a cluster whose students and teachers have GPU nodes of their own, and that ends with it",
    "cluster": "a GPU cluster that stays, for `hardray submit`",
}
SETTINGS = {
    "image": "the image of all pods of hardray, REGISTRY/NAME:TAG",
    "name": "of the job or the cluster, and of its run folder",
    "namespace": "that everything is made in",
    "storage-class": "of the volume that holds runs; it must allow ReadWriteMany",
    "storage": "the size of that volume, for example 500Gi",
    "workers": "the most CPU nodes",
    "students": "the most nodes for student workers",
    "teachers": "the most nodes for the teacher pool",
}
GROUPS = {"workers": "cpu", "students": "students", "teachers": "teachers"}
GOES_ON = ("distill", "tune", "train-teacher")
VERBS = (*GOES_ON, "generate", "evaluate", "score-augmentations", "train-autoencoder")
IMAGE = "hardray"
"""The image's name in the shipped manifests."""

NODES_TIMEOUT_S = 1800
"""Seconds that a job waits for nodes from the autoscaler; a GPU node takes minutes to start."""

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = 40
"""KubeRay appends to the name, and the result has to fit into 63 characters."""


class DeploymentError(HardrayError):
    """The manifests cannot be made with these options."""

    exit_code = 2


def render(overlay: str, settings: Mapping[str, str], command: Sequence[str] = ()) -> str:
    """The manifests of one of `OVERLAYS` with some of `SETTINGS`, as one YAML text for `kubectl apply -f -`.

    The command is without `hardray`, and empty for a cluster that stays. Raises DeploymentError if the overlay, a
    setting or the command is unknown, or kustomize is missing.
    """
    _check(overlay, settings, command)
    manifests = [each for each in yaml.safe_load_all(_kustomize(overlay)) if each]
    for manifest in manifests:
        _set(manifest, settings)
        if manifest["kind"] == "RayJob":
            manifest["spec"]["entrypoint"] = entrypoint(
                command, settings.get("name", "hardray"), slots=overlay == "gpu"
            )
    return yaml.safe_dump_all(manifests, sort_keys=False, width=120)


def entrypoint(command: Sequence[str], name: str, *, slots: bool) -> str:
    """The shell line that a job runs; a retried job goes on with the folder `name` of the shared volume.

    The command is without `hardray`. `slots`: whether nodes offer `student_slot` and `teacher_slot`.
    """
    words = ["hardray", *command]
    of_run = command[0] == "evaluate" and command[1:2] and command[1].startswith("/runs/")  # it keeps its evaluation
    if not of_run and not any(each.split("=")[0] == "--output" for each in command):
        words += ["--output", f"/runs/{name}"]
    if command[0] in GOES_ON and "--continue" not in command:
        words.append("--continue")
    added = {"runtime.nodes_timeout_s": f"{NODES_TIMEOUT_S}", **({"runtime.slots": "true"} if slots else {})}
    given = {each.partition("=")[0] for each in command}
    words += [f"{key}={value}" for key, value in added.items() if key not in given]
    return shlex.join(words)


def _check(overlay: str, settings: Mapping[str, str], command: Sequence[str]) -> None:
    if overlay not in OVERLAYS:
        raise DeploymentError(f"--overlay {overlay}: there is no such overlay; {suggestion(overlay, list(OVERLAYS))}")
    for key, value in settings.items():
        _check_setting(overlay, key, value)
    if overlay == "cluster" and command:
        raise DeploymentError("the overlay cluster runs no command; submit it once the cluster is there")
    if overlay != "cluster" and not command:
        raise DeploymentError("give the command after --, for example: -- tune --space imagenet.yaml")
    if command and command[0] not in VERBS:
        raise DeploymentError(f"{command[0]!r} is not a command of a job; {suggestion(command[0], list(VERBS))}")


def _check_setting(overlay: str, key: str, value: str) -> None:
    if key not in SETTINGS:
        raise DeploymentError(f"--set {key}: there is no such setting; {suggestion(key, list(SETTINGS))}")
    if key in GROUPS and not re.fullmatch(r"[1-9][0-9]*", value):
        raise DeploymentError(f"--set {key}={value}: want a number of nodes, 1 or more")
    if key in ("students", "teachers") and overlay == "cpu":
        raise DeploymentError(f"--set {key}={value}: the overlay cpu has no such nodes; use workers")
    if key == "image" and (":" not in value.rpartition("/")[2] or value.endswith((":latest", ":"))):
        raise DeploymentError(f"--set image={value}: want REGISTRY/NAME:TAG, with a tag other than latest")
    if key in ("name", "namespace") and not (NAME.fullmatch(value) and len(value) <= LONGEST_NAME):
        raise DeploymentError(
            f"--set {key}={value}: want small letters, digits and hyphens, at most {LONGEST_NAME}, a letter first"
        )


def _kustomize(overlay: str) -> str:
    tools = {"kubectl": ("kubectl", "kustomize"), "kustomize": ("kustomize", "build")}
    found = next((words for tool, words in tools.items() if shutil.which(tool)), None)
    if found is None:
        raise DeploymentError("rendering needs kubectl or kustomize, and neither is on the PATH; install kubectl")
    with resources.as_file(resources.files("hard_ray_deploy")) as folder:
        target = str(Path(folder) / "overlays" / overlay)
        done = subprocess.run([*found, target], check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise DeploymentError(f"{' '.join(found)} failed: {done.stderr.strip()}")
    return done.stdout


def _set(manifest: Manifest, settings: Mapping[str, str]) -> None:
    if "namespace" in settings:
        manifest["metadata"]["namespace"] = settings["namespace"]
    if manifest["kind"] in ("RayJob", "RayCluster"):
        manifest["metadata"]["name"] = settings.get("name", manifest["metadata"]["name"])
    if manifest["kind"] == "PersistentVolumeClaim" and manifest["metadata"]["name"] == "hardray-runs":
        if "storage-class" in settings:
            manifest["spec"]["storageClassName"] = settings["storage-class"]
        if "storage" in settings:
            manifest["spec"]["resources"]["requests"]["storage"] = settings["storage"]
    for container in containers(manifest):
        if container["image"].partition(":")[0] == IMAGE:
            container["image"] = settings.get("image", container["image"])
    for group in _groups(manifest):
        key = next((key for key, name in GROUPS.items() if name == group["groupName"]), "")
        wanted = settings.get(key)
        if wanted is not None:
            group["maxReplicas"] = int(wanted)


def containers(value: Any) -> Iterator[Manifest]:
    """Every container of every pod in a manifest."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ("containers", "initContainers"):
                yield from part
            else:
                yield from containers(part)
    elif isinstance(value, list):
        for part in value:
            yield from containers(part)


def _groups(manifest: Manifest) -> list[Manifest]:
    spec = manifest.get("spec", {})
    found: list[Manifest] = spec.get("rayClusterSpec", spec).get("workerGroupSpecs", [])
    return found
