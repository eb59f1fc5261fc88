"""Kubernetes manifests of one command: a shipped overlay, rendered by kustomize, with the user's settings."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from hard_ray.errors import HardrayError, StorageError, suggestion
from hard_ray.orchestration.jobs.bucket import ACCOUNT, SCHEMES, bucket_of, refusal, use_bucket
from hard_ray.redaction import masked
from hard_ray.storage.address import Remote, is_url

Manifest = dict[str, Any]

OVERLAYS = {
    "cpu": "one command, on a cluster of CPUs that ends with it",
    "gpu": "one command, on a cluster whose students and teachers have GPU nodes of their own, and that ends with it",
    "cluster": "a GPU cluster that stays, for `hardray submit`",
}
SETTINGS = {
    "image": "the image of all pods of hardray, REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST",
    "name": "of the job or the cluster, and of its run folder",
    "namespace": "that everything is made in",
    "storage-class": "of the volume that holds runs; it must allow ReadWriteMany",
    "storage": "the size of that volume, for example 500Gi, or the URL of a folder for runs, for example s3://BUCKET/runs",
    "service-account": "that has the identity for that bucket; it must be there already",
    "workers": "the most CPU nodes",
    "students": "the most nodes for student workers",
    "teachers": "the most nodes for the teacher pool",
}
GROUPS = {"workers": "cpu", "students": "students", "teachers": "teachers"}
GOES_ON = ("distill", "tune", "recommend", "train-teacher")
"""Verbs that go on with `--continue` alone; the others always do."""

OF_RUN = ("evaluate", "probe")
"""Verbs that write into the folder of the run that they are about."""

VERBS = (*GOES_ON, *OF_RUN, "fit-head", "generate", "score-augmentations", "train-autoencoder")
IMAGE = "hardray"
"""The image's name in the shipped manifests."""

NODES_TIMEOUT_S = 1800
"""Seconds that a job waits for nodes from the autoscaler; a GPU node takes minutes to start."""

NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
"""A job's name: KubeRay appends to it, and the result has to fit into the 63 characters of a label."""

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A label of RFC 1123."""

SUBDOMAIN = re.compile(rf"(?=.{{1,253}}$){LABEL.pattern}(\.{LABEL.pattern})*")
"""Names of most objects of Kubernetes: labels between dots."""

QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])")
"""A size of a volume; Kubernetes takes bytes and thousandths of a byte too, which nobody means."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
REPOSITORY = re.compile(
    r"(?:[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*(:[0-9]{1,5})?/)?"
    r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*"
)
"""HOST:PORT/NAME of an image, as registries take it: the name in small letters."""


class DeploymentError(HardrayError):
    """The manifests cannot be made with these options."""

    exit_code = 2


def render(overlay: str, settings: Mapping[str, str], command: Sequence[str] = ()) -> str:
    """The manifests of one of `OVERLAYS` with some of `SETTINGS`, as one YAML text for `kubectl apply -f -`.

    The command is without `hardray`, and empty for a cluster that stays. Raises DeploymentError if the overlay, a
    setting or the command is unknown, or kustomize is missing.
    """
    check(overlay, settings, command)
    manifests = [each for each in yaml.safe_load_all(_kustomize(overlay)) if each]
    bucket = bucket_of(settings)
    if bucket is not None:
        manifests = use_bucket(manifests, bucket, settings.get("service-account", ACCOUNT))
    for manifest in manifests:
        _set(manifest, settings)
        if manifest["kind"] == "RayJob":
            manifest["spec"]["entrypoint"] = shlex.join(["hardray", *whole(command, overlay, settings)])
    return yaml.safe_dump_all(manifests, sort_keys=False, width=120)


def whole(command: Sequence[str], overlay: str, settings: Mapping[str, str]) -> list[str]:
    """The command that a job runs, without `hardray`, with the options that let a retried job go on.

    Its folder is named like the job, on the shared volume or in the bucket. In the overlay `gpu`, nodes offer slots.
    """
    name, slots, bucket = settings.get("name", "hardray"), overlay == "gpu", bucket_of(settings)
    words, model = list(command), _argument(command)
    of_run = command[0] in OF_RUN and (model.startswith("/runs/") or is_url(model))
    if not of_run and not any(each.split("=")[0] == "--output" for each in command):
        words += ["--output", f"/runs/{name}" if bucket is None else str(bucket / name)]
    if command[0] in GOES_ON and "--continue" not in command:
        words.append("--continue")
    added = {"runtime.nodes_timeout_s": f"{NODES_TIMEOUT_S}", **({"runtime.slots": "true"} if slots else {})}
    given = {each.partition("=")[0] for each in command}
    return words + [f"{key}={value}" for key, value in added.items() if key not in given]


