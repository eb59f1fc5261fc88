"""A whole run with torch.compile: nothing is compiled twice, a resume ends with the same bits, exports are the same."""

import json
from pathlib import Path

import pytest
import torch

from hard_ray.config.loader import load_config
from hard_ray.config.run import RunConfig
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.assembly import batch_sizes, views_learned
from hard_ray.distillation.loop import Status
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.distillation.teacher_cache import teacher_spec
from hard_ray.networks import compilation
from tests.support.helpers import (
    assert_equal_bits,
    killed_after,
    run_here,
    student_weights,
    tiny_config,
    untrained_teacher,
)

SHORT = ("optim.steps=8", "checkpoints.every=0.1", "optim.model_ema=true", "validate.batch_size=64")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are made and run as they are, without a compiler of machine code: it takes seconds for each."""
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    compilation.forget_graphs()


def compiled_pool(config: RunConfig) -> LocalPool:
    teacher = untrained_teacher(config, build_index(config.data))
    spec = teacher_spec(config, config.teacher, build_index(config.data), compiled=True)
    teacher.compile(spec.compile_mode, spec.sizes, spec.images.img_size)
    return LocalPool(teacher)


@pytest.mark.usefixtures("traced")
def test_a_compiled_run_compiles_each_graph_once_and_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = tiny_config(*SHORT)
    config = tiny_config(*SHORT, "runtime.compile=true", "runtime.teacher.compile=true")
    pool = compiled_pool(config)
    assert run_here(config, tmp_path / "straight", pool) is Status.FINISHED
    outcome = json.loads((tmp_path / "straight/outcome.json").read_text())
    # the student: its updates, and the augmentor's; the averaged copy is evaluated
    assert outcome["compiled"] == {"mode": "default", "graphs": 2, "repeated": 0}
    assert outcome["steps"]["augmentor"] >= 2
    # the teacher: batches of updates and of evaluations, and the gradient to augmented images
    assert pool.teacher.network.compilation.facts() == {"mode": "default", "graphs": 3, "repeated": 0}

    with killed_after(6):
        run_here(config, tmp_path / "killed", compiled_pool(config))
    run_here(config, tmp_path / "killed", compiled_pool(config))
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "killed"))

    run_here(plain, tmp_path / "plain")
    eager, found = student_weights(tmp_path / "plain"), student_weights(tmp_path / "straight")
    assert eager.keys() == found.keys()
    assert all(torch.allclose(eager[name], found[name], atol=1e-3) for name in eager)
    assert "compiled" not in json.loads((tmp_path / "plain/outcome.json").read_text())


def test_the_teachers_identity_says_whether_it_is_compiled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    config = tiny_config("runtime.teacher.compile=true")
    plain = untrained_teacher(config, build_index(config.data))
    assert compiled_pool(config).identity() == f"{plain.identity()}-compiled-default"


def test_a_teacher_that_cannot_be_compiled_answers_eagerly_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compilation, "BACKEND", broken)
    config = tiny_config("runtime.teacher.compile=true")
    teacher: FrozenNetwork = compiled_pool(config).teacher
    assert teacher.network.compilation is None
    assert teacher.identity() == untrained_teacher(config, build_index(config.data)).identity()
    assert "the teacher runs without torch.compile (RuntimeError: no C++ compiler)" in caplog.text


def test_the_sizes_to_compile_for_are_those_of_updates_and_evaluations():
    config = tiny_config("optim.batch_size=32", "validate.batch_size=64", "runtime.num_workers=4")
    assert batch_sizes(config) == (8, 64)
    assert views_learned(config) == 2
    elastic = tiny_config("optim.batch_size=32", "runtime.num_workers=4", "runtime.min_workers=3")
    assert batch_sizes(elastic)[:3] == (8, 10, 11)
    part = config.model_copy(update={"controller": config.controller.model_copy(update={"augmentor_share": 0.3})})
    assert batch_sizes(part) == (8, 3, 64)
    picked = load_config(preset="digits", overrides=["optim.batch_size=30", "augmentor.kind=pick", "objective.kind=kd"])
    assert batch_sizes(picked)[:2] == (30, 30 * picked.augmentor.pool)
    alone = load_config(preset="digits", overrides=["augmentor.kind=identity", "objective.kind=kd"])
    assert views_learned(alone) == 1
