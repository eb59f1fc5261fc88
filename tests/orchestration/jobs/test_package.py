"""The files that go to a cluster: no secrets, nothing large, nothing unrequested."""

import zipfile
from importlib import resources
from pathlib import Path

import pytest
import yaml

from hard_ray.errors import SubmissionError
from hard_ray.orchestration.jobs.package import LARGEST_FILE, LARGEST_PACKAGE, choose
from hard_ray.redaction import holds_secret, masked, redacted, secret_in, secret_of_file, without_password

SECRET = "hunter2hunter2"
PLANTED = {
    ".env": f"A={SECRET}",
    "prod.env": f"A={SECRET}",
    "server.pem": SECRET,
    "server.key": SECRET,
    "id_rsa": SECRET,
    "id_ed25519.txt": SECRET,
    "credentials.json": f'{{"x": "{SECRET}"}}',
    "my_token.txt": SECRET,
    ".netrc": SECRET,
    "notes.txt": f"password={SECRET}",
    "server.yaml": f"tracking: {{uri: 'http://user:{SECRET}@host:5000'}}",
    "nested.yaml": f"a:\n  - password:\n      {SECRET}\n",
    "folded.yaml": f"uri: >-\n  postgresql://user:{SECRET}@db/x\n",
    "query.yaml": f"uri: postgresql://db/x?user=a&password={SECRET}\n",
    "key.txt": f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}",
    "aws.toml": "id = 'AKIAIOSFODNN7EXAMPLE'",
    "hub.txt": "hf_abcdefghijklmnopqrstuvwx",
    ".git/config.txt": SECRET,
    ".venv/a.txt": SECRET,
    "env/pyvenv.cfg": "",
    "env/a.txt": SECRET,
    "runs/one/config.yaml": f"x: {SECRET}",
    "mine/metrics.jsonl": "",
    "mine/config.yaml": f"x: {SECRET}",
    "data/labels.txt": SECRET,
    "mlflow.db": SECRET,
    "model.safetensors": SECRET,
    "script.py": SECRET,
    "big.txt": "x" * (LARGEST_FILE + 1),
    "image.txt": "\x00",
}
GOOD = {
    "a.yaml": "optim: {lr: 0.1}\n",
    "spaces/b.yaml": "x: 1\n",
    "classes.txt": "ant\nbee\n",
    "losses.json": '{"a": 1}',
}


