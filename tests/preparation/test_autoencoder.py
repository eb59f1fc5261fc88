import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from hard_ray.config.autoencoder_training import AutoencoderTraining, KlTraining, VqTraining
from hard_ray.data.batch import Batch
from hard_ray.distillation.checkpoints import CheckpointStore
from hard_ray.distillation.loop import Status
from hard_ray.errors import DataError
from hard_ray.networks.autoencoders.diffusers_models import new_autoencoder
from hard_ray.networks.precision import Precision
from hard_ray.preparation.autoencoder import (
    AutoencoderLoop,
    KlObjective,
    VqObjective,
    build_objective,
    feature_distance,
    learning_rate,
    psnr,
    reconstruction_quality,
)
from hard_ray.runs.bad_images import BadImages
from hard_ray.runs.log import MetricsLog, read_points
from tests.support.helpers import assert_equal_bits, digits_pipeline

SMALL = {"steps": 12, "batch_size": 16, "widths": (4, 8), "warmup": 2, "latent_channels": 3}
TRAININGS = {"kl": KlTraining(**SMALL), "vq": VqTraining(**SMALL, codes=16)}
CPU = Precision(torch.device("cpu"))


def objective(config: AutoencoderTraining) -> KlObjective | VqObjective:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return build_objective(new_autoencoder(config, in_chans=1, img_size=16), config)


def loop(config: AutoencoderTraining, folder: Path, **parts: object) -> AutoencoderLoop:
    pipeline = digits_pipeline(config.batch_size)
    given = {"batches": pipeline.train_batches, "stop": lambda: False, "say": lambda _: None, **parts}
    return AutoencoderLoop(
        objective=objective(config),
        config=config,
        seed=0,
        precision=CPU,
        checkpoints=CheckpointStore(folder / "checkpoints"),
        log=MetricsLog(folder / "metrics.jsonl"),
        **given,
    )


