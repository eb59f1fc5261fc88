"""How a process computes on a GPU: deterministic algorithms or the fastest ones, TF32, and fused optimisers."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hard_ray.distillation.fused import fused_argument, has_fused
from hard_ray.networks import precision
from hard_ray.networks.precision import choose_algorithms, no_waiting, prepare_kernels, to_device, to_main_memory


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    cudnn, filled = torch.backends.cudnn, torch.utils.deterministic.fill_uninitialized_memory
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.get_float32_matmul_precision()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = before[:3]
    torch.set_float32_matmul_precision(before[3])


def test_deterministic_algorithms_are_strict_and_choose_nothing_by_a_stopwatch():
    choose_algorithms(deterministic=True, tf32=None)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    choose_algorithms(deterministic=False, tf32=None)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


def test_the_users_workspace_of_cublas_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    choose_algorithms(deterministic=True, tf32=None)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_for_products_and_convolutions_alike(tf32: bool):
    choose_algorithms(deterministic=False, tf32=tf32)
    assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is tf32
    assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is tf32
    choose_algorithms(deterministic=False, tf32=None)
    assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is tf32


def test_a_process_without_a_gpu_keeps_its_algorithms(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    prepare_kernels(None, deterministic=True, tf32=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(precision, "choose_algorithms", lambda **chosen: seen.append(chosen))
    prepare_kernels(None, deterministic=True, tf32=True)
    assert seen == [{"deterministic": True, "tf32": True}]


def test_arrays_go_to_a_device_and_back_as_they_are():
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    there = to_device(pixels, torch.device("cpu"))
    there.add_(1)
    assert pixels[0, 0, 0, 0] == 0
    own = to_device(pixels, torch.device("cpu"), copied=False)
    assert own.data_ptr() == pixels.ctypes.data
    last = there.contiguous(memory_format=torch.channels_last)
    assert np.array_equal(to_main_memory(last), pixels + 1)
    assert to_main_memory(last).strides == tuple(last.stride())


def test_what_waits_for_a_cpu_is_no_mistake():
    with no_waiting(torch.device("cpu")):
        assert float(torch.ones(3).sum()) == 3.0


def test_fused_kernels_are_used_on_a_gpu_by_optimisers_that_have_them():
    assert all(map(has_fused, ("sgd", "adamw", "adam", "momentum")))
    assert not any(map(has_fused, ("lamb", "lookahead_adamw", "muon")))
    assert fused_argument(torch.nn.Linear(2, 2), "adamw") == {}