def plant(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_of_a_folder_the_small_texts_are_sent_and_no_secret_is_in_the_package(tmp_path: Path):
    folder = tmp_path / "w"
    plant(folder, PLANTED | GOOD)
    (folder / "image.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "outside.txt").write_text(SECRET)
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    package = choose(folder, [Path("a.yaml")], whole=True)
    package.write(tmp_path / "p.zip")
    with zipfile.ZipFile(tmp_path / "p.zip") as made:
        assert sorted(made.namelist()) == sorted(GOOD)
        assert all(SECRET.encode() not in made.read(name) for name in made.namelist())
    reasons = {item.path: item.reason for item in package.left_out}
    expected = {name for name in PLANTED if "/" not in name} | {"link.txt", "linked/"}
    assert expected <= set(reasons)
    assert {".git/", ".venv/", "env/", "runs/", "mine/", "data/"} <= set(reasons)
    assert reasons["notes.txt"] == "line 1 holds what looks like a secret (password)"
    assert reasons["server.yaml"] == "line 1 holds an address with a password"
    assert reasons["mine/"] == "a run"
    assert SECRET not in str(package.left_out)


@pytest.mark.parametrize("name", [name for name in PLANTED if "/" not in name and name != "image.txt"])
def test_a_file_that_the_command_names_is_refused_by_name_where_it_must_not_be_sent(tmp_path: Path, name: str):
    plant(tmp_path, PLANTED)
    with pytest.raises(SubmissionError) as caught:
        choose(tmp_path, [Path(name)], whole=False)
    assert name in str(caught.value)
    assert SECRET not in str(caught.value)


def test_without_a_working_directory_only_what_is_named_is_sent(tmp_path: Path):
    plant(tmp_path, GOOD | PLANTED)
    package = choose(tmp_path, [Path("a.yaml"), Path("spaces/b.yaml")], whole=False)
    assert [str(path) for path in package.files] == ["a.yaml", "spaces/b.yaml"]
    assert package.left_out == ()


def test_the_same_files_make_the_same_bytes(tmp_path: Path):
    for name in ("one", "two"):
        plant(tmp_path / name, GOOD)
        choose(tmp_path / name, [], whole=True).write(tmp_path / f"{name}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize("outside", [False, True])
def test_a_named_file_that_is_not_there_or_lies_outside_is_refused(tmp_path: Path, outside: bool):
    folder = tmp_path / "w"
    folder.mkdir()
    (tmp_path / "a.yaml").write_text("x: 1\n")
    with pytest.raises(SubmissionError, match="outside" if outside else "no such file"):
        choose(folder, [Path("../a.yaml" if outside else "a.yaml")], whole=False)


def test_many_files_of_a_kind_are_one_line_and_a_folder_of_data_is_not_entered(tmp_path: Path):
    for number in range(20):
        plant(tmp_path, {f"pictures/{number}.png": "x"})
    for number in range(1001):
        plant(tmp_path, {f"many/{number}.txt": "x"})
    package = choose(tmp_path, [], whole=True)
    assert [(item.path, item.count) for item in package.left_out] == [("many/", 1), ("pictures/*.png", 20)]


def test_a_package_has_a_limit(tmp_path: Path):
    plant(tmp_path, {f"{number}.txt": "x" * LARGEST_FILE for number in range(LARGEST_PACKAGE // LARGEST_FILE + 1)})
    with pytest.raises(SubmissionError, match="more than the"):
        choose(tmp_path, [], whole=True)


@pytest.mark.parametrize(
    "text",
    ["password: null", "token:", "secret: ${SECRET}", "tokens: 5", "uri: http://host:5000/a@b", "postgresql://u@db/x"],
)
def test_what_holds_no_secret_is_not_taken_for_one(text: str):
    assert secret_of_file(text, yaml.safe_load(text)) is None


def test_shipped_configurations_and_spaces_may_be_sent():
    for package in ("hard_ray.config.presets", "hard_ray_spaces"):
        for entry in resources.files(package).iterdir():
            if entry.name.endswith(".yaml"):
                text = entry.read_text(encoding="utf-8")
                assert secret_of_file(text, yaml.safe_load(text)) is None, entry.name


def test_a_secret_in_a_line_is_reported_without_its_value():
    for text in PLANTED.values():
        assert SECRET not in str(secret_in(text))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("part", ["x", "a.", "token ", "://", "eyJ-", "password", "a:"])
def test_a_long_line_takes_no_time(part: str):
    secret_in(part * (LARGEST_FILE // len(part)))


def test_secrets_are_hidden_in_texts():
    assert redacted(f"x{SECRET}y 1 11 ab", [SECRET, "1"]) == "x***y *** 11 ab"
    assert redacted("epoch 1", ["1"], shortest=8) == "epoch 1"


def test_an_address_is_shown_without_its_password():
    assert without_password("http://u:p@h:8265/x") == "http://h:8265/x"
    assert without_password("http://h:8265") == "http://h:8265"
    assert without_password("auto") == "auto"


@pytest.mark.parametrize(
    "address",
    [
        "http://u:SECRET@h:5000",
        "https://SECRET@h/x",
        "http://u:p@SECRET@h",
        "http://u:it'SECRET@h",
        "postgresql://u:SECRET@db/x",
        "postgresql://db/x?user=a&password=SECRET",
        "https://h/x?api_key=SECRET&y=1",
    ],
)
def test_a_secret_of_an_address_is_known_and_masked(address: str):
    assert holds_secret(address)
    assert "SECRET" not in masked(f"no server at {address} answers")
    assert "SECRET" not in without_password(address)


@pytest.mark.parametrize("address", ["http://h:5000", "postgresql://me@db/x", "sqlite:///runs/a.db", "auto", "h:1"])
def test_an_address_without_a_secret_is_taken(address: str):
    assert not holds_secret(address)
