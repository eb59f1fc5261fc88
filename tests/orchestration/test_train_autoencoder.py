import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from hard_ray.config.autoencoder import AutoencoderConfig
from hard_ray.config.autoencoder_training import AutoencoderRun
from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.data.batch import Batch
from hard_ray.errors import RunFolderError
from hard_ray.networks.autoencoders.build import build_autoencoder
from hard_ray.networks.network import ImageSpec, build_student
from hard_ray.orchestration.stream import Pipeline
from hard_ray.orchestration.train_autoencoder import Trainer, _settle, check_output
from hard_ray.preparation.folders import AutoencoderFolder
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import read_points
from tests.orchestration.commands import start, succeed, wait_for_step
from tests.support.helpers import assert_equal_bits, digits_pipeline

SMALL = {"batch_size": 16, "widths": [4, 8], "latent_channels": 3, "warmup": 2}


def run_of(kind: str, steps: int = 40, teacher: TeacherConfig | None = None, **more: object) -> AutoencoderRun:
    pipeline = digits_pipeline(16)
    values = {"data": pipeline.config, "training": {"kind": kind, "steps": steps, **SMALL, **more}, "threads": 1}
    return AutoencoderRun.model_validate({**values, "teacher": teacher, "amp_dtype": "float32", "channels_last": False})


