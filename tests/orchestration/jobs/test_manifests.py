"""The shipped manifests: rendered, against the schemas, the operator's rules and our own."""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hard_ray_cli.main import app
from typer.testing import CliRunner

from hard_ray.errors import StorageError
from hard_ray.orchestration.cluster.demand import STUDENT_SLOT, TEACHER_SLOT
from hard_ray.orchestration.jobs.manifests import GOES_ON, OVERLAYS, SETTINGS, VERBS, check, containers, render
from hard_ray.storage.address import Remote
from tests.orchestration.jobs.operator_rules import refusals

ROOT = Path(__file__).parents[3]
KUBERNETES = "1.34"
COMMAND = ["tune", "--space", "imagenet.yaml", "--data", "/runs/my data"]
SPACE = """
base: {config: mine.yaml}
parameters:
  augmentor.strength: {uniform: [0, 1]}
"""

pytestmark = pytest.mark.skipif(
    not (shutil.which("kubectl") or shutil.which("kustomize")), reason="neither kubectl nor kustomize is on the PATH"
)


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[dict[str, Any]]]:
    return {name: list(yaml.safe_load_all(render(name, {}, [] if name == "cluster" else COMMAND))) for name in OVERLAYS}


@pytest.fixture(params=sorted(OVERLAYS))
def manifests(request: pytest.FixtureRequest, rendered: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return copy.deepcopy(rendered[request.param])


def of_ray(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [each for each in manifests if each["kind"] in ("RayJob", "RayCluster")]
    return found


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod template: `metadata` and `spec`."""
    if isinstance(value, dict):
        if isinstance(value.get("spec"), dict) and "containers" in value["spec"]:
            yield value
        for part in value.values():
            yield from pods(part)
    elif isinstance(value, list):
        for part in value:
            yield from pods(part)


def strict(schema: Any) -> Any:
    """A custom resource's OpenAPI schema as a JSON Schema that refuses unknown keys."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes")}
    if schema.get("x-kubernetes-int-or-string"):
        made = {"type": ["integer", "string"]}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    if schema.get("nullable"):
        made["type"] = [made["type"], "null"]
    return made


@pytest.fixture(scope="module")
def validators() -> dict[str, jsonschema.Draft7Validator]:
    folder = Path(os.environ.get("HARDRAY_TEST_SCHEMAS", "/nowhere"))
    if not folder.is_dir():
        pytest.skip("HARDRAY_TEST_SCHEMAS names no folder with KubeRay's custom resource definitions")
    found = {}
    for kind, name in (("RayJob", "rayjobs"), ("RayCluster", "rayclusters")):
        definition = yaml.safe_load((folder / f"{name}.yaml").read_text())
        (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        found[kind] = jsonschema.Draft7Validator(schema)
    return found


def test_rays_objects_satisfy_kuberays_schema(
    manifests: list[dict[str, Any]], validators: dict[str, jsonschema.Draft7Validator]
):
    ray = of_ray(manifests)
    assert [error.message for error in validators[ray["kind"]].iter_errors(ray)] == []
    spec = ray["spec"].get("rayClusterSpec", ray["spec"])
    spec["workerGroupSpecs"][0].pop("maxReplicas")
    spec["headGroupSpek"] = {}
    assert len(list(validators[ray["kind"]].iter_errors(ray))) == 2


def test_all_other_objects_satisfy_kubernetes_schema(manifests: list[dict[str, Any]]):
    others = [each for each in manifests if not each["apiVersion"].startswith("ray.io")]
    assert len(others) >= 10
    for each in others:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    broken = {**others[0], "specc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_the_operator_refuses_nothing(manifests: list[dict[str, Any]]):
    assert list(refusals(of_ray(manifests))) == []


def change(ray: dict[str, Any], path: str, value: Any) -> None:
    at: Any = ray
    *way, last = path.split("/")
    for key in way:
        at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
    at[last] = value


CLUSTER = "spec/rayClusterSpec"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("metadata/name", "n" * 48, "name is too long"),
        ("spec/clusterSelector", {"a": "b"}, "backoffLimit"),
        ("spec/submissionMode", "Foo", "unknown submissionMode"),
        ("spec/submissionMode", "SidecarMode", "SidecarMode"),
        ("spec/shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished"),
        ("spec/submitterPodTemplate/spec/restartPolicy", "Always", "the submitter's restartPolicy"),
        (f"{CLUSTER}/authOptions/enableK8sTokenAuth", True, "k8s-token auth"),
        (f"{CLUSTER}/workerGroupSpecs/0/groupName", "students", "group names"),
        (f"{CLUSTER}/headGroupSpec/rayStartParams/labels", "a=b", "rayStartParams.labels"),
        (f"{CLUSTER}/workerGroupSpecs/1/rayStartParams/resources", "{}", "resources beside"),
        (f"{CLUSTER}/workerGroupSpecs/1/replicas", 99, "replicas out of range"),
        (f"{CLUSTER}/workerGroupSpecs/1/template/spec/restartPolicy", "Always", "restartPolicy with autoscaler"),
        (f"{CLUSTER}/rayVersion", "2.51.0", "token auth before"),
        (f"{CLUSTER}/gcsFaultToleranceOptions/backend", "rocksdb", "RocksDB"),
        (
            f"{CLUSTER}/headGroupSpec/template/spec/containers/0/env",
            [{"name": "RAY_enable_autoscaler_v2", "value": "1"}],
            "autoscaler version and its",
        ),
    ],
)
def test_each_rule_of_the_operator_can_fail(rendered: dict[str, Any], path: str, value: Any, words: str):
    ray = copy.deepcopy(of_ray(rendered["gpu"]))
    change(ray, path, value)
    assert any(words in reason for reason in refusals(ray))


def test_no_container_is_root_or_unbounded_or_of_a_moving_image(manifests: list[dict[str, Any]]):
    found = list(pods(manifests))
    assert len(found) >= 5
    for pod in found:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in spec["containers"]:
            assert each["securityContext"]["allowPrivilegeEscalation"] is False
            assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= each["resources"]["requests"].keys() & each["resources"]["limits"].keys()
            assert ":" in each["image"]
            assert not each["image"].endswith(":latest")
    assert len(list(containers(manifests))) == sum(len(pod["spec"]["containers"]) for pod in found)


def test_no_secret_is_written_out(manifests: list[dict[str, Any]]):
    assert not any(each["kind"] == "Secret" for each in manifests)
    for each in containers(manifests):
        for item in each.get("env", []):
            if re.search("PASSWORD|TOKEN|SECRET|USERNAME", item["name"]):
                assert "secretKeyRef" in item["valueFrom"], item["name"]
    assert not re.search(r"://[^/@\s$]+:[^/@\s$]+@", yaml.safe_dump_all(manifests))


def test_services_policies_and_claims_meet_what_is_there(manifests: list[dict[str, Any]]):
    labels = [pod["metadata"]["labels"] for pod in pods(manifests) if "labels" in pod.get("metadata", {})]

    def meets(selector: dict[str, str]) -> bool:
        return any(selector.items() <= each.items() for each in labels)

    claims = {each["metadata"]["name"] for each in manifests if each["kind"] == "PersistentVolumeClaim"}
    for each in manifests:
        if each["kind"] == "Service":
            assert meets(each["spec"]["selector"])
        if each["kind"] == "NetworkPolicy":
            assert meets(each["spec"]["podSelector"]["matchLabels"]), each["metadata"]["name"]
    for pod in pods(manifests):
        for volume in pod["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_slots_stand_where_the_configuration_looks_for_them(rendered: dict[str, list[dict[str, Any]]]):
    groups = {each["groupName"]: each for each in of_ray(rendered["gpu"])["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert groups["students"]["resources"][STUDENT_SLOT] == "1"
    assert groups["teachers"]["resources"][TEACHER_SLOT] == "1"


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["deploy", "render", *arguments])


def test_the_command_prints_manifests_with_the_users_settings():
    given = {
        "image": "registry.example/team/hardray:1.2",
        "name": "night",
        "namespace": "vision",
        "storage-class": "shared",
        "storage": "2Ti",
        "workers": "3",
        "students": "5",
        "teachers": "2",
    }
    assert given.keys() == SETTINGS.keys() - {"service-account"}
    done = invoke("--overlay", "gpu", *(f"--set={key}={value}" for key, value in given.items()), "--", *COMMAND)
    assert done.exit_code == 0, done.output
    made = list(yaml.safe_load_all(done.stdout))
    ray = of_ray(made)
    words = shlex.split(ray["spec"]["entrypoint"])
    added = ["--output", "/runs/night", "--continue", "runtime.nodes_timeout_s=1800", "runtime.slots=true"]
    assert words == ["hardray", *COMMAND, *added]
    assert ray["metadata"]["name"] == "night"
    assert {each["metadata"]["namespace"] for each in made} == {"vision"}
    sizes = {each["groupName"]: each["maxReplicas"] for each in ray["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert sizes == {"cpu": 3, "students": 5, "teachers": 2}
    assert {each["image"] for each in containers(made)} == {given["image"], "postgres:15.18-bookworm"}
    (claim,) = [each for each in made if each["metadata"]["name"] == "hardray-runs"]
    assert claim["spec"]["storageClassName"] == "shared"
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Ti"


@pytest.mark.parametrize("overlay", sorted(OVERLAYS))
def test_runs_in_a_bucket_need_no_volume_and_no_keys(overlay: str):
    storage = "s3://experiments/runs?region=eu-west-1&endpoint_override=minio.storage:9000&scheme=http"
    given = {"storage": storage, "service-account": "vision-runs", "name": "night"}
    command = [] if overlay == "cluster" else ["distill", "--preset", "digits"]
    made = list(yaml.safe_load_all(render(overlay, given, command)))
    ray, text = of_ray(made), yaml.safe_dump(made)
    assert "hardray-runs" not in text
    assert "ReadWriteMany" not in text
    assert list(refusals(ray)) == []
    for each in made:
        if not each["apiVersion"].startswith("ray.io"):
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
    cluster = ray["spec"].get("rayClusterSpec", ray["spec"])
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        spec = group["template"]["spec"]
        assert spec["serviceAccountName"] == "vision-runs"
        assert {"name": "runs", "emptyDir": {}} in spec["volumes"]
    (policy,) = [each for each in made if each["metadata"]["name"] == "hardray-ray"]
    assert {"ports": [{"port": 9000}]} in policy["spec"]["egress"]
    if command:
        words = shlex.split(ray["spec"]["entrypoint"])
        output = words[words.index("--output") + 1]
        assert output.startswith("s3://experiments/runs/night?")
        assert "region=eu-west-1" in output
        assert "--continue" in words


def test_a_command_in_a_bucket_is_checked_like_another():
    storage = "--set=storage=s3://experiments/runs"
    done = invoke("--overlay", "gpu", storage, "--", "distill", "--preset", "digits")
    assert done.exit_code == 0, done.stderr
    assert "--output s3://experiments/runs/hardray --continue" in " ".join(done.stdout.split())
    done = invoke("--overlay", "cpu", storage, "--", "evaluate", "s3://experiments/runs/x")
    assert done.exit_code == 0, done.stderr
    assert "--output" not in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_a_job_writes_to_the_bucket(verb: str):
    words = {
        "tune": ["--space", "digits"],
        "recommend": ["--preset", "digits", "--budget", "20m"],
        "evaluate": ["resnet18", "--data", "s3://b/images"],
        "probe": ["resnet18", "--data", "s3://b/images"],
        "fit-head": ["--kind", "prototypes", "--tower", "local-dir:s3://b/tower", "--data", "s3://b/images"],
        "generate": ["--preset", "digits", "--autoencoder", "s3://b/coder"],
        "train-autoencoder": ["--preset", "digits", "--kind", "vq"],
    }.get(verb, ["--preset", "digits"])
    done = invoke("--overlay", "cpu", "--set=storage=s3://experiments/runs", "--set=name=x", "--", verb, *words)
    assert done.exit_code == 0, done.stderr
    command = shlex.split(of_ray(list(yaml.safe_load_all(done.stdout)))["spec"]["entrypoint"])
    assert command[command.index("--output") + 1] == "s3://experiments/runs/x"
    assert ("--continue" in command) == (verb in GOES_ON)


def test_files_of_a_command_may_be_in_the_bucket(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("optim: {lrr: 1}\n")
    (tmp_path / "space.yaml").write_text(SPACE)
    given = ("--overlay", "cpu", "--set=storage=s3://experiments/runs", "--")
    done = invoke(*given, "distill", "-c", f"file://{tmp_path}/mine.yaml")
    assert done.exit_code == 2
    assert "did you mean optim.lr?" in done.stderr
    done = invoke(*given, "tune", "--space", f"file://{tmp_path}/space.yaml")
    assert done.exit_code == 2
    assert "did you mean optim.lr?" in done.stderr
    (tmp_path / "mine.yaml").write_text("optim: {lr: 1}\n")
    done = invoke(*given, "tune", "--space", f"file://{tmp_path}/space.yaml")
    assert done.exit_code == 0, done.stderr
    assert f"--space file://{tmp_path}/space.yaml --output s3://experiments/runs/hardray" in " ".join(
        done.stdout.split()
    )


@pytest.mark.parametrize("words", [("distill", "-c", "URL"), ("tune", "--space", "URL")])
def test_a_bucket_that_this_machine_cannot_read_leaves_the_check_to_the_job(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    def refuse(remote: Remote) -> Path:
        raise StorageError(f"{remote.shown}: access is denied")

    monkeypatch.setattr("hard_ray.storage.fetched.fetch_file", refuse)
    command = [word.replace("URL", "s3://b/x.yaml") for word in words]
    done = invoke("--overlay", "cpu", "--set=storage=s3://experiments/runs", "--", *command)
    assert done.exit_code == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "s3://b/x.yaml: access is denied; the configuration is checked only when the job begins" in said


@pytest.mark.parametrize("words", [("distill", "-c"), ("tune", "--space")])
def test_a_url_without_a_file_is_refused_before_a_job_is_made(words: tuple[str, ...]):
    done = invoke("--overlay", "cpu", "--", *words, "file:///no/such.yaml")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "file:///no/such.yaml" in done.stderr


def test_a_given_folder_stays_and_only_commands_that_can_continue_get_the_option():
    def of(*command: str) -> list[str]:
        ray = of_ray(list(yaml.safe_load_all(invoke("--overlay", "cpu", "--", *command).stdout)))
        return shlex.split(ray["spec"]["entrypoint"])

    waits = "runtime.nodes_timeout_s=1800"
    assert of("distill", "--output", "/runs/x") == ["hardray", "distill", "--output", "/runs/x", "--continue", waits]
    assert of("generate", "--preset", "digits")[-3:] == ["--output", "/runs/hardray", waits]
    assert of("evaluate", "/runs/x") == ["hardray", "evaluate", "/runs/x", waits]
    assert of("evaluate", "resnet18", "--data", "/data")[-3:] == ["--output", "/runs/hardray", waits]
    assert "--output" not in of("evaluate", "--suite", "clean", "/runs/x")
    assert "--output" not in of("probe", "/runs/x", "--k", "5")
    own = "runtime.nodes_timeout_s=60"
    assert of("evaluate", "/runs/x", own) == ["hardray", "evaluate", "/runs/x", own]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--overlay", "gpus", "--", "tune"], "did you mean gpu?"),
        (["--set", "imagee=a:1", "--", "tune"], "did you mean image?"),
        (["--set", "image=hardray", "--", "tune"], "with a tag other than latest"),
        (["--set", "image=hardray:latest", "--", "tune"], "with a tag other than latest"),
        (["--set", "image=https://r.example/hardray:1", "--", "tune"], "without https:// and spaces"),
        (["--set", "image=r.example/HardRay:1", "--", "tune"], "the name in small letters"),
        (["--set", "image=r.example/hardray:a/b", "--", "tune"], "the name in small letters"),
        (["--set", "image=r.example/hardray:1 2", "--", "tune"], "want a tag of letters, digits"),
        (["--set", "image=r.example/hardray@sha256:12ab", "--", "tune"], "64 digits of 0 to f, small letters, got 4"),
        (["--set", f"image=r.example/hardray@sha256:{'g' * 64}", "--", "tune"], "64 digits of 0 to f"),
        (["--set", f"image=r.example/hardray@md5:{'a' * 64}", "--", "tune"], "want @sha256:"),
        (["--set", f"image=r.example/hardray:1@sha256:{'A' * 64}", "--", "tune"], "small letters, got 64"),
        *[
            ([f"--set=storage={size}", "--", "tune"], "want a number above 0 and one unit of Kubernetes")
            for size in ("100GB", "100 Gi", "100gi", "0Gi", "-5Gi", "100", "500m", "1e3", "Gi", "1,5Ti", "100Gib")
        ],
        (["--set", "storage-class=Fast_SSD", "--", "tune"], "as kubectl lists it"),
        (["--set", "storage=s3://b/runs", "--", "predict", "x", "y.png"], "'predict' is not a command of a job"),
        (["--set", "service-account=x", "--", "distill"], "it is for runs in a bucket"),
        (["--set", "storage=s3://b/runs", "--set", "storage-class=x", "--", "distill"], "leave storage-class out"),
        (["--set", "storage=s3://u:hunter22@b/runs", "--", "distill"], "credentials come from the environment"),
        (["--set", "namespace=-a", "--", "tune"], "want small letters, digits and hyphens, at most 63"),
        (["--set", "name=a-", "--", "tune"], "no hyphen last"),
        (["--set", f"name={'a' * 41}", "--", "tune"], "at most 40"),
        (["--set", "name=a", "--set", "name=b", "--", "tune"], "given twice, as a and b; keep one of them"),
        (["--set", "workers=-1", "--", "tune"], "want a number of nodes, 1 or more"),
        (["--set", "workers=03", "--", "tune"], "want a number of nodes, 1 or more"),
        (["--set", "workers=99999999999", "--", "tune"], "want a number of nodes, 1 or more"),
        (["--", "tune"], "hardray tune: give --space FILE, or a shipped space: cifar10"),
        (["--", "distill", "--presett", "digits"], "hardray distill: No such option: --presett"),
        (["--", "distill", "--preset", "digits", "optim.lrr=1"], "optim.lrr: unknown key; did you mean optim.lr?"),
        (["--", "distill", "--preset", "digits", "seed=010"], "010 has a leading zero"),
        (["--", "distill", "--preset", "digits", "--output", "x"], "x: a relative path starts at a copy"),
        (["--", "distill", "-c", "a b.yaml"], "a rendered job has no files of this folder; put it on the volume"),
        (["--", "tune", "--space", "mine.yaml"], "mine.yaml: a rendered job has no files of this folder"),
        (["--", "distill", "--data", "images"], "data.path images: data and weights are not sent"),
        (
            ["--", "distill", "--resume", "/runs/x"],
            "write distill --output /runs/x, with the options it began with",
        ),
        (["--", "tune", "--resume=/runs/a b"], "write tune --output '/runs/a b', with the options it began with"),
        (
            ["--set=storage=s3://b/runs", "--", "distill", "--output", "/runs/x"],
            "/runs/x is then on each pod's own disk",
        ),
        (
            ["--set=storage=s3://b/r", "--", "distill", "data.path=/runs/data"],
            "/runs/data is then on each pod's own disk",
        ),
        (
            ["--set=storage=s3://b/r", "--", "distill", "teacher.model=local-dir:/runs/t"],
            "/runs/t is then on each pod's",
        ),
        (["--set=storage=file:///runs/x", "--", "distill"], "want a bucket, s3://, gs://"),
        (["--set=storage=hf://datasets/a/b", "--", "distill"], "want a bucket, s3://, gs://"),
        (["--set=storage=abfss://c@a.x/y?sv=1&sig=hunter22", "--", "distill"], "sig=***"),
        (["--", "evaluate", "resnet18", "--data", "/runs/d", "--labelled", "images=mine/x"], "mine/x: a relative path"),
        (["--", "generate", "--preset", "digits", "--autoencoder", "runs/vq"], "runs/vq: a relative path starts at"),
        (["--", "recommend", "--preset", "digits"], "hardray recommend: give --budget"),
        (["--", "fit-head", "--kind", "probe", "--output", "/runs/x"], "name the tower with --tower"),
        (["--", "train-teacher", "--model", "local-dir:tower"], "teacher.model local-dir:tower: data and weights"),
        (["--", "distill", "--output", "s3:///x/y"], "names no bucket"),
        (["--", "distill", "--output", "s3://b/x?regio=eu"], "did you mean region?"),
        (["--", "distill", "tracking.uri=http://u:hunter22x@h"], "put it into a Secret, as deploy/README.md says"),
        (["--set", "students=none", "--", "tune"], "want a number of nodes"),
        (["--set", "name=A_b", "--", "tune"], "want small letters"),
        (["--set", "name", "--", "tune"], "want KEY=VALUE"),
        (["--overlay", "cpu", "--set", "teachers=2", "--", "tune"], "has no such nodes"),
        (["--overlay", "gpu"], "give the command after --"),
        (["--overlay", "cluster", "--", "tune"], "runs no command"),
        (["--", "tun"], "did you mean tune?"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], words: str):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_images_sizes_and_names_that_kubernetes_takes_are_taken():
    digest = f"sha256:{'0af9' * 16}"
    images = (
        "hardray:1",
        "localhost:5000/a/hardray:1.2-b",
        f"r.example/x@{digest}",
        f"REG.example:443/a__b/c:1@{digest}",
    )
    for key, values in {
        "image": images,
        "storage": ("500Gi", "1.5Ti", "500G", "10Mi"),
        "storage-class": ("standard", "csi.example.com", "a-1.b"),
        "namespace": ("0team", "a" * 63),
        "name": ("a", "a" * 40),
    }.items():
        for value in values:
            check("gpu", {key: value}, ["distill"])


def test_what_is_not_on_this_machine_is_said_to_be_unchecked():
    done = invoke("--overlay", "cpu", "--", "distill", "-c", "/runs/mine.yaml")
    assert done.exit_code == 0
    assert "-c /runs/mine.yaml is not on this machine: the configuration is checked only when" in done.stderr
    assert list(yaml.safe_load_all(done.stdout))
    assert "--space /runs/s.yaml is not on this machine" in invoke("--", "tune", "--space", "/runs/s.yaml").stderr


def test_without_kubectl_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    done = invoke("--", "tune", "--space", "digits")
    assert done.exit_code == 2
    assert "needs kubectl or kustomize" in done.stderr


def test_the_dockerfile_passes_hadolint(tmp_path: Path):
    hadolint = str(Path(sys.executable).with_name("hadolint"))
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN apt-get update && apt-get install curl\n")
    bad = subprocess.run([hadolint, str(tmp_path / "Dockerfile")], check=False, capture_output=True, text=True)
    assert "DL3007" in bad.stdout


def test_the_image_is_not_root_and_gets_nothing_but_what_it_is_built_from():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 1000:100"
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    copied = {word for line in lines if line.startswith("COPY --chown") for word in line.split()[2:-1]}
    assert copied == {line.removeprefix("!") for line in ignored if line.startswith("!")}
