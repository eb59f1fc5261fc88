import json
import pickle
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from torch import Tensor

from hard_ray.config.augmentor import SequenceAugmentor
from hard_ray.config.autoencoder import AutoencoderConfig
from hard_ray.config.loader import absolute
from hard_ray.errors import ModelError
from hard_ray.networks.autoencoders.base import Autoencoder, write_latents
from hard_ray.networks.autoencoders.build import build_autoencoder
from hard_ray.networks.autoencoders.diffusers_models import VqAutoencoder
from hard_ray.networks.autoencoders.principal import Principal
from hard_ray.preparation.autoencoder import psnr
from tests.networks.saved import FACTORS, KINDS, LATENT_CHANNELS, made, save


def build(folder: Path, in_chans: int = 3, **config: object) -> Autoencoder:
    return build_autoencoder(AutoencoderConfig(model=str(folder), **config), in_chans)


def pictures(channels: int = 3, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 18), (3, 1)])
def test_any_size_comes_back_and_the_latent_is_of_as_many_cells_as_needed(
    kind: str, height: int, width: int, tmp_path: Path
):
    coder = build(save(kind, tmp_path / kind))
    factor = FACTORS[kind]
    assert (coder.factor, coder.latent_channels) == (factor, LATENT_CHANNELS[kind])
    images = pictures(3, height, width)
    latent = coder.encode(images)
    assert latent.shape == (2, LATENT_CHANNELS[kind], -(-height // factor), -(-width // factor))
    assert coder.decode(latent, (height, width)).shape == images.shape


@pytest.mark.parametrize("kind", KINDS)
def test_grey_images_are_seen_as_three_equal_channels_and_come_back_as_their_mean(kind: str, tmp_path: Path):
    folder = save(kind, tmp_path / kind)
    grey, colour = build(folder, in_chans=1), build(folder)
    images = pictures(1)
    latent = grey.encode(images)
    torch.testing.assert_close(latent, colour.encode(images.repeat(1, 3, 1, 1)))
    decoded = colour.decode(latent, (16, 16)).mean(dim=1, keepdim=True)
    torch.testing.assert_close(grey.decode(latent, (16, 16)), decoded)


def test_a_grey_model_takes_grey_images_as_they_are_and_refuses_colour(tmp_path: Path):
    folder = save("kl", tmp_path / "kl", channels=1)
    assert build(folder, in_chans=1).reconstruct(pictures(1)).shape == (2, 1, 16, 16)
    with pytest.raises(ModelError, match=r"takes images of 1 channel, the data has 3; set data\.in_chans=1"):
        build(folder)


def test_the_sides_are_filled_up_by_reflection_where_there_is_enough_to_reflect(tmp_path: Path):
    coder = build(save("kl", tmp_path / "kl"))
    images = pictures(3, 16, 14)
    filled = torch.cat([images, images[..., [12, 11]]], dim=-1)
    torch.testing.assert_close(coder.encode(images), coder.encode(filled))
    thin = pictures(3, 16, 1)
    torch.testing.assert_close(coder.encode(thin), coder.encode(thin.expand(-1, -1, -1, 4)))


@pytest.mark.parametrize("kind", ["kl", "tiny", "vq"])
def test_diffusers_models_see_and_give_images_between_minus_one_and_one(kind: str, tmp_path: Path):
    coder, images = build(save(kind, tmp_path / kind)), pictures()
    model, latent = coder.model, coder.encode(images)
    encoded = model.encode(2 * images - 1)
    expected = encoded.latent_dist.mean if kind == "kl" else encoded.latents
    torch.testing.assert_close(latent, expected)
    decoded = model.decode(latent, force_not_quantize=True) if kind == "vq" else model.decode(latent)
    torch.testing.assert_close(coder.decode(latent, (16, 16)), decoded.sample / 2 + 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_the_latent_and_the_images(kind: str, tmp_path: Path):
    coder = build(save(kind, tmp_path / kind))
    images = pictures().requires_grad_()
    latent = coder.encode(images)
    latent.retain_grad()
    coder.decode(coder.quantise(latent), (16, 16)).square().sum().backward()
    assert latent.grad is not None
    assert (latent.grad != 0).float().mean() > 0.9
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_quantised_cells_are_the_nearest_codes_exactly(tmp_path: Path):
    coder = build(save("vq", tmp_path / "vq"))
    assert isinstance(coder, VqAutoencoder)
    latent = 2 * torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(0))
    cells = coder.quantise(latent).movedim(1, -1).reshape(-1, 6)
    distances = torch.cdist(latent.movedim(1, -1).reshape(-1, 6).double(), coder.codebook.double())
    assert torch.equal(cells, coder.codebook[distances.argmin(dim=1)])
    expected, _, _ = coder.model.quantize(latent)
    torch.testing.assert_close(coder.quantise(latent), expected)
    assert torch.equal(coder.quantise(coder.quantise(latent)), coder.quantise(latent))


def test_without_a_codebook_a_latent_is_its_own_code(tmp_path: Path):
    coder = build(save("kl", tmp_path / "kl"))
    latent = coder.encode(pictures())
    assert coder.quantise(latent) is latent


def test_the_latents_deviation_is_one_until_it_is_measured_or_read(tmp_path: Path):
    folder = save("kl", tmp_path / "kl")
    coder = build(folder)
    assert coder.latent_std.tolist() == [1.0, 1.0]
    coder.set_latent_std(torch.tensor([0.25, 3.0]))
    assert coder.latent_std.tolist() == [0.25, 3.0]
    write_latents(folder / "latents.json", mean=torch.zeros(2), std=torch.tensor([0.5, 2.0]))
    assert build(folder).latent_std.tolist() == [0.5, 2.0]


def test_a_channel_that_hardly_varies_is_held_away_from_zero(tmp_path: Path):
    coder = build(save("kl", tmp_path / "kl"))
    coder.set_latent_std(torch.tensor([0.0, 2.0]))
    assert coder.latent_std.tolist() == pytest.approx([0.002, 2.0])
    coder.set_latent_std(torch.zeros(2))
    assert coder.latent_std.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("text", ["{", "{}", '{"std": [1.0]}', '{"std": [1.0, -1.0]}', '{"std": "a"}'])
def test_latents_that_do_not_fit_are_refused(text: str, tmp_path: Path):
    folder = save("kl", tmp_path / "kl")
    (folder / "latents.json").write_text(text)
    with pytest.raises(ModelError, match=r"latents\.json.*fix it, or remove it"):
        build(folder)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_taef2_with_its_weights_reconstructs_real_images(suffix: str, shared_data: Path, tmp_path: Path):
    start = shared_data / "weights" / "taef2"
    if suffix == "safetensors":
        start = converted(start, tmp_path)
    data = np.load(shared_data / "cifar10" / "cifar10_lossless_4k.npz")
    images = torch.from_numpy(data["x"][:128]).permute(0, 3, 1, 2).float() / 255
    coder = build(start)
    with torch.inference_mode():
        decoded = coder.reconstruct(images)
    assert psnr(float((decoded - images).square().mean())) > 23


def converted(start: Path, folder: Path) -> Path:
    """The torch files as safetensors files."""
    from safetensors.torch import save_file

    for part in ("encoder", "decoder"):
        tensors = torch.load(f"{start}_{part}.pth", weights_only=True)
        save_file(tensors, folder / f"taef2_{part}.safetensors")
    return folder


def test_taef2_is_found_in_a_folder_and_by_the_start_of_its_names(tmp_path: Path):
    folder = save("taef2", tmp_path / "weights")
    images = pictures()
    by_folder, by_start = build(folder), build(folder / "taef2")
    assert torch.equal(by_folder.encode(images), by_start.encode(images))
    assert torch.equal(build(tmp_path, subfolder="weights").encode(images), by_folder.encode(images))


def test_a_name_on_the_hub_is_fetched_without_what_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = save("vq", tmp_path / "repository" / "vae")
    asked = {}

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        return str(folder.parent)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    coder = build_autoencoder(AutoencoderConfig(model="hf-hub:some/one", subfolder="vae"), 3)
    assert isinstance(coder, VqAutoencoder)
    assert asked["some/one"][:2] == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    assert not any(pattern.endswith((".bin", ".pth", "*")) for pattern in asked["some/one"])


def test_a_hub_that_does_not_answer_is_a_message(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> str:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match=r"hf-hub:some/one cannot be fetched \(OSError: no route to host\); check the"):
        build_autoencoder(AutoencoderConfig(model="hf-hub:some/one"), 3)


def test_a_wrong_folder_is_a_message(tmp_path: Path):
    with pytest.raises(ModelError, match=r"there is no such folder; want a folder in diffusers' layout"):
        build(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"it has no config\.json; want .*a model within another needs"):
        build(tmp_path)


def test_a_model_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(ModelError, match=r"is 'UNet2DModel'; hardray uses AutoencoderKL, AutoencoderTiny, VQModel"):
        build(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="want JSON with `_class_name`"):
        build(tmp_path)


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    path = save("kl", tmp_path) / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["encoder.conv_in.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 of AutoencoderKL's tensors, first 'encoder\.conv_in\.weight'"):
        build(tmp_path)


class Evil:
    """What must never be made."""

    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_weights_of_an_autoencoder_that_were_not_fetched_are_said_to_be_a_pointer(tmp_path: Path):
    folder = save("kl", tmp_path / "kl")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3141\n"
    (folder / "diffusion_pytorch_model.safetensors").write_text(pointer)
    with pytest.raises(ModelError, match="it is a pointer of Git LFS.* git lfs pull"):
        build(folder)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    evil = pickle.dumps({"encoder.conv_in.weight": Evil()})
    folder = save("kl", tmp_path / "kl")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(evil)
    with pytest.raises(ModelError, match="want diffusion_pytorch_model.safetensors"):
        build(folder)
    for part in ("encoder", "decoder"):
        (tmp_path / f"taef2_{part}.pth").write_bytes(evil)
    with pytest.raises(ModelError, match="a pickle of Python, which would have to be run"):
        build(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_the_path_is_absolute_before_it_travels_in_a_sequence_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert AutoencoderConfig(model="here").model == "local-dir:here"
    assert AutoencoderConfig(model="hf-hub:some/one").model == "hf-hub:some/one"
    sequence = SequenceAugmentor(augmentors=({"kind": "vae", "autoencoder": {"model": "here"}},))
    (part,) = absolute(sequence).augmentors
    assert part.autoencoder.model == f"local-dir:{tmp_path / 'here'}"


def test_diffusers_is_imported_only_once_a_model_of_its_kind_is_wanted():
    code = (
        "import sys, hard_ray.networks.autoencoders.diffusers_models, "
        "hard_ray.preparation.autoencoder; print('diffusers' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_model_that_looks_codes_up_by_number_is_decoded_all_the_same():
    coder = VqAutoencoder(made("vq", lookup_from_codebook=True), in_chans=3).eval()
    assert coder.reconstruct(pictures()).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_at_a_scale_the_model_sees_enlarged_images_and_the_decoded_ones_are_reduced(kind: str, tmp_path: Path):
    folder = save(kind, tmp_path / kind)
    large, plain = build(folder, scale=2), build(folder)
    images = pictures(3, 10, 16)
    enlarged = torch.nn.functional.interpolate(images, scale_factor=2, mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(large.encode(images), plain.encode(enlarged))
    assert large.encode(images).shape[-2:] == (large.cells(10), large.cells(16))
    reduced = torch.nn.functional.avg_pool2d(plain.reconstruct(enlarged), 2)
    torch.testing.assert_close(large.reconstruct(images), reduced)


def test_the_scale_is_part_of_the_identity(tmp_path: Path):
    folder = save("kl", tmp_path / "kl")
    assert build(folder, scale=2).identity() != build(folder).identity() == build(folder, scale=1).identity()


def test_principal_directions_are_read_from_beside_the_weights(tmp_path: Path):
    folder = save("kl", tmp_path / "kl")
    assert build(folder).principal is None
    given = Principal(torch.zeros(2, 4, 4), torch.rand(3, 2, 4, 4))
    given.save(folder / "directions.safetensors")
    found = build(folder).principal
    assert found is not None
    assert torch.equal(found.directions, given.directions)
