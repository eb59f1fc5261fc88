"""Manifests of a job whose runs are in a bucket: no shared volume, and a service account's identity instead of keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hard_ray.storage.address import Remote, is_url

SCHEMES = ("s3", "gs", "gcs", "abfss", "abfs", "az", "oss")
"""Those of buckets that runs can be written to."""

Manifest = dict[str, Any]

ACCOUNT = "hardray"
"""The service account of the shipped manifests."""

METADATA = ("169.254.169.254/32", "169.254.169.252/32", "169.254.170.23/32")
"""Addresses of a node from which the clouds' clients take the identity of a service account."""


def bucket_of(settings: Mapping[str, str]) -> Remote | None:
    """The URL below which jobs write; None: a volume. StorageError: the URL cannot be used."""
    storage = settings.get("storage", "")
    return Remote.parse(storage) if is_url(storage) else None


_ON_VOLUME = re.compile(r"(?:^|[=:,\[ ])(/runs(?:/[^\s,\]]*)?)$|(?:^|[=:,\[ ])(/runs/[^\s,\]]*)")
"""A path on the volume, in a word of a command."""


def refusal(command: Sequence[str], settings: Mapping[str, str]) -> str | None:
    """The reason why a command and settings do not go together with a bucket, or with none; None: they do."""
    if bucket_of(settings) is None:
        return (
            None if "service-account" not in settings else "it is for runs in a bucket; give storage=s3://BUCKET/NAME"
        )
    if "storage-class" in settings:
        return "there is no volume with runs in a bucket; leave storage-class out"
    on_volume = next((found[1] or found[2] for word in command if (found := _ON_VOLUME.search(word))), None)
    if on_volume is not None:
        return f"{on_volume} is then on each pod's own disk, and goes with the pod; give a URL"
    return None


def use_bucket(manifests: list[Manifest], bucket: Remote, account: str) -> list[Manifest]:
    """The manifests without the shared volume: every pod has its own, and the identity of a service account."""
    kept = [each for each in manifests if each["metadata"]["name"] != "hardray-runs"]
    if account != ACCOUNT:
        kept = [each for each in kept if each["kind"] != "ServiceAccount" or each["metadata"]["name"] != ACCOUNT]
    for manifest in kept:
        for pod in _pods(manifest):
            for volume in pod.get("volumes", []):
                if volume.get("persistentVolumeClaim", {}).get("claimName") == "hardray-runs":
                    del volume["persistentVolumeClaim"]
                    volume["emptyDir"] = {}
            if pod.get("serviceAccountName") == ACCOUNT:
                pod["serviceAccountName"] = account
        cluster = manifest.get("spec", {}).get("rayClusterSpec", manifest.get("spec", {}))
        if "headGroupSpec" in cluster:  # the driver runs there; its autoscaler uses the Kubernetes API
            head = cluster["headGroupSpec"]["template"]["spec"]
            head.update(serviceAccountName=account, automountServiceAccountToken=True)
        if manifest["kind"] == "NetworkPolicy" and manifest["metadata"]["name"] == "hardray-ray":
            blocks = [{"ipBlock": {"cidr": cidr}} for cidr in METADATA]
            manifest["spec"]["egress"].append({"to": blocks, "ports": [{"port": 80}, {"port": 988}]})
            if port := _port(bucket):
                manifest["spec"]["egress"].append({"ports": [{"port": port}]})
    return kept


def _port(bucket: Remote) -> int | None:
    """The port of an endpoint of the user's own; None: HTTPS, which is open anyway."""
    _, colon, port = bucket.options.get("endpoint_override", "").rpartition(":")
    if colon and port.isdigit():
        return int(port)
    return 80 if bucket.options.get("scheme") == "http" else None


def _pods(value: Any) -> Iterator[dict[str, Any]]:
    """The specification of every pod."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for part in value.values():
            yield from _pods(part)
    elif isinstance(value, list):
        for part in value:
            yield from _pods(part)