def _argument(command: Sequence[str]) -> str:
    """The first word after a verb that is neither an option nor its value; empty: there is none."""
    found = (
        word
        for before, word in itertools.pairwise(command)
        if word[:1] != "-" and (before[:2] != "--" or "=" in before)
    )
    return next((word for word in found if word), "")


def check(overlay: str, settings: Mapping[str, str], command: Sequence[str]) -> None:
    """Raise a DeploymentError if the overlay, a setting or the verb is unknown, or a job cannot have the command."""
    if overlay not in OVERLAYS:
        raise DeploymentError(f"--overlay {overlay}: there is no such overlay; {suggestion(overlay, list(OVERLAYS))}")
    for key, value in settings.items():
        _check_setting(overlay, key, value)
    if overlay == "cluster" and command:
        raise DeploymentError("the overlay cluster runs no command; submit it once the cluster is there")
    if overlay != "cluster" and not command:
        raise DeploymentError("give the command after --, for example: -- tune --space imagenet.yaml")
    if (problem := refusal(command, settings)) is not None:
        key = "storage" if "storage" in settings else "service-account"
        raise DeploymentError(f"--set {key}={settings[key]}: {problem}")
    if command and command[0] not in VERBS:
        raise DeploymentError(f"{command[0]!r} is not a command of a job; {suggestion(command[0], list(VERBS))}")
    _check_resume(command)


def _check_resume(command: Sequence[str]) -> None:
    """Raise a DeploymentError for `--resume`, which does not go with the options that a job gets."""
    place = next((place for place, word in enumerate(command) if word.partition("=")[0] == "--resume"), None)
    if place is None:
        return
    _, sep, folder = command[place].partition("=")
    folder = folder if sep else next(iter(command[place + 1 :]), "/runs/NAME")
    raise DeploymentError(
        f"--resume {folder}: a job gets --output and --continue, so that it goes on when it is retried, and --resume "
        f"does not go with them; write {shlex.join([command[0], '--output', folder])}, with the options it began with"
    )


def _check_setting(overlay: str, key: str, value: str) -> None:
    if key not in SETTINGS:
        raise DeploymentError(f"--set {key}: there is no such setting; {suggestion(key, list(SETTINGS))}")
    if key in ("students", "teachers") and overlay == "cpu":
        raise DeploymentError(f"--set {key}={value}: the overlay cpu has no such nodes; use workers")
    problem = _problem(key, value)
    if problem is not None:
        raise DeploymentError(f"--set {key}={masked(value)}: {problem}")


def _problem(key: str, value: str) -> str | None:
    """The reason why a setting cannot have a value."""
    if key in GROUPS:
        fits = re.fullmatch(r"[1-9][0-9]{0,8}", value)
        return None if fits else "want a number of nodes, 1 or more, in digits alone"
    if key == "image":
        return _image_problem(value)
    if key == "storage":
        return _storage_problem(value)
    if key in ("storage-class", "service-account"):
        return (
            None if SUBDOMAIN.fullmatch(value) else "want small letters, digits, hyphens and dots, as kubectl lists it"
        )
    if key == "namespace":
        return None if LABEL.fullmatch(value) else "want small letters, digits and hyphens, at most 63, none at an end"
    fits = NAME.fullmatch(value)
    return None if fits else "want small letters, digits and hyphens, at most 40, a letter first and no hyphen last"


def _storage_problem(value: str) -> str | None:
    """The reason why a text is neither a size nor a URL."""
    if is_url(value):
        try:
            scheme = Remote.parse(value).scheme
        except StorageError as error:
            return str(error)
        return None if scheme in SCHEMES else f"want a bucket, {', '.join(f'{each}://' for each in SCHEMES[:4])}"
    fits = QUANTITY.fullmatch(value) and re.search(r"[1-9]", value)
    return None if fits else "want a number above 0 and one unit of Kubernetes, without a space: 500Gi, 1.5Ti, 500G"


def _image_problem(value: str) -> str | None:
    """The reason why a text names no image, or one that moves."""
    name, mark, digest = value.partition("@")
    if mark and not DIGEST.fullmatch(digest):
        return (
            f"want @sha256: and 64 digits of 0 to f, small letters, got {len(digest.partition(':')[2])} after the colon"
        )
    repository, colon, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
    if not REPOSITORY.fullmatch(repository):
        return "want REGISTRY/NAME:TAG, the name in small letters, without https:// and spaces"
    if colon and not TAG.fullmatch(tag):
        return "want a tag of letters, digits, dots, hyphens and underscores, at most 128"
    if not mark and tag in ("", "latest"):
        return "want REGISTRY/NAME:TAG, with a tag other than latest, or @sha256:DIGEST"
    return None


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
        if "storage" in settings and not is_url(settings["storage"]):
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
