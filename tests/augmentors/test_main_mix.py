import numpy as np
import pytest
import torch
from pydantic import ValidationError
from timm.data.mixup import Mixup, cutmix_bbox_and_lam, mixup_target

from hard_ray.augmentors.main_mix import DRAWS, MainMix, Mixture
from hard_ray.config.mix import MixConfig
from hard_ray.maths import losses
from hard_ray.maths.noise import normal

SIZE, CPU = torch.Size((16, 20)), torch.device("cpu")


def noise(rows: int, *, epoch: int = 0, first: int = 0) -> torch.Tensor:
    ids = np.arange(first, first + rows)
    return torch.from_numpy(normal("mix", seed=0, epochs=np.full(rows, epoch), sample_ids=ids, count=DRAWS))


def drawn(rows: int = 8, *, epoch: int = 0, size: torch.Size = SIZE, **config: object) -> Mixture:
    mixture = MainMix(MixConfig(**config))(noise(rows, epoch=epoch), size, CPU)
    assert mixture is not None
    return mixture


def images(rows: int = 8) -> torch.Tensor:
    return torch.rand(rows, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def own_shares(mixture: Mixture, rows: int) -> torch.Tensor:
    return mixture.labels(torch.zeros(rows, dtype=torch.int64)).share


def timm_shares(rows: int, **config: object) -> np.ndarray:
    """The own shares of timm's Mixup, for as many images, in its mode `elem`."""
    np.random.seed(0)
    names = {"mixup": "mixup_alpha", "cutmix": "cutmix_alpha"}
    made = Mixup(**{"mixup_alpha": 0.0} | {names.get(key, key): value for key, value in config.items()}, mode="elem")
    return made._mix_elem(torch.zeros(rows, 1, *SIZE)).flatten().numpy()


CONFIGS = [
    {"mixup": 0.8},
    {"mixup": 0.2, "prob": 0.4},
    {"cutmix": 1.0},
    {"cutmix": 0.5},
    {"mixup": 0.8, "cutmix": 1.0},
    {"mixup": 0.3, "cutmix": 1.0, "switch_prob": 0.2, "prob": 0.7},
    {"cutmix_minmax": (0.25, 0.75)},
]


@pytest.mark.parametrize("config", CONFIGS)
def test_shares_are_distributed_as_those_of_timm(config: dict):
    rows = 2000
    ours = own_shares(drawn(rows, **config, mode="elem"), rows).numpy()
    theirs = timm_shares(rows, **config)
    grid = np.linspace(0, 1, 41)
    distance = max(abs((ours <= x).mean() - (theirs <= x).mean()) for x in grid)
    assert distance < 1.95 * (2 / rows) ** 0.5  # Kolmogorov and Smirnov, at a thousandth


@pytest.mark.parametrize("minmax", [None, (0.25, 0.75)])
def test_boxes_cover_each_pixel_as_often_as_those_of_timm(minmax: tuple[float, float] | None):
    rows = 4000
    ours = 1 - drawn(rows, cutmix=1.0, cutmix_minmax=minmax, mode="elem").weight.mean(dim=(0, 1)).numpy()
    np.random.seed(0)
    theirs = np.zeros(SIZE)
    for _ in range(rows):
        (top, bottom, left, right), _share = cutmix_bbox_and_lam(SIZE, np.random.beta(1.0, 1.0), ratio_minmax=minmax)
        theirs[top:bottom, left:right] += 1 / rows
    assert np.abs(ours - theirs).max() < 4.5 * (0.5 / rows) ** 0.5


def test_a_box_of_limited_sides_lies_within_the_image_and_its_limits():
    weight = drawn(500, cutmix_minmax=(0.25, 0.75), mode="elem").weight[:, 0]
    height, width = ((weight == 0).any(dim=axis).sum(dim=1) for axis in (2, 1))
    assert (height.min(), height.max()) == (4, 11)  # int(16 * 0.25) and below int(16 * 0.75)
    assert (width.min(), width.max()) == (5, 14)
    assert torch.equal((weight == 0).sum(dim=(1, 2)), height * width)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_pixel_is_the_weighted_mean_of_an_image_and_its_partner(config: dict):
    mixture, given = drawn(**config, mode="elem"), images()
    mixed = mixture.images(given)
    assert sorted(mixture.partner.tolist()) == list(range(8))
    assert (mixture.partner != torch.arange(8)).all()
    weight = mixture.weight.expand(8, 1, *SIZE)
    for row, other in enumerate(mixture.partner.tolist()):
        torch.testing.assert_close(mixed[row], weight[row] * given[row] + (1 - weight[row]) * given[other])
    boxed = {0.0, 1.0}.issuperset(weight.flatten().tolist())
    assert boxed == (config.get("mixup", 0) == 0)


def test_one_draw_for_the_batch_is_that_of_its_first_image_and_one_per_image_differs():
    batch, each = drawn(mixup=0.8), drawn(mixup=0.8, mode="elem")
    assert own_shares(batch, 8).unique().numel() == 1
    assert own_shares(each, 8).unique().numel() == 8
    assert own_shares(batch, 8)[0] == own_shares(each, 8)[0]
    assert torch.equal(batch.partner, each.partner)


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_the_probability_is_that_of_a_batch_or_an_image(mode: str):
    config, rows = MixConfig(mixup=1.0, prob=0.3, mode=mode), 4
    mixed = 0.0
    for epoch in range(500):
        mixture = MainMix(config)(noise(rows, epoch=epoch), SIZE, CPU)
        mixed += 0.0 if mixture is None else float((own_shares(mixture, rows) < 1).float().mean()) / 500
    assert mixed == pytest.approx(0.3, abs=0.07)


def test_an_image_that_is_not_mixed_keeps_its_bits():
    mixture, given = drawn(64, mixup=0.8, cutmix=1.0, prob=0.5, mode="elem"), images(64)
    kept = own_shares(mixture, 64) == 1
    assert 10 < int(kept.sum()) < 54
    assert torch.equal(mixture.images(given)[kept], given[kept])


def test_mixed_labels_are_timms_smoothed_ones():
    labels = torch.tensor([0, 3, 1, 2, 2, 4])
    mixture = Mixture(torch.arange(6).flip(0), torch.full((1, 1, 1, 1), 0.3))  # timm's partners
    shares = mixture.labels(labels).shares(5)
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    theirs = mixup_target(labels, 5, lam=0.3, smoothing=0.1)
    torch.testing.assert_close(
        losses.cross_entropy(logits, shares, smoothing=0.1), -(theirs * logits.log_softmax(dim=1)).sum(dim=1)
    )


def test_the_label_of_the_larger_share_is_the_class_of_a_mixed_image():
    labels = torch.tensor([0, 1, 2])
    weight = torch.tensor([0.7, 0.5, 0.2])[:, None, None, None]
    assert Mixture(torch.tensor([1, 2, 0]), weight).labels(labels).larger().tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "mix nothing"),
        ({"mixup": 0.0, "cutmix": 0.0}, "mix nothing"),
        ({"cutmix_minmax": (0.8, 0.2)}, "two rising shares"),
        ({"mixup": 0.8, "mode": "pair"}, "'batch' or 'elem'"),
    ],
)
def test_settings_that_mix_nothing_or_mean_nothing_are_refused(config: dict, said: str):
    with pytest.raises(ValidationError, match=said):
        MixConfig(**config)