def train_here(run: AutoencoderRun, path: Path) -> dict:
    """A whole training in this process, without Ray."""
    path.mkdir(parents=True, exist_ok=True)
    folder = AutoencoderFolder(path)
    return Trainer(_settle(run, folder), folder, digits_pipeline(16), lambda _: None).run()


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_what_is_trained_is_loaded_by_hardray_and_by_diffusers(kind: str, tmp_path: Path):
    import diffusers

    result = train_here(run_of(kind), tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert result["images"] == 200
    coder = build_autoencoder(AutoencoderConfig(model=str(tmp_path)), 1)
    model = getattr(diffusers, {"kl": "AutoencoderKL", "vq": "VQModel"}[kind]).from_pretrained(tmp_path)
    assert_equal_bits(model.state_dict(), coder.model.state_dict())
    std = json.loads((tmp_path / "latents.json").read_text())["std"]
    assert coder.latent_std.tolist() == pytest.approx(std)
    assert len(set(std)) == 3
    (batch,) = digits_pipeline(16).eval_batches("val", 200)
    images = torch.from_numpy(batch.images).float() / 255
    with torch.inference_mode():
        error = (coder.reconstruct(images).clamp(0, 1) - images).square().mean()
    assert -10 * error.log10() == pytest.approx(result["psnr"], abs=0.01)
    with Image.open(tmp_path / "reconstructions.png") as picture:
        assert picture.width > 1000


def test_pictures_that_cannot_be_read_cost_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pipeline = digits_pipeline(16)
    plain = type(pipeline).eval_batches

    def eval_batches(self: Pipeline, split: str, batch_size: int) -> Iterator[Batch]:
        for batch in plain(self, split, batch_size):
            none = slice(0, 0 if split == "8 of val" else None)
            yield Batch(batch.images[none], batch.labels[none], batch.sample_ids[none], batch.epochs[none])

    monkeypatch.setattr(type(pipeline), "eval_batches", eval_batches)
    said: list[str] = []
    run, folder = run_of("kl", steps=3), AutoencoderFolder(tmp_path)
    result = Trainer(_settle(run, folder), folder, pipeline, said.append).run()
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert "none of the images that it shows can be read" in said[-1]


@pytest.mark.parametrize("kind", ["kl", "patch"])
def test_the_principal_directions_of_validation_latents_lie_beside_the_weights(kind: str, tmp_path: Path):
    given = {"factor": 2, "latent_channels": 3} if kind == "patch" else {"steps": 3, **SMALL}
    values = {"data": digits_pipeline(16).config, "training": {"kind": kind, **given}, "threads": 1}
    train_here(AutoencoderRun.model_validate({**values, "amp_dtype": "float32", "channels_last": False}), tmp_path)
    coder = build_autoencoder(AutoencoderConfig(model=str(tmp_path)), 1)
    assert coder.principal is not None
    (batch,) = digits_pipeline(16).eval_batches("val", 200)
    with torch.inference_mode():
        latent = coder.encode(torch.from_numpy(batch.images).float() / 255)
    torch.testing.assert_close(coder.principal.mean, latent.mean(dim=0), atol=1e-5, rtol=1e-4)
    rows = coder.principal.directions.flatten(1)
    along = (latent - coder.principal.mean).flatten(1) @ (rows / rows.square().sum(dim=1, keepdim=True)).T
    torch.testing.assert_close(along.square().mean(dim=0)[:8], torch.ones(8), atol=1e-3, rtol=0)


def test_patches_are_fitted_to_training_images_from_the_whole_split(tmp_path: Path):
    pipeline = digits_pipeline(16)
    values = {"data": pipeline.config, "threads": 1, "amp_dtype": "float32", "channels_last": False}
    training = {"kind": "patch", "factor": 2, "latent_channels": 4, "images": 3}
    result = train_here(AutoencoderRun.model_validate({**values, "training": training}), tmp_path)
    assert result["psnr"] > 60
    (batch,) = pipeline.eval_batches("train", 2000)
    shown = torch.from_numpy(batch.images[[0, (len(batch) - 1) // 2, len(batch) - 1]]).float() / 255
    mean = build_autoencoder(AutoencoderConfig(model=str(tmp_path)), 1).mean
    torch.testing.assert_close(mean, shown.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(0, 2, 3)))


def test_the_perceptual_loss_takes_the_teachers_weights(tmp_path: Path):
    network = build_student(StudentConfig(model="hardray_mlp"), ImageSpec(16, 1, tuple("0123456789")))
    torch.save(network.model.state_dict(), tmp_path / "teacher.pt")
    teacher = TeacherConfig(model="hardray_mlp", checkpoint=tmp_path / "teacher.pt")
    train_here(run_of("kl", steps=3, teacher=teacher, perceptual=0.5), tmp_path / "coder")
    _, point = list(read_points(tmp_path / "coder" / "metrics.jsonl"))[-1]
    assert 0 < point["train/perceptual"] < 4
    assert point["train/loss"] > point["train/error"] + 0.49 * point["train/perceptual"]


def test_a_finished_one_is_refused(tmp_path: Path):
    result = train_here(run_of("kl", steps=3), tmp_path)
    with pytest.raises(RunFolderError, match=rf"holds a finished autoencoder \({result['psnr']:.2f} dB\)"):
        check_output(AutoencoderFolder(tmp_path))


def test_other_settings_do_not_continue_a_training(tmp_path: Path):
    folder = AutoencoderFolder(tmp_path)
    begun = _settle(run_of("kl"), folder)
    check_output(folder)
    with pytest.raises(RunFolderError, match=r"other settings: training\.steps was 40, now 50; give the same"):
        _settle(run_of("kl", steps=50), folder)
    undecided = run_of("kl").model_copy(update={"threads": None, "amp_dtype": None, "channels_last": None})
    assert _settle(undecided, folder) == begun


def test_a_folder_that_another_version_began_is_told(tmp_path: Path):
    folder = AutoencoderFolder(tmp_path)
    _settle(run_of("kl"), folder)
    folder.training.write_text(folder.training.read_text().replace("warmup:", "warm_up:"))
    with pytest.raises(RunFolderError, match=r"does not take: training\.warm_up: unknown key.*choose another --output"):
        _settle(run_of("kl"), folder)


def test_training_yaml_loads_back_to_the_same(tmp_path: Path):
    run = run_of("vq", codes=64)
    _settle(run, AutoencoderFolder(tmp_path))
    assert AutoencoderRun.model_validate(yaml.safe_load((tmp_path / "training.yaml").read_text())) == run


def test_a_run_refuses_the_folder_of_an_autoencoder(tmp_path: Path):
    from hard_ray.runs.folder import check_new_run

    _settle(run_of("kl"), AutoencoderFolder(tmp_path))
    assert not RunFolder(tmp_path).config.exists()
    with pytest.raises(RunFolderError, match="is no run folder"):
        check_new_run(tmp_path)


@pytest.mark.slow
def test_a_training_that_is_interrupted_goes_on_to_the_same_bits(tmp_path: Path):
    options = ("--kind", "vq", "--preset", "digits", "--steps", "300", "--batch-size", "16", "--widths", "4,8")
    command = ("train-autoencoder", *options, "data.img_size=16", "data.digit_size=12", "runtime.threads=1")
    printed = succeed(*command, "--output", "straight", cwd=tmp_path)
    assert "dB on 200 validation images" in printed
    process = start(*command, "--output", "stopped", cwd=tmp_path)
    wait_for_step(tmp_path / "stopped", 40, process)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 130, printed
    assert "the same command continues" in " ".join(printed.split())
    assert "continues after update" in succeed(*command, "--output", "stopped", cwd=tmp_path)
    straight, stopped = (
        load_file(tmp_path / name / "diffusion_pytorch_model.safetensors") for name in ("straight", "stopped")
    )
    assert_equal_bits(straight, stopped)
