from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hard_ray.config.augmentor import AttackConfig
from hard_ray.maths.attacks import START_DRAWS, attack, direction, distance, project

NORMS = ["l2", "linf"]


def images(seed: int, rows: int = 6) -> Tensor:
    """Images of which many pixels are exactly black or white."""
    drawn = torch.rand(rows, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
    return (2 * drawn - 0.5).clamp(0, 1)


def noise(seed: int, rows: int = 6) -> Tensor:
    return torch.randn(rows, START_DRAWS, generator=torch.Generator().manual_seed(seed))


def towards(target: Tensor):
    """The gradient of minus half the squared distance to a target."""
    return lambda found: target - found


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(NORMS),
    eps=st.floats(1e-3, 3.0),
    step_size=st.floats(1e-3, 3.0),
    steps=st.integers(1, 4),
    random_start=st.sampled_from([0.0, 0.5, 1.0]),
    strength=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**20),
)
def test_no_result_leaves_the_ball_or_the_range_of_images(
    norm: str, eps: float, step_size: float, steps: int, random_start: float, strength: float, seed: int
):
    config = AttackConfig(norm=norm, eps=eps, step_size=step_size, steps=steps, random_start=random_start)
    centre = images(seed)
    found = attack(centre, noise(seed), towards(images(seed + 1)), config, strength=strength)
    assert (distance(found, centre, norm=norm) <= strength * eps + 1e-5).all()
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_at_strength_zero_nothing_moves(norm: str):
    centre = images(0)
    found = attack(centre, noise(0), towards(images(1)), AttackConfig(norm=norm, steps=3), strength=0.0)
    assert torch.equal(found, centre)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_teacher_is_asked_once_a_step_each_time_where_the_last_step_ended(steps: int):
    asked = []

    def gradient(found: Tensor) -> Tensor:
        asked.append(found)
        return torch.ones_like(found)

    centre = torch.full((2, 1, 4, 4), 0.5)
    config = AttackConfig(eps=1.0, step_size=0.1, steps=steps, random_start=0.0)
    found = attack(centre, noise(0, 2), gradient, config)
    moved = [distance(each, centre, norm="l2") for each in (*asked, found)]
    torch.testing.assert_close(torch.stack(moved)[:, 0], 0.1 * torch.arange(steps + 1))


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_within_the_ball_is_the_longhand_step(norm: str):
    centre, goal = images(0).double(), images(1).double()
    config = AttackConfig(norm=norm, eps=0.3, step_size=0.2, steps=1, random_start=0.0)
    found = attack(centre, noise(0), towards(goal), config)
    for row in range(len(centre)):
        way = goal[row] - centre[row]
        step = way / way.square().sum().sqrt() if norm == "l2" else way.sign()
        torch.testing.assert_close(found[row], (centre[row] + 0.2 * step).clamp(0, 1))


@pytest.mark.parametrize("norm", NORMS)
def test_what_lies_outside_of_the_ball_is_put_on_its_border_and_what_lies_within_stays(norm: str):
    centre = torch.full((2, 1, 3, 3), 0.5)
    far, near = centre + 0.3, centre + 0.001
    found = project(far, centre, norm=norm, eps=0.2)
    torch.testing.assert_close(distance(found, centre, norm=norm), torch.full((2,), 0.2))
    assert torch.equal(project(near, centre, norm=norm, eps=0.2), near)


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e-15, 1e-25, 1e-37])
def test_a_gradient_however_small_gives_a_step_of_length_one(scale: float):
    """A teacher that is sure of a label has hardly any gradient left; what counts is where it points."""
    whole = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = direction(scale * whole, norm="l2")
    torch.testing.assert_close(found, direction(whole, norm="l2"), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_gradient_there_is_no_step(norm: str):
    assert torch.equal(direction(torch.zeros(2, 1, 3, 3), norm=norm), torch.zeros(2, 1, 3, 3))


@pytest.mark.parametrize("norm", NORMS)
def test_the_share_of_random_starts_is_the_configured_one_and_they_fill_the_ball(norm: str):
    centre = torch.full((600, 1, 4, 4), 0.5)
    config = AttackConfig(norm=norm, eps=0.1, step_size=1e-9, random_start=0.8)
    found = attack(centre, noise(0, 600), torch.zeros_like, config)
    length = distance(found, centre, norm=norm)
    assert (length > 1e-6).float().mean().item() == pytest.approx(0.8, abs=0.05)
    assert length.max() > 0.09
    assert length.max() <= 0.1 + 1e-6


def test_a_random_start_follows_from_the_images_own_noise_alone():
    centre, drawn = images(0), noise(0)
    config = AttackConfig(random_start=1.0)
    whole = attack(centre, drawn, torch.zeros_like, config)
    alone = attack(centre[3:4], drawn[3:4], torch.zeros_like, config)
    assert torch.equal(whole[3:4], alone)