def trained(config: AutoencoderTraining, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir()
    made = loop(config, folder)
    assert made.train() is Status.FINISHED
    return made.objective.state_dict()


def after(updates: int) -> Callable[[], bool]:
    """Says stop at the call with that number."""
    calls = itertools.count(1)
    return lambda: next(calls) >= updates


def images(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def distances(codes: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """How far each code is from the nearest cell."""
    return (codes[:, None] - cells).norm(dim=-1).min(dim=1).values


@pytest.mark.parametrize("kind", TRAININGS)
def test_training_lowers_the_error(kind: str, tmp_path: Path):
    config = TRAININGS[kind].model_copy(update={"steps": 80})
    made = loop(config, tmp_path)
    made.train()
    errors = [point["train/error"] for _, point in read_points(tmp_path / "metrics.jsonl")]
    assert len(errors) == 4
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.parametrize("kind", TRAININGS)
def test_two_runs_have_equal_bits(kind: str, tmp_path: Path):
    assert_equal_bits(trained(TRAININGS[kind], tmp_path / "a"), trained(TRAININGS[kind], tmp_path / "b"))


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_resume_equals_the_straight_run(kind: str, tmp_path: Path):
    config = TRAININGS[kind].model_copy(update={"steps": 25})
    straight = trained(config, tmp_path / "straight")
    folder = tmp_path / "resumed"
    folder.mkdir()
    for stop in (5, 18):
        assert loop(config, folder, stop=after(stop)).train() is Status.STOPPED
    assert loop(config, folder).progress.step == 23
    last = loop(config, folder)
    assert last.train() is Status.FINISHED
    assert_equal_bits(straight, last.objective.state_dict())
    numbers = [
        [{key: value for key, value in point.items() if key.startswith("train/")} for _, point in read_points(path)]
        for path in (tmp_path / "straight" / "metrics.jsonl", folder / "metrics.jsonl")
    ]
    assert numbers[0] == numbers[1]


def test_what_is_finished_is_not_trained_on(tmp_path: Path):
    weights = trained(TRAININGS["kl"], tmp_path / "a")
    again = loop(TRAININGS["kl"], tmp_path / "a", batches=lambda _: pytest.fail("batches are asked for"))
    assert again.train() is Status.FINISHED
    assert_equal_bits(weights, again.objective.state_dict())


def test_the_kl_loss_is_that_of_the_equation():
    made = objective(TRAININGS["kl"])
    assert isinstance(made, KlObjective)
    losses = made(images(), generator())
    mean, logvar = made.coder.posterior(images())
    latent = mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=generator())
    error = (made.coder.decode(latent, (16, 16)) - images()).square().mean()
    normal = torch.distributions.Normal(mean, (logvar / 2).exp())
    divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(losses["kl"], divergence)
    torch.testing.assert_close(losses["loss"], error + TRAININGS["kl"].kl_weight * divergence)


def test_the_vq_loss_is_that_of_the_equation_and_the_decoder_sees_codes():
    made = objective(TRAININGS["vq"])
    assert isinstance(made, VqObjective)
    made(images(), generator())
    books = []
    nearest = made.coder.nearest

    def look(latent: torch.Tensor) -> torch.Tensor:
        books.append(made.coder.codebook.clone())
        return nearest(latent)

    made.coder.nearest = look
    losses = made(images(), generator())
    del made.coder.nearest
    made.coder.codebook.copy_(books[0])
    latent = made.coder.encode(images())
    codes = made.coder.quantise(latent)
    error = (made.coder.decode(codes, (16, 16)) - images()).square().mean()
    commitment = (latent - codes.detach()).square().mean()
    torch.testing.assert_close(losses["loss"], error + TRAININGS["vq"].commitment * commitment)


def test_the_distance_of_features_is_that_of_the_equation():
    def features(given: torch.Tensor) -> torch.Tensor:
        return given.flatten(1)[:, :2]

    one, other = (
        torch.tensor(rows).view(3, 1, 1, 2) for rows in ([[1.0, 0], [3, 4], [2, 0]], [[5.0, 0], [4, 3], [-1, 0]])
    )
    expected = torch.tensor([0.0, (0.6 - 0.8) ** 2 * 2, 4.0])  # equal, turned a little, opposite
    torch.testing.assert_close(feature_distance(features, one, other), expected)


@pytest.mark.parametrize("kind", TRAININGS)
def test_the_perceptual_loss_is_added_with_its_weight_and_its_network_stays_as_it_is(kind: str):
    frozen = torch.nn.Conv2d(1, 3, 3).requires_grad_(False)
    config = TRAININGS[kind].model_copy(update={"perceptual": 0.5})
    torch.set_num_threads(1)

    def losses(features: Callable[[torch.Tensor], torch.Tensor] | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        made = build_objective(new_autoencoder(config, in_chans=1, img_size=16), config, features)
        assert made.state_dict().keys() == objective(config).state_dict().keys()
        return made(images(), generator())

    plain, found = losses(None), losses(frozen.forward)
    assert 0 < found["perceptual"] < 4
    torch.testing.assert_close(found["loss"], plain["loss"] + 0.5 * found["perceptual"])
    found["perceptual"].backward()
    assert frozen.weight.grad is None


def test_descending_the_perceptual_loss_brings_features_closer():
    torch.manual_seed(0)
    frozen = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 5, stride=2), torch.nn.ReLU()).requires_grad_(False)
    coder = new_autoencoder(TRAININGS["kl"], in_chans=1, img_size=16)
    made = build_objective(coder, TRAININGS["kl"].model_copy(update={"perceptual": 1.0}), frozen.forward)
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
    reached = []
    for _ in range(40):
        distance = made(images(), generator())["perceptual"]
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        reached.append(distance.item())
    assert reached[-1] < 0.6 * reached[0]


def test_at_the_first_update_every_code_is_a_cell_of_the_batch_and_dead_ones_restart():
    made = objective(TRAININGS["vq"])
    assert isinstance(made, VqObjective)
    cells = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    made._restart(cells, generator())
    assert distances(made.coder.codebook, cells).max() < 1e-6
    made.counts.fill_(10.0)
    made.counts[4] = 0.5
    made.sums.copy_(10.0 * torch.arange(16.0)[:, None].expand(-1, 3))
    made._restart(cells, generator())
    expected = torch.arange(16.0)[:, None].expand(-1, 3)
    alive = torch.arange(16) != 4
    torch.testing.assert_close(made.coder.codebook[alive], expected[alive])
    assert distances(made.coder.codebook[4:5], cells).max() < 1e-6


def test_a_code_follows_the_mean_of_its_cells():
    made = objective(TRAININGS["vq"])
    assert isinstance(made, VqObjective)
    cells, chosen = torch.tensor([[1.0, 2, 3], [3, 2, 1], [5, 5, 5]]), torch.tensor([2, 2, 7])
    for _ in range(400):
        made._follow(cells, chosen)
    torch.testing.assert_close(made.coder.codebook[2], torch.tensor([2.0, 2, 2]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.coder.codebook[7], torch.tensor([5.0, 5, 5]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.counts[[2, 7, 0]], torch.tensor([2.0, 1.0, 0.0]), rtol=1e-3, atol=1e-3)


def test_the_learning_rate_rises_and_falls_to_zero():
    config = KlTraining(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) > 0.95
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_decibels():
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(1.0) == 0
    assert math.isfinite(psnr(0.0))


def test_the_measure_is_over_all_images_and_cells_whatever_the_batches():
    made = objective(TRAININGS["kl"])
    pipeline = digits_pipeline(16)
    one, other = (reconstruction_quality(made.coder, pipeline.eval_batches("val", size), CPU) for size in (200, 37))
    assert one.images == other.images == 200
    assert one.psnr == pytest.approx(other.psnr, abs=1e-4)
    (batch,) = pipeline.eval_batches("val", 200)
    pixels = torch.from_numpy(batch.images).float() / 255
    with torch.inference_mode():
        latent = made.coder.encode(pixels).transpose(0, 1).flatten(1).double()
        error = (made.coder.reconstruct(pixels).clamp(0, 1) - pixels).square().mean()
    assert other.psnr == pytest.approx(psnr(float(error)), abs=1e-4)
    torch.testing.assert_close(other.latent_mean, latent.mean(dim=1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other.latent_std, latent.std(dim=1, correction=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", TRAININGS)
def test_batches_without_images_are_passed_over_and_no_images_at_all_are_an_error(kind: str):
    coder = objective(TRAININGS[kind]).coder
    (batch,) = digits_pipeline(16).eval_batches("val", 200)
    empty = Batch(batch.images[:0], batch.labels[:0], batch.sample_ids[:0], batch.epochs[:0], bad=("a.jpg",))
    alone, beside = (reconstruction_quality(coder, batches, CPU) for batches in ([batch], [empty, batch, empty]))
    assert (beside.psnr, beside.images) == (alone.psnr, alone.images)
    with pytest.raises(DataError, match=r"validation split has no readable image; repair .*data\.val_split"):
        reconstruction_quality(coder, [empty, empty], CPU)


def test_too_many_unreadable_images_end_the_training(tmp_path: Path):
    def batches(first: int) -> Iterator[Batch]:
        for batch in digits_pipeline(16).train_batches(first):
            yield Batch(batch.images, batch.labels, batch.sample_ids, batch.epochs, bad=("a.jpg", "b.jpg"))

    with pytest.raises(DataError, match="2 images cannot be read, more than the 1"):
        loop(TRAININGS["kl"], tmp_path, batches=batches, bad_images=BadImages(1)).train()
