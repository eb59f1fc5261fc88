"""Training of an autoencoder: two objectives, the loop, and the quality of the result.

The loop knows no Ray: the batches and the request to stop are arguments.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from hard_ray.config.autoencoder_training import KlTraining, NetworkTraining, VqTraining
from hard_ray.data.batch import Batch
from hard_ray.distillation.checkpoints import CheckpointStore, Counters, Weights
from hard_ray.distillation.loop import Status
from hard_ray.errors import DataError
from hard_ray.maths.noise import seed_of
from hard_ray.networks.autoencoders.base import Autoencoder
from hard_ray.networks.autoencoders.diffusers_models import KlAutoencoder, VqAutoencoder
from hard_ray.networks.precision import Precision
from hard_ray.runs.bad_images import BadImages
from hard_ray.runs.log import MetricsLog

LOG_EVERY = 20
CHECKPOINT_EVERY = 200
SAY_EVERY_S = 5.0
LARGEST_GRADIENT = 1.0

Losses = dict[str, Tensor]


Features = Callable[[Tensor], Tensor]
"""Returns a frozen network's features of images in [0, 1]."""


class _Objective(nn.Module):
    """Base of the objectives: how far reconstructions are from the images."""

    def __init__(self, config: NetworkTraining, features: Features | None) -> None:
        super().__init__()
        self.features = features
        self.perceptual = config.perceptual

    def reconstruction(self, decoded: Tensor, images: Tensor) -> Losses:
        """The squared error per pixel, and its sum with the weighted distance of features, if there are any."""
        error = F.mse_loss(decoded.float(), images)
        if self.features is None:
            return {"loss": error, "error": error}
        distance = feature_distance(self.features, decoded.float(), images).mean()
        return {"loss": error + self.perceptual * distance, "error": error, "perceptual": distance}


