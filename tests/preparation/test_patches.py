from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from hard_ray.config.autoencoder import AutoencoderConfig
from hard_ray.config.autoencoder_training import AutoencoderRun, PatchTraining
from hard_ray.errors import DataError, ModelError
from hard_ray.networks.autoencoders.build import build_autoencoder
from hard_ray.networks.autoencoders.patches import PatchAutoencoder
from hard_ray.preparation.patches import fit_patches


def images(count: int = 64, channels: int = 3, side: int = 12) -> Tensor:
    """Blurred noise: neighbouring pixels resemble each other."""
    drawn = torch.rand(count, channels, side + 4, side + 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(drawn, 5, stride=1)


def fitted(channels: int = 3, **settings: object) -> PatchAutoencoder:
    return fit_patches(images(channels=channels), PatchTraining(**settings), seed=0).eval().requires_grad_(False)


def error(coder: PatchAutoencoder, given: Tensor) -> float:
    return float((coder.reconstruct(given) - given).square().mean())


def test_all_components_reconstruct_exactly_and_each_one_less_costs_its_variance():
    given = images()
    torch.testing.assert_close(fitted(factor=2, latent_channels=12).reconstruct(given), given)
    whole = fitted(factor=2, latent_channels=12)
    for kept in (3, 7):
        lost = whole.latent_std[kept:].square().sum().item() / 12
        assert error(fitted(factor=2, latent_channels=kept), given) == pytest.approx(lost, rel=1e-3)


def test_the_latents_are_coordinates_with_the_deviations_that_it_states():
    coder = fitted(factor=4, latent_channels=5)
    latent = coder.encode(images()).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(latent.mean(dim=0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(latent.T @ latent / len(latent), coder.latent_std.square().diag(), atol=1e-5, rtol=1e-3)
    rows = coder.components.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(5), atol=1e-5, rtol=0)


def test_more_codes_reconstruct_better_and_cells_are_codes():
    errors = [error(fitted(factor=2, latent_channels=8, codes=codes), images()) for codes in (4, 16, 64)]
    assert errors[0] > 1.2 * errors[1] > 1.44 * errors[2]
    coder = fitted(factor=2, latent_channels=8, codes=16)
    assert coder.codebook is not None
    cells = coder.quantise(coder.encode(images())).movedim(1, -1).flatten(0, -2)
    assert torch.cdist(cells.double(), coder.codebook.double()).min(dim=1).values.max() < 1e-5
    assert len(torch.unique(coder.nearest(coder.encode(images())))) == 16


def test_a_seed_gives_the_same_bits():
    one, same = (fitted(factor=2, latent_channels=4, codes=8).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], same[name]) for name in one)


@pytest.mark.parametrize("codes", [None, 8])
def test_it_comes_back_from_its_folder_with_its_identity(codes: int | None, tmp_path: Path):
    coder = fitted(factor=4, latent_channels=6, codes=codes)
    coder.save(tmp_path)
    again = build_autoencoder(AutoencoderConfig(model=str(tmp_path)), 3).requires_grad_(False)
    given = images(8, side=10)
    assert torch.equal(again.reconstruct(given), coder.reconstruct(given))
    assert again.identity() == coder.identity()
    assert torch.equal(again.latent_std, coder.latent_std)
    assert (again.codebook is None) == (codes is None)


def test_grey_data_has_grey_patches_and_a_file_of_another_kind_is_a_message(tmp_path: Path):
    fitted(channels=1, factor=2, latent_channels=3).save(tmp_path)
    assert build_autoencoder(AutoencoderConfig(model=str(tmp_path)), 1).reconstruct(images(2, 1)).shape[1] == 1
    with pytest.raises(ModelError, match="takes images of 1 channel, the data has 3"):
        build_autoencoder(AutoencoderConfig(model=str(tmp_path)), 3)
    (tmp_path / "patches.safetensors").write_bytes(b"no tensors")
    with pytest.raises(
        ModelError, match="cannot be read .*want the file that `hardray train-autoencoder --kind patch`"
    ):
        build_autoencoder(AutoencoderConfig(model=str(tmp_path)), 1)


def test_what_cannot_be_fitted_is_a_message():
    with pytest.raises(DataError, match="the images have 18 patches, fewer than the 32 codes"):
        fit_patches(images(2), PatchTraining(latent_channels=3, codes=32), seed=0)
    with pytest.raises(ValidationError, match="latent_channels=17 exceeds the 16 values of a patch of 4 x 4 pixels"):
        AutoencoderRun.model_validate({"training": {"kind": "patch", "latent_channels": 17}})
