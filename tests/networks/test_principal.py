from pathlib import Path

import pytest
import torch

from hard_ray.errors import ModelError
from hard_ray.networks.autoencoders.principal import Principal, fit_principal


def latents(count: int = 400) -> torch.Tensor:
    """Latents that vary along the axes alone, by 3, 2, 1 and 0.5, around a mean of 5."""
    drawn = torch.randn(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact, _ = torch.linalg.qr(drawn - drawn.mean(dim=0))
    scaled = exact * count**0.5 * torch.tensor([0.5, 3.0, 1.0, 2.0])
    return (scaled - scaled.mean(dim=0) + 5.0).unflatten(1, (1, 2, 2)).float()


def test_directions_are_the_axes_of_variation_as_long_as_the_deviations():
    found = fit_principal(latents(), count=3)
    torch.testing.assert_close(found.mean, torch.full((1, 2, 2), 5.0))
    expected = torch.tensor([[0.0, 3, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0]])
    torch.testing.assert_close(found.directions.flatten(1).abs(), expected, atol=1e-4, rtol=1e-4)


def test_along_them_the_latents_have_deviation_one_and_no_correlation():
    given = torch.randn(200, 2, 3, 3, generator=torch.Generator().manual_seed(1)) + torch.linspace(0, 1, 9).view(3, 3)
    found = fit_principal(given, count=6)
    rows = found.directions.flatten(1).double()
    coordinates = (given - found.mean).flatten(1).double() @ (rows / rows.square().sum(dim=1, keepdim=True)).T
    torch.testing.assert_close(coordinates.T @ coordinates / 200, torch.eye(6).double(), atol=1e-5, rtol=1e-5)


def test_directions_without_variation_are_left_out():
    assert len(fit_principal(latents()[:3], count=4).directions) == 2
    assert len(fit_principal(latents()[:1], count=4).directions) == 0


def test_they_come_back_from_their_file(tmp_path: Path):
    found = fit_principal(latents())
    found.save(tmp_path / "directions.safetensors")
    again = Principal.load(tmp_path / "directions.safetensors")
    assert torch.equal(again.mean, found.mean)
    assert torch.equal(again.directions, found.directions)


def test_a_damaged_file_is_a_message(tmp_path: Path):
    path = tmp_path / "directions.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"cannot be read .*remove it, or train the autoencoder again"):
        Principal.load(path)
    Principal(torch.zeros(1, 2, 2), torch.zeros(3, 1, 2, 5)).save(path)
    with pytest.raises(ModelError, match=r"one more axis than `mean`, got \(3, 1, 2, 5\) and \(1, 2, 2\)"):
        Principal.load(path)