def feature_distance(
    features: Features,
    decoded: Float[Tensor, "batch channels height width"],
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    r"""Squared distance of normalised features, between 0 and 4.

    .. math:: \ell_i = \left\| \frac{f(\hat x_i)}{\|f(\hat x_i)\|} - \frac{f(x_i)}{\|f(x_i)\|} \right\|^2

    Source: Zhang et al. 2018, arXiv:1801.03924, equation 1. The paper sums over layers, with learned weights, and
    normalises each place alone; the last features alone, normalised as a whole, fit every network of timm.
    """
    with torch.no_grad():
        wanted = features(images).float().flatten(1)
    found = features(decoded).float().flatten(1)
    return (F.normalize(found, dim=1) - F.normalize(wanted, dim=1)).square().sum(dim=1)


class KlObjective(_Objective):
    r"""Squared error of a decoded sample, and the divergence of its distribution from the standard normal.

    .. math:: L = \| x - D(z) \|^2 / n_x + w \, \mathrm{KL}(q(z|x) \,\|\, N(0, 1)) / n_z, \quad z \sim q(z|x)

    Source: Kingma and Welling 2013, arXiv:1312.6114, equation 10, with a small weight w and means in place of sums.
    """

    def __init__(self, coder: KlAutoencoder, config: KlTraining, features: Features | None = None) -> None:
        super().__init__(config, features)
        self.coder = coder
        self.config = config

    def forward(self, images: Float[Tensor, "batch channels height width"], generator: torch.Generator) -> Losses:
        """Return the losses as means over the batch."""
        mean, logvar = (moment.float() for moment in self.coder.posterior(images))
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = self.coder.decode(mean + (logvar / 2).exp() * noise, _size(images))
        divergence = (mean.square() + logvar.exp() - 1 - logvar).mean() / 2
        losses = self.reconstruction(decoded, images)
        return {**losses, "loss": losses["loss"] + self.config.kl_weight * divergence, "kl": divergence}


class VqObjective(_Objective):
    r"""Squared error of the decoded codes, and the distance of cells from their codes.

    .. math:: L = \| x - D(e) \|^2 / n_x + \beta \| z - \mathrm{sg}(e) \|^2 / n_z, \quad e = e_{k(z)}

    A code is the moving average of the cells that chose it. A code that hardly any cell chooses restarts at a cell of
    the batch, so that the whole codebook is used; at the first update all codes do.

    Source: van den Oord et al. 2017, arXiv:1711.00937, equation 3 and appendix A.1; restarts as in Dhariwal et al.
    2020, arXiv:2005.00341, section 3.1.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, coder: VqAutoencoder, config: VqTraining, features: Features | None = None) -> None:
        """`coder` is the autoencoder to train; its codebook moves here, not in the optimiser."""
        super().__init__(config, features)
        self.coder = coder
        self.config = config
        coder.codebook.requires_grad_(False)
        self.register_buffer("counts", torch.zeros(config.codes))
        self.register_buffer("sums", torch.zeros(config.codes, config.latent_channels))

    def forward(self, images: Float[Tensor, "batch channels height width"], generator: torch.Generator) -> Losses:
        """Move the codebook and return the losses as means over the batch."""
        latent = self.coder.encode(images).float()
        cells = latent.detach().movedim(1, -1).flatten(0, -2)
        self._restart(cells, generator)
        chosen = self.coder.nearest(latent)
        codes = self.coder.codebook[chosen].movedim(-1, 1).detach()
        decoded = self.coder.decode(codes + (latent - latent.detach()), _size(images))
        losses, commitment = self.reconstruction(decoded, images), F.mse_loss(latent, codes)
        self._follow(cells, chosen.flatten())
        loss = losses["loss"] + self.config.commitment * commitment
        return {**losses, "loss": loss, "commitment": commitment, "codes": self._perplexity(chosen)}

    @torch.no_grad()
    def _restart(self, cells: Float[Tensor, "cells latent"], generator: torch.Generator) -> None:
        """Move unused codes to a cell of the batch, with a count that gives them time to be chosen."""
        mean = self.counts.mean()
        mean = torch.where(mean > 0, mean, torch.ones_like(mean))
        limit = self.config.dead_below * mean
        picked = torch.randint(len(cells), self.counts.shape, generator=generator).to(cells.device)
        dead = self.counts <= limit
        self.counts.copy_(torch.where(dead, 2 * limit + 1e-6, self.counts))
        self.sums.copy_(torch.where(dead[:, None], self.counts[:, None] * cells[picked], self.sums))
        self.coder.codebook.copy_(self.sums / self.counts[:, None])

    @torch.no_grad()
    def _follow(self, cells: Float[Tensor, "cells latent"], chosen: Int[Tensor, " cells"]) -> None:
        """Move every code towards the mean of its cells."""
        decay = self.config.decay
        uses = torch.bincount(chosen, minlength=len(self.counts)).to(self.counts)
        total = torch.zeros_like(self.sums).index_add_(0, chosen, cells)
        self.counts.lerp_(uses, 1 - decay)
        self.sums.lerp_(total, 1 - decay)
        self.coder.codebook.copy_(self.sums / self.counts.clamp_min(1e-6)[:, None])

    @torch.no_grad()
    def _perplexity(self, chosen: Tensor) -> Tensor:
        """Perplexity of the codes in the batch: the exponential of the entropy of their shares."""
        shares = torch.bincount(chosen.flatten(), minlength=len(self.counts)) / chosen.numel()
        perplexity: Tensor = torch.special.entr(shares).sum().exp()
        return perplexity


Objective = KlObjective | VqObjective


def build_objective(coder: Autoencoder, config: NetworkTraining, features: Features | None = None) -> Objective:
    """Build the objective of this kind of training; `features` are those of the `perceptual` loss."""
    if isinstance(config, VqTraining):
        assert isinstance(coder, VqAutoencoder)
        return VqObjective(coder, config, features)
    assert isinstance(coder, KlAutoencoder)
    return KlObjective(coder, config, features)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


@dataclass(slots=True)
class AutoencoderLoop:
    """One training in this process, continued from its newest checkpoint."""

    objective: Objective
    config: NetworkTraining
    seed: int
    precision: Precision
    batches: Callable[[int], Generator[Batch]]
    """Yields batches from a number on, without end."""
    checkpoints: CheckpointStore
    log: MetricsLog
    stop: Callable[[], bool]
    """Whether to end after this update, with a checkpoint."""
    say: Callable[[str], None]
    bad_images: BadImages = field(default_factory=lambda: BadImages(0))
    """Unreadable images so far, and how many are allowed."""
    progress: Counters = field(init=False)
    _optimizer: Optimizer = field(init=False)
    _weights: Weights = field(init=False)
    _sums: dict[str, Tensor] = field(init=False, default_factory=dict)
    _said: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        trained = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        self._optimizer = AdamW(trained, lr=self.config.lr, weight_decay=0.0, betas=(0.9, 0.99))
        self._weights = Weights({"objective": self.objective}, {"autoencoder": self._optimizer})
        self.progress = self.checkpoints.restore(self._weights, say=self.say) or Counters()
        self._sums = {name: torch.tensor(total) for name, (total, _) in self.progress.meter.items()}
        self.log.cut(self.progress.step)

    def train(self) -> Status:
        """Train to the end, or until a stop is asked for; raises DataError if too many images are unreadable."""
        total = self.config.steps
        if self.progress.step >= total:
            return Status.FINISHED
        self.objective.train()
        with closing(self.batches(self.progress.step)) as batches:
            while self.progress.step < total:
                began = time.perf_counter()
                self._update(next(batches))
                self._watch(time.perf_counter() - began)
                if self.stop():
                    break
        self._checkpoint()
        return Status.FINISHED if self.progress.step >= total else Status.STOPPED

    def _update(self, batch: Batch) -> None:
        progress, config = self.progress, self.config
        self.bad_images.add([*progress.bad_images, *batch.bad], batch.reasons)
        progress.bad_images = sorted(self.bad_images.names)
        images = self.precision.images(batch.images)
        generator = torch.Generator().manual_seed(seed_of("autoencoder noise", self.seed, progress.step))
        with self.precision.autocast():
            losses: Losses = self.objective(images, generator)
        self._optimizer.zero_grad()
        losses["loss"].backward()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(progress.step, config)
            nn.utils.clip_grad_norm_(group["params"], LARGEST_GRADIENT)
        self._optimizer.step()
        progress.step += 1
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value.detach() if name in self._sums else value.detach()

    def _watch(self, seconds: float) -> None:
        progress = self.progress
        progress.seconds["total"] = progress.seconds.get("total", 0.0) + seconds
        if progress.step % LOG_EVERY == 0 or progress.step == self.config.steps:
            self._log_point()
        if progress.step % CHECKPOINT_EVERY == 0 and progress.step < self.config.steps:
            self._checkpoint()

    def _log_point(self) -> None:
        progress = self.progress
        count = (progress.step - 1) % LOG_EVERY + 1
        means = {f"train/{name}": float(total) / count for name, total in self._sums.items()}
        self._sums = {}
        speed = progress.step * self.config.batch_size / progress.seconds["total"]
        point = {"kind": "train", "step": progress.step, "time": time.time(), **means}
        self.log.append({**point, "train/psnr": psnr(means["train/error"]), "throughput/images_per_s": speed})
        if time.monotonic() - self._said > SAY_EVERY_S or progress.step == self.config.steps:
            self._said = time.monotonic()
            codes = f"  {means['train/codes']:.0f} codes" if "train/codes" in means else ""
            self.say(
                f"update {progress.step:>6} of {self.config.steps}  loss {means['train/loss']:.4f}  "
                f"{psnr(means['train/error']):.2f} dB{codes}  {speed:,.0f} images/s"
            )

    def _checkpoint(self) -> None:
        self.progress.meter = {name: [float(total), 0.0] for name, total in self._sums.items()}
        self.checkpoints.save(self._weights, self.progress)


def learning_rate(step: int, config: NetworkTraining) -> float:
    """Linear warm-up, then a cosine to zero."""
    rising = (step + 1) / config.warmup
    return config.lr * min(rising, (1 + math.cos(math.pi * step / config.steps)) / 2)


def psnr(squared_error: float) -> float:
    """Peak signal-to-noise ratio of images in [0, 1], in decibels."""
    return -10 * math.log10(max(squared_error, 1e-12))


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of an autoencoder on images that it was not trained on."""

    psnr: float
    """From the mean squared error over all images, in decibels."""
    images: int
    latent_mean: Float[Tensor, " latent"]
    latent_std: Float[Tensor, " latent"]


@torch.inference_mode()
def reconstruction_quality(coder: Autoencoder, batches: Iterable[Batch], precision: Precision) -> Quality:
    """Reconstruct images and sum errors and latents in double precision; raises DataError if there is no image."""
    error, pixels, images, cells = 0.0, 0, 0, 0
    sums = torch.zeros(2, coder.latent_channels, dtype=torch.float64)
    for batch in batches:
        if not len(batch):  # none of its images can be read
            continue
        originals = precision.images(batch.images)
        latent = coder.encode(originals)
        decoded = coder.decode(coder.quantise(latent), _size(originals)).clamp(0, 1)
        error += float((decoded - originals).double().square().sum())
        pixels += originals.numel()
        images += len(originals)
        values = latent.movedim(1, 0).flatten(1).double().cpu()
        cells += values.shape[1]
        sums += torch.stack([values.sum(dim=1), values.square().sum(dim=1)])
    if not images:
        raise DataError(
            "the validation split has no readable image; repair the data, or name another split in data.val_split"
        )
    mean, square = sums / cells
    return Quality(psnr(error / pixels), images, mean, (square - mean.square()).clamp_min(0).sqrt())
