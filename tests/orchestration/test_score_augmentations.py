"""A comparison's folder and what it ends with; most of it in this process, once with Ray."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from hard_ray.config.loader import load_config
from hard_ray.config.scoring import read_augmentors, score_run
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherSpec
from hard_ray.errors import ConfigError, RunFolderError, StoppedError, TeacherError
from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network
from hard_ray.networks.network import build_student, image_spec
from hard_ray.orchestration import score_augmentations as score
from hard_ray.preparation.scoring import read_losses
from tests.support.helpers import digits_pipeline, tiny_config

AUGMENTORS = "identity,cutout,pick"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's folder."""
    config = tiny_config()
    images = image_spec(config.data, build_index(config.data).classes)
    torch.manual_seed(0)
    network = build_student(config.teacher, images, role="teacher")
    with torch.no_grad():
        network.model.head.weight.mul_(100.0)
    folder = tmp_path_factory.mktemp("teacher") / "t"
    export_network(network, folder, images=images, facts=TrainingFacts("", 0, "", "", "", 0, EvalView()))
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Without Ray: this process reads, and this process answers. How many batches were read, by start."""
    read: list[int] = []

    @contextmanager
    def asking(config, run, index, say) -> Iterator:
        pipeline = digits_pipeline(run.batch_size)
        everything = pipeline.train_batches

        def counted(first: int) -> Iterator:
            read.append(0)
            for batch in everything(first):
                read[-1] += 1
                yield batch

        monkeypatch.setattr(type(pipeline), "train_batches", lambda self, first: counted(first))
        try:
            yield (
                LocalPool(FrozenNetwork.build(TeacherSpec(config.teacher, image_spec(config.data, index.classes)))),
                pipeline,
            )
        finally:
            monkeypatch.setattr(type(pipeline), "train_batches", lambda self, first: everything(first))

    monkeypatch.setattr(score, "asking", asking)
    return read


def scored(
    teacher: Path,
    output: Path,
    *texts: str,
    groups: int = 4,
    say: Callable[[str], None] = lambda _: None,
    overrides: tuple[str, ...] = (),
    losses: dict[str, float] | None = None,
) -> dict:
    config = tiny_config(f"teacher.checkpoint={teacher}", *overrides)
    run = score_run(config, read_augmentors(texts or [AUGMENTORS]), groups=groups, batch_size=16)
    return score.score_augmentations(config, run, output, losses=losses, say=say)


def test_the_scores_are_on_disk_the_lowest_first(teacher: Path, here: list[int], tmp_path: Path):
    result = scored(teacher, tmp_path / "s")
    assert json.loads((tmp_path / "s/scores.json").read_text()) == result
    values = [found["t_stddev"] for found in result["scores"].values()]
    assert values == sorted(values)
    assert set(result["scores"]) == {"identity", "cutout", "cutmix_pick"}
    assert result["scores"]["cutmix_pick"]["augmentor"]["augmentor"]["kind"] == "cutmix"
    assert next(iter(result["scores"].values()))["behind"] == 0.0
    assert result["teacher"]["identity"].endswith("-float32")
    assert (result["groups"], result["iterations"], result["batch_size"]) == (4, 5, 16)
    assert (tmp_path / "s/scores.png").stat().st_size > 5000
    assert here == [4 * 5]


def test_a_stopped_comparison_goes_on_to_the_same_scores(
    teacher: Path, here: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    straight = scored(teacher, tmp_path / "straight")
    written = score.KnownMeans.write

    def write_and_stop(self, path: Path) -> None:
        written(self, path)
        if len(self.means["cutout"]) == 2:
            (path.parent / "stop").touch()

    with monkeypatch.context() as patch:
        patch.setattr(score.KnownMeans, "write", write_and_stop)
        with pytest.raises(StoppedError, match="stopped after 2 groups; the same command continues"):
            scored(teacher, tmp_path / "stopped")
    assert not (tmp_path / "stopped/scores.json").exists()
    said: list[str] = []
    assert scored(teacher, tmp_path / "stopped", say=said.append) == straight
    assert "continues after group 2" in said[0]
    assert here[-1] == 2 * 5


def test_what_was_scored_is_not_asked_again_and_others_are_added_beside_it(
    teacher: Path, here: list[int], tmp_path: Path
):
    first = scored(teacher, tmp_path / "s", "cutout")
    assert scored(teacher, tmp_path / "s", "cutout") == first
    assert len(here) == 1
    both = scored(teacher, tmp_path / "s", "cutmix")
    assert set(both["scores"]) == {"cutout", "cutmix"}
    for key in ("t_stddev", "standard_error"):
        assert both["scores"]["cutout"][key] == first["scores"]["cutout"][key]
    more = scored(teacher, tmp_path / "s", "cutout", groups=6)
    assert set(more["scores"]) == {"cutout"}
    assert more == scored(teacher, tmp_path / "fresh", "cutout", groups=6)


def test_a_folder_that_another_version_began_is_told(teacher: Path, tmp_path: Path):
    (tmp_path / "scoring.yaml").write_text("augmentors: {cutout: {kind: cutout, side: 0.5}}\nbatch: 16\n")
    with pytest.raises(RunFolderError, match=r"cutout\.side: unknown key.*batch: unknown key.*choose another --output"):
        scored(teacher, tmp_path, "cutout")


def test_another_comparison_does_not_go_on_in_the_folder(teacher: Path, here: list[int], tmp_path: Path):
    scored(teacher, tmp_path / "s", "cutout")
    with pytest.raises(RunFolderError, match=r"other settings: seed was 0, now 1; give the same ones"):
        scored(teacher, tmp_path / "s", "cutout", overrides=("seed=1",))
    with pytest.raises(RunFolderError, match=r"augmentors\.cutout\.size was 0\.25, now 0\.5; .* call an augmentor"):
        scored(teacher, tmp_path / "s", "cutout={kind: cutout, size: 0.5}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds no scores"):
        scored(teacher, tmp_path / "other", "cutout")
    assert len(here) == 1


def test_a_teacher_with_other_weights_does_not_go_on(teacher: Path, here: list[int], tmp_path: Path):
    scored(teacher, tmp_path / "s", "cutout")
    with np.load(tmp_path / "s/groups.npz") as stored:
        arrays = dict(stored)
    np.savez(tmp_path / "s/groups.npz", **{**arrays, "of:teacher": np.array("0123-float32")})
    with pytest.raises(TeacherError, match="scores are of teacher 0123"):
        scored(teacher, tmp_path / "s", "cutout")
    (tmp_path / "s/groups.npz").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(RunFolderError, match="is damaged"):
        scored(teacher, tmp_path / "s", "cutout")


def test_losses_are_correlated_with_the_scores(teacher: Path, here: list[int], tmp_path: Path):
    losses = {"identity": 1.1, "cutout": 1.06, "cutmix_pick": 0.97}
    result = scored(teacher, tmp_path / "s", losses=losses)
    values = [result["scores"][name]["t_stddev"] for name in losses]
    assert result["correlation"]["pearson"] == pytest.approx(np.corrcoef(values, [*losses.values()])[0, 1])
    assert (tmp_path / "s/correlation.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "cannot be read as JSON"),
        ("[1, 2]", "want names and numbers"),
        ('{"cutout": "low"}', "want names and numbers"),
        ('{"cutout": 1, "cutmixx": 2, "flip": 3}', "'cutmixx' is not scored; did you mean cutmix"),
        ('{"cutout": 1, "flip": 3}', "2 losses say nothing"),
        ('{"cutout": 1, "flip": 1, "cutmix": 1}', "3 losses say nothing"),
    ],
)
def test_losses_that_say_nothing_are_refused(tmp_path: Path, text: str, words: str):
    (tmp_path / "losses.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_losses(tmp_path / "losses.json", ["cutout", "flip", "cutmix"])
    assert words in str(caught.value)


def test_with_ray_the_scores_are_the_same(
    cluster: None, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    over_ray = scored(teacher, tmp_path / "ray", overrides=("runtime.threads=1",))
    assert [actor for actor in ray.util.list_named_actors(all_namespaces=True) if actor["name"] == "teacher-0"] == []
    assert ray.is_initialized()
    request.getfixturevalue("here")
    assert scored(teacher, tmp_path / "here") == over_ray


def test_a_teacher_without_weights_says_what_to_do(cluster: None, tmp_path: Path):
    config = tiny_config("teacher.recipe.epochs=77")
    run = score_run(config, {"flip": {"kind": "flip"}}, groups=3, batch_size=16)
    with pytest.raises(TeacherError, match="run `hardray distill` once with the same data, teacher"):
        score.score_augmentations(config, run, tmp_path / "s")
    assert not (tmp_path / "s/scoring.yaml").exists()


def test_a_batch_that_the_data_do_not_fill_starts_nothing(tmp_path: Path):
    run = score_run(load_config(preset="digits"), {"flip": {"kind": "flip"}}, batch_size=5000)
    with pytest.raises(Exception, match="larger than the training split of 1297"):
        score.score_augmentations(load_config(preset="digits"), run, tmp_path / "s")
    assert not (tmp_path / "s").exists()
