"""torch.compile: the same answers and names, each kind of batch compiled once, eager where it cannot be."""

import copy
import logging
import os

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor

from hard_ray.config.networks import StudentConfig
from hard_ray.files import cache_folder
from hard_ray.networks import compilation
from hard_ray.networks.network import ImageSpec, Network, build_student

SPEC = ImageSpec(8, 1, tuple("abc"))


def network(**kwargs: object) -> Network:
    torch.manual_seed(0)
    return build_student(StudentConfig(model="hardray_cnn", model_kwargs={"widths": [4, 8], **kwargs}), SPEC)


def mlp() -> Network:
    torch.manual_seed(0)
    return build_student(StudentConfig(model="hardray_mlp", model_kwargs={"widths": [16]}), SPEC)


def compiled(net: Network, *sizes: int) -> str | None:
    return net.compile_for("default", sizes=sizes, name="the student", attempt=lambda: None)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are made and run as they are, without a compiler of machine code: it takes seconds for each."""
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    compilation.forget_graphs()


@pytest.mark.timeout(900)
def test_compiled_code_answers_as_the_network_and_returns_its_gradients(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compilation.forget_graphs()
    plain, fast = (mlp(), mlp())
    images = torch.rand(4, 1, 8, 8)
    with inductor.patch(cpp_cache_precompile_headers=False, compile_threads=1):
        assert compiled(fast, 4) is None
        found = fast(images)
        of_found = torch.autograd.grad(found.square().sum(), fast.parameters())
    wanted = plain(images)
    of_wanted = torch.autograd.grad(wanted.square().sum(), plain.parameters())
    assert (wanted - found).abs().max() < 1e-4
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(of_wanted, of_found, strict=True))
    assert fast.compilation.graphs == 1
    made = [*tmp_path.rglob("*.so")]
    assert made
    for file in made:  # as a process leaves them that is killed while it links; not in place, where they are in use
        file.unlink()
        file.write_bytes(b"\x7fELF")
    compilation.forget_graphs()
    with inductor.patch(cpp_cache_precompile_headers=False, compile_threads=1):
        assert fast.compile_for("default", sizes=(4,), name="the student", attempt=lambda: fast(images)) is None
    assert torch.equal(fast(images), found)


def test_compiled_code_is_kept_in_the_cache_unless_a_folder_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch):
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())  # as torch itself sets it
    compilation.prepare_compiler()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache_folder() / "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compilation.prepare_compiler()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)


@pytest.mark.usefixtures("traced")
def test_each_kind_of_batch_is_compiled_once():
    net, images = network(), torch.rand(4, 1, 8, 8)
    compiled(net, 4)
    made = []
    for _ in range(3):
        net.train()
        net(images).sum().backward()
        net.eval()
        with torch.inference_mode():
            net(images)
        leaf = images.clone().requires_grad_()
        torch.autograd.grad(net(leaf).sum(), leaf)
        made.append(net.compilation.graphs)
    assert made == [3, 3, 3]
    assert net.compilation.facts() == {"mode": "default", "graphs": 3, "repeated": 0}
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.usefixtures("traced")
def test_batches_of_other_sizes_at_rest_run_eagerly_and_make_no_graph():
    net = network().freeze()
    compiled(net, 4)
    for size in (1, 2, 3, 5):
        images = torch.rand(size, 1, 8, 8)
        assert torch.equal(net(images), net.model.forward((images - net.mean) / net.std))
    assert net.compilation.graphs == 0


@pytest.mark.usefixtures("traced")
def test_compiling_again_for_the_same_batch_is_counted_and_warned_about(caplog: pytest.LogCaptureFixture):
    net = network().eval()
    compiled(net, 4)
    net(torch.rand(4, 1, 8, 8))
    net.model.drop_rate = 0.5  # code depends on it, as on every number that a model reads
    with caplog.at_level(logging.WARNING):
        net(torch.rand(4, 1, 8, 8))
    assert net.compilation.repeated == 1
    assert "the student was compiled again for images of shape (4, 1, 8, 8)" in caplog.text


@pytest.mark.usefixtures("traced")
def test_names_identity_and_copies_are_those_of_the_network():
    plain, net = network(), network()
    compiled(net, 4)
    assert list(net.state_dict()) == list(plain.state_dict())
    assert net.identity() == plain.identity()
    copied = copy.deepcopy(net)
    copied.model.head.bias.data.fill_(7.0)
    images = torch.rand(4, 1, 8, 8)
    assert torch.allclose(copied(images) - net(images), 7.0 - net.model.head.bias, atol=1e-5)


@pytest.mark.usefixtures("traced")
def test_a_network_that_cannot_be_compiled_stays_eager_and_says_why():
    net = network()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}

    def attempt() -> None:
        net(torch.rand(4, 1, 8, 8))
        raise RuntimeError("no such kernel\nand a long story")

    found = net.compile_for("default", sizes=(4,), name="the student", attempt=attempt)
    assert found == "RuntimeError: no such kernel"
    assert net.compilation is None
    assert net.model._compiled_call_impl is None
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())


def test_a_machine_without_a_compiler_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    assert compilation.toolchain_problem() is None

    def broken(graph: object, inputs: object) -> nn.Module:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compilation, "BACKEND", broken)
    assert "no C++ compiler" in compilation.toolchain_problem()
