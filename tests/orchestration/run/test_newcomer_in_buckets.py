"""The newcomer's whole path with data and outputs in buckets, each command where nothing is left of the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.files import read_json
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.folders import files_at
from hard_ray.storage.mirror import Mirror
from tests.networks.saved import save
from tests.orchestration.commands import succeed
from tests.support.buckets import ONE_TRIAL, Server, holds_no_key, holds_no_key_remotely, server_with
from tests.support.helpers import TINY, assert_equal_bits, student_weights
from tests.support.saved_students import number_config, number_folder

PATIENCE_S = 400


@dataclass
class Walk:
    """Where a walk finds its data and puts its outputs."""

    place: Path
    data: str
    output: str
    """A folder or a URL with `{}` for the name."""
    machines: int = 0

    def at(self, name: str) -> str:
        return self.output.format(name)

    def do(self, *arguments: str) -> str:
        """A command, where hardray's cache is empty."""
        self.machines += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HARDRAY_CACHE", str(self.place / f"cache-{self.machines}"))
            return succeed(*arguments, cwd=self.place, timeout=PATIENCE_S)

    def all(self, coder: str) -> dict[str, str]:
        """Every command; what those that print a result printed."""
        self.place.mkdir(exist_ok=True)
        made = number_config(
            Path("data"),
            *(one for one in TINY if not one.startswith(("data.", "augmentor."))),
            "data.img_size=16",
            "teacher.model=hardray_cnn",
            "student.model=hardray_mlp",
            "augmentor.kind=affine",
            "teacher.recipe.epochs=2",
            "validate.final=[shifts]",
            "tracking.gallery_images=3",
        )
        (self.place / "mine.yaml").write_text(dump_yaml(made))
        (self.place / "space.yaml").write_text(ONE_TRIAL)
        mine, data = ("-c", "mine.yaml"), ("--data", self.data)
        learned = f"teacher.checkpoint={self.at('teacher/student')}"
        said = {"index": self.do("index", *mine, *data)}
        self.do("train-teacher", *mine, *data, "--output", self.at("teacher"))
        self.do("distill", *mine, *data, learned, "--output", self.at("run"))
        self.do("evaluate", self.at("run"), "--suite", "rotations", "--images", "20", "--output", self.at("measured"))
        self.do("gallery", self.at("run"))
        picture = next((self.place.parent / "data/test").rglob("*.png"))
        said["predict"] = self.do("predict", self.at("run"), str(picture), "--json")
        short = ("--shard-size", "50", "--steps", "2", "--batch-size", "32")
        self.do("generate", *mine, *data, learned, "--autoencoder", coder, *short, "--output", self.at("set"))
        dad = ("objective.kind=dad", "augmentor.kind=generated", f"augmentor.path={self.at('set')}")
        self.do("distill", *mine, *data, learned, *dad, "--output", self.at("dad"))
        self.do("tune", "--space", "space.yaml", f"data.path={self.data}", learned, "--output", self.at("search"))
        self.do("distill", "-c", self.at("search/best.yaml"), "--output", self.at("best"))
        return said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_with(tmp_path_factory.mktemp("moto") / "log", "data", "runs") as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_command_finds_in_buckets_what_it_finds_in_folders(server: Server, tmp_path: Path):
    root = number_folder(tmp_path / "data", per_class=8, size=(16, 16))
    for path in root.rglob("*.png"):
        objects.write_file(server.remote("data", f"numbers/{path.relative_to(root).as_posix()}"), path)
    save("vq", tmp_path / "coder")
    for path in (tmp_path / "coder").iterdir():
        objects.write_file(server.remote("runs", f"coder/{path.name}"), path)

    here = Walk(tmp_path / "local", str(root), f"{tmp_path}/local/{{}}")
    there = Walk(tmp_path / "remote", server.url("data", "numbers"), server.url("runs", "walk/{}"))
    said = here.all(str(tmp_path / "coder"))
    found = there.all(server.url("runs", "coder"))

    assert json.loads(found["predict"]) == json.loads(said["predict"])
    assert "264 used" in found["index"]
    pulled: dict[str, Path] = {}
    for name in ("teacher", "run", "measured", "dad", "best", "search"):
        mirror = Mirror(Remote.parse(there.at(name)), tmp_path / "pulled" / name)
        mirror.pull()
        pulled[name] = mirror.folder
    for name in ("teacher", "run", "dad", "best"):
        assert_equal_bits(student_weights(pulled[name]), student_weights(tmp_path / "local" / name))
    suites = [
        read_json(folder / "evaluation.json")["suites"] for folder in (pulled["measured"], tmp_path / "local/measured")
    ]
    assert suites[0] == suites[1]
    trials = [read_json(folder / "results.json")["trials"] for folder in (pulled["search"], tmp_path / "local/search")]
    assert [trial["metrics"] for trial in trials[0]] == [trial["metrics"] for trial in trials[1]]
    drawn = [
        {path.name for path in (folder / "gallery").iterdir()} for folder in (pulled["run"], tmp_path / "local/run")
    ]
    assert drawn[0] == drawn[1] != set()
    shards = {path.name: path.read_bytes() for path in (tmp_path / "local/set").glob("*.parquet")}
    assert shards
    sent = files_at(Remote.parse(there.at("set")))
    assert {name: objects.read(sent[name].remote) for name in sent if name.endswith(".parquet")} == shards

    holds_no_key(tmp_path)
    holds_no_key_remotely(server.remote("runs"))
