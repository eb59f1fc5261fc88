"""A student update waits for nothing but the teacher: no value of a tensor is read, and nothing is copied and awaited.

On a GPU, reading a value and copying from ordinary memory wait for all kernels before. Both are counted here on a CPU:
by what torch dispatches, and by the methods that read tensors.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hard_ray.augmentors import learned_policy, main_mix
from hard_ray.augmentors.build import build_augmentor
from hard_ray.augmentors.main_mix import MainMix
from hard_ray.config.augmentor import (
    AffineAugmentor,
    CutmixAugmentor,
    IdentityAugmentor,
    LearnedPolicyAugmentor,
    MixAugmentor,
    MixupAugmentor,
    PickAugmentor,
    RandomAffineAugmentor,
)
from hard_ray.config.controller import Phase
from hard_ray.config.mix import MixConfig
from hard_ray.config.objective import DadObjective, DkdObjective, HardObjective, KdObjective
from hard_ray.distillation import teacher as teacher_module
from hard_ray.distillation.guard import diverged
from hard_ray.distillation.meter import Meter, SignalSum
from hard_ray.distillation.optimisers import Clipping
from hard_ray.distillation.step import Updater
from hard_ray.networks import precision
from hard_ray.ranks import Ranks
from tests.distillation.test_step import batch, nets, updater

DECIDED_IN_MAIN_MEMORY = (main_mix.__file__,)
"""Draws of noise, which never were on the device, decide here what happens."""

READS = ("item", "tolist", "cpu", "nonzero")
SIZED_BY_VALUES = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "bincount")
ALLOWED = (
    teacher_module.__file__,  # the teacher answers in this process, in the place of a pool
    precision.to_device.__code__.co_filename,  # copies that nothing waits for, and the pixels that the teacher asks for
    "kornia/core/utils.py",  # moves magnitudes to the images' device, where they are
    "torch/optim/",  # steps are counted in main memory, and on a GPU by the fused kernels
    "torch/nn/utils/clip_grad.py",  # moves the norm to the device of the gradients, where it is
)


class Waits(TorchDispatchMode):
    """Notes every operation whose result depends on a tensor's value, and who called it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def note(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "test_no_waiting" not in frame.filename]
        allowed = (*ALLOWED, *(DECIDED_IN_MAIN_MEMORY if what != "to" else ()))
        is_checked = any("one_hot(" in (frame.line or "") for frame in frames[-3:])  # labels are, and only on a CPU
        if not is_checked and not any(name in frame.filename for frame in frames[-12:] for name in allowed):
            own = [frame for frame in frames if "/hard_ray/" in frame.filename] or frames
            self.found.append(f"{what} in {own[-1].filename}:{own[-1].lineno}")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in SIZED_BY_VALUES or masks:
            self.note(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    waits = Waits()

    def noting(name: str):
        method = getattr(Tensor, name)

        def call(self: Tensor, *args: object, **kwargs: object) -> object:
            if name != "to" or any(isinstance(arg, torch.device) for arg in (*args, *kwargs.values())):
                waits.note(name)
            return method(self, *args, **kwargs)

        return call

    with monkeypatch.context() as patch, waits:
        for name in (*READS, "to"):
            patch.setattr(Tensor, name, noting(name))
        yield waits


def follow(made: Updater, monkeypatch: pytest.MonkeyPatch, *, ahead: bool) -> Waits:
    """Some updates as the loop makes them: the first may read what stays, later ones may not."""
    device = made.precision.device
    meter, signals = Meter({}), SignalSum(Ranks(), device, None)
    for step in range(3):
        with watched(monkeypatch) as waits:
            prepared = made.prepare(batch(), second_view=ahead)
            metrics = made.update(prepared, Phase.STUDENT, step=step, epoch=float(step))
            meter.add(metrics)
            signals.send(metrics, stop=False, new_bad=0, diverged=diverged(metrics))
    return waits


OBJECTIVES = {
    "kd": (KdObjective(), IdentityAugmentor()),
    "kd on a mixed main view": (KdObjective(), IdentityAugmentor(), MainMix(MixConfig(mixup=0.8, cutmix=1.0))),
    "kd of CutMix": (KdObjective(label_augmented=True), CutmixAugmentor()),
    "dkd of mixup": (DkdObjective(), MixupAugmentor()),
    "dad of random transforms": (DadObjective(), RandomAffineAugmentor()),
    "hard, affine": (HardObjective(), AffineAugmentor()),
    "hard, policy": (HardObjective(), LearnedPolicyAugmentor(hidden_dim=8, remember_every=1)),
    "hard, mix": (HardObjective(), MixAugmentor()),
    "picked": (KdObjective(), PickAugmentor()),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_student_update_waits_for_nothing_but_the_teacher(name: str, monkeypatch: pytest.MonkeyPatch):
    objective, config, mix = (*OBJECTIVES[name], None)[:3]
    augmentor = build_augmentor(config, in_chans=1, img_size=28)
    if augmentor is not None:
        augmentor.remember()
    teacher, student = nets()
    learns = augmentor is not None and list(augmentor.parameters())
    made = updater(teacher, student, augmentor=augmentor if learns else None, objective=objective)
    made.learner.augmentor = augmentor
    made.clipping, made.mix = Clipping(1.0), mix
    monkeypatch.setattr(learned_policy, "_on_host", lambda _: False)  # as on a GPU
    assert follow(made, monkeypatch, ahead=True).found == []


def test_what_waits_is_noticed(monkeypatch: pytest.MonkeyPatch):
    values = torch.rand(4)
    with watched(monkeypatch) as waits:
        float(values.sum())
        values[values > 0.5]
        values.to(torch.device("cpu"))
        values.cpu()
    assert [text.split()[0] for text in waits.found] == ["_local_scalar_dense", "index", "to", "cpu"]
