"""Files of weights as training scripts, downloads and other programs leave them; nothing in them is run."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import gzip
import io
import json
import lzma
import os
import pickle
import sys
import tarfile
import types
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import nn

from hard_ray.errors import ModelError
from hard_ray.networks.checkpoint import read_checkpoint
from hard_ray.networks.stands import Stand
from tests.support.helpers import Trap

WEIGHTS = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.ones(2)}


def torch_bytes(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def assert_read(path: Path) -> None:
    found = read_checkpoint(path).weights
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[key], value) for key, value in WEIGHTS.items())


def lightning(monkeypatch: pytest.MonkeyPatch) -> type:
    """Lightning's dictionary of hyperparameters, in a module of its name."""
    module = types.ModuleType("lightning_fabric.utilities.data")
    made = type("AttributeDict", (dict,), {"__module__": module.__name__})
    module.AttributeDict = made
    for name in ("lightning_fabric", "lightning_fabric.utilities"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "beside",
    [
        {"args": argparse.Namespace(model="resnet18", output=Path("out"), seed=np.int64(3)), "version": 2},
        {"metric": np.float64(93.1), "best": np.float32(1.5), "right": np.bool_(True), "name": np.str_("top1")},
        {"random_state": np.random.default_rng(0).bit_generator.state, "numpy": np.arange(3), "mask": np.ones(2, bool)},
        {"best_model_path": Path("a/b"), "when": datetime.datetime(2024, 1, 1), "took": datetime.timedelta(1)},
        {"logs": collections.defaultdict(list, {"loss": [1.0, 2.0]}), "counts": collections.Counter("aab")},
        {"cfg": types.SimpleNamespace(lr=1), "shape": torch.Size([2]), "steps": range(3), "names": {"a", "b"}},
        {
            "torch": torch.__version__,
            "id": uuid.UUID(int=3),
            "price": decimal.Decimal("0.1"),
            "day": datetime.date.today(),
        },
        {
            "args": argparse.Namespace(),
            "dtype": np.float32,
            "kinds": frozenset("ab"),
            "last": collections.deque([1.0, 2.0], maxlen=9),
        },
        {"state": np.random.RandomState(0), "generator": np.random.default_rng(0), "lines": collections.deque("ab")},
        {"optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}},
    ],
    ids=[
        "namespace",
        "numpy numbers",
        "arrays",
        "paths and dates",
        "tables",
        "others",
        "versions",
        "types",
        "generators",
        "optimizer",
    ],
)
def test_what_scripts_keep_beside_the_weights_is_passed_over(beside: dict, zipped: bool, tmp_path: Path):
    path = tmp_path / "w.pth.tar"
    torch.save({"state_dict": WEIGHTS, "epoch": 3, **beside}, path, _use_new_zipfile_serialization=zipped)
    assert_read(path)


def test_a_checkpoint_of_timms_trainer_is_read_as_timm_reads_it(tmp_path: Path):
    """Written by timm's own saver, with the averaged weights and the arguments."""
    from timm.utils import CheckpointSaver, ModelEmaV3

    model = timm.create_model("cifar_resnet8", num_classes=3)
    ema = ModelEmaV3(model, decay=0.5)
    with torch.no_grad():
        model.conv1.weight.add_(1.0)
    args = argparse.Namespace(model="cifar_resnet8", lr=0.1)
    saver = CheckpointSaver(model, torch.optim.SGD(model.parameters(), lr=0.1), args, ema, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(0, metric=3.0)
    path = tmp_path / "last.pth.tar"
    found = read_checkpoint(path)
    expected = timm.models.load_state_dict(str(path))
    assert found.weights.keys() == expected.keys()
    assert all(torch.equal(found.weights[key], expected[key]) for key in expected)
    assert found.notes == ("the weights are the moving average 'state_dict_ema'; 'state_dict' is left out",)
    assert found.architecture == "cifar_resnet8"


def test_a_checkpoint_of_lightning_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    parameters = lightning(monkeypatch)(lr=0.1, data=Path("x"))
    content = {
        "epoch": 1,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"model.{key}": value for key, value in WEIGHTS.items()},
        "hyper_parameters": parameters,
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9), "dirpath": "x"}},
    }
    torch.save(content, tmp_path / "last.ckpt")
    assert set(read_checkpoint(tmp_path / "last.ckpt").weights) == {"model.conv.weight", "model.conv.bias"}


def test_stands_are_made_in_place_of_objects_and_the_list_is_torchs_again_afterwards(tmp_path: Path):
    torch.save({"state_dict": WEIGHTS, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    made: list[Any] = []
    keep = Stand.__setstate__

    def remember(self: Stand, state: Any) -> None:
        made.append(self)
        keep(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stand, "__setstate__", remember)
        read_checkpoint(tmp_path / "w.pth")
    assert [one.state for one in made] == [{"lr": 1}]
    assert set(torch.serialization.get_safe_globals()) == before


def test_the_only_table_of_tensors_is_taken_and_named(tmp_path: Path):
    torch.save({"net": WEIGHTS, "acc": 92.1, "epoch": 3}, tmp_path / "ckpt.pth")
    assert_read(tmp_path / "ckpt.pth")
    assert read_checkpoint(tmp_path / "ckpt.pth").notes == ("the weights are the entry 'net' of the file",)


def test_two_tables_of_tensors_are_a_choice_for_the_user(tmp_path: Path):
    torch.save({"student": WEIGHTS, "teacher": WEIGHTS}, tmp_path / "dino.pth")
    with pytest.raises(ModelError, match=r"several state dicts: 'student', 'teacher'; want one; save it alone: torch"):
        read_checkpoint(tmp_path / "dino.pth")


def test_entries_that_are_no_tensors_are_left_out_and_named(tmp_path: Path):
    torch.save({**WEIGHTS, "epoch": 3, "name": "x"}, tmp_path / "w.pth")
    assert_read(tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").notes == ("left out as no tensors: 2 entries ('epoch', 'name')",)


@pytest.mark.parametrize("name", ["w.pth", "w.ckpt", "weights", "w.bin"])
def test_a_safetensors_file_is_one_by_any_name(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(save(WEIGHTS))
    assert_read(tmp_path / name)


def test_a_torch_file_is_one_by_the_name_of_safetensors(tmp_path: Path):
    (tmp_path / "w.safetensors").write_bytes(torch_bytes(WEIGHTS))
    assert_read(tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(dtype: torch.dtype, tmp_path: Path):
    torch.save({key: value.to(dtype) for key, value in WEIGHTS.items()}, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").weights["conv.bias"].dtype is dtype


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def scripted() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3)), stream)
    return stream.getvalue()


def arrays() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, kernel=np.zeros(3))
    return stream.getvalue()


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064x}\nsize 3141\n".encode()
INDEX = json.dumps({"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode()
FILES = {
    "git lfs": (POINTER, "a pointer of Git LFS", "git lfs pull"),
    "git annex": (b"/annex/objects/SHA256E-s3141--0.pth\n", "a pointer of git-annex", "git annex get"),
    "dvc": (b"outs:\n- md5: 0\n  size: 3\n  path: w.pth\n", "a pointer of DVC", "dvc pull"),
    "web page": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page", "download the file itself"),
    "bucket": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page", "download"),
    "answer": (b'{"error": "Repository not found"}', "a server's answer in place of the file: 'Repository", "download"),
    "index": (INDEX, "an index of weights in 2 parts", "join them"),
    "settings": (b'{"architecture": "resnet18"}', "it is JSON", "name the file of the weights"),
    "bom": (b'\xef\xbb\xbf{"architecture": "resnet18"}', "it is JSON", "name the file of the weights"),
    "utf-16": ("hello there".encode("utf-16"), "a text file that begins with 'hello there'", "name the file"),
    "readme": (b"# ResNet-18\nTrained on birds.", "a text file that begins with '# ResNet-18", "name the file"),
    "empty": (b"", "it is empty", "download or copy it again"),
    "zeros": (bytes(9000), "begins with 4,096 zeros", "download or copy it again"),
    "cut torch file": (torch_bytes(WEIGHTS)[:-200], "whose end is missing", "download or copy it again"),
    "cut safetensors": (save(WEIGHTS)[:40], "a safetensors file that is cut off", "download or copy it again"),
    "cut in the data": (save(WEIGHTS)[:-4], "it is damaged", "download or copy it again"),
    "cut older torch file": (
        torch_bytes(WEIGHTS, _use_new_zipfile_serialization=False)[:-9],
        "it is damaged",
        "download or copy it again",
    ),
    "gzip": (gzip.compress(torch_bytes(WEIGHTS)), "compressed by gzip", "unpack it"),
    "xz": (lzma.compress(torch_bytes(WEIGHTS)), "compressed by xz", "unpack it"),
    "zip": (zipped(**{"w.pth": torch_bytes(WEIGHTS)}), "a zip archive of 'w.pth'", "unpack it"),
    "tar": (tarred("w.pth", torch_bytes(WEIGHTS)), "a tar archive", "unpack it"),
    "oldest torch": (tarred("storages", b"x"), "format before version 0.1.10", "save it again"),
    "torchscript": (scripted(), "a TorchScript program", "torch.jit.load"),
    "npz": (arrays(), "arrays of NumPy", "load_pretrained"),
    "keras": (zipped(**{"model.weights.h5": b"x"}), "a model of Keras", "convert"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file", "convert"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x032.1" + bytes(80), "a graph of ONNX", "name the model"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(80), "TensorFlow Lite", "name the PyTorch model"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(80), "GGUF", "name the model"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(80), "a picture", "name the file"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle of Python, which would have to be run", "save model.state_dict()"),
    "noise": (bytes(range(1, 200)), "of no known format; it begins with the bytes 01 02 03", "download"),
    "whole model": (
        torch_bytes(nn.Sequential(nn.Linear(2, 3), nn.ReLU())),
        "a whole model as Python objects (torch.nn.modules.activation.ReLU, torch.nn.modules.container.Sequential",
        "load it where it was made, and save model.state_dict()",
    ),
    "whole model in the older format": (
        torch_bytes(nn.Linear(2, 3), _use_new_zipfile_serialization=False),
        "a whole model as Python objects (torch.nn.modules.linear.Linear)",
        "save model.state_dict()",
    ),
    "wrapped model": (
        torch_bytes({"model": nn.Linear(2, 3)}),
        "a whole model as Python objects",
        "save model.state_dict",
    ),
    "another class": (
        torch_bytes({"state_dict": WEIGHTS, "stats": Trap(Path("x"))}),
        "Python objects of the types builtins.getattr, pathlib.Path, which would have to be run",
        "save model.state_dict() alone",
    ),
    "protocol 4": (torch_bytes(WEIGHTS, pickle_protocol=4), "a pickle protocol other than torch.save's", "safetensors"),
    "list": (torch_bytes([1, 2]), "holds no state dict: it is a list", "want a safetensors file"),
    "numbers": (
        torch_bytes({3: torch.zeros(1)}),
        "keys are not names of tensors, such as 3",
        "want a safetensors file",
    ),
    "nan": (torch_bytes({"a": torch.tensor([np.nan])}), "1 tensor ('a') with values that are not finite", "earlier"),
    "sparse": (torch_bytes({"a": torch.eye(3).to_sparse()}), "'a' has sparse values", "model.state_dict()"),
    "meta": (torch_bytes({"a": torch.zeros(3, device="meta")}), "'a' has no values", "model.state_dict()"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_weights_is_said_to_be_what_it_is(name: str, suffix: str, tmp_path: Path):
    content, found, remedy = FILES[name]
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert found in text and "want " in text and remedy in text, text
    assert "\n" not in text and "..." not in text
    assert not Path("x").exists()


def test_folders_are_said_to_be_what_they_are(tmp_path: Path):
    for name, inside, words in (
        ("deepspeed", "zero_to_fp32.py", "DeepSpeed"),
        ("fsdp", ".metadata", r"distributed checkpoint \(FSDP\).*dcp_to_torch"),
        ("parts", "model.safetensors.index.json", "in several parts"),
        ("tf", "saved_model.pb", "TensorFlow"),
        ("run", "student/config.json", "the folder of a run; .*run/student"),
        ("files", "best.pth", "name a file in it, such as .*best.pth"),
        ("none", "notes.txt", "name a file of weights"),
    ):
        path = tmp_path / name / inside
        path.parent.mkdir(parents=True)
        path.write_text("x")
        with pytest.raises(ModelError, match=words):
            read_checkpoint(tmp_path / name)


def test_a_part_of_the_weights_is_said_to_be_one(tmp_path: Path):
    path = tmp_path / "model-00002-of-00003.safetensors"
    path.write_bytes(save(WEIGHTS))
    with pytest.raises(ModelError, match=r"it is part 2 of 3 of the weights; want .*join them in one file"):
        read_checkpoint(path)
    whole = tmp_path / "model-00001-of-00001.safetensors"
    path.rename(whole)
    assert_read(whole)


def test_names_that_wrappers_of_inner_modules_add_are_taken_off(tmp_path: Path):
    torch.save(
        {
            "_orig_mod.conv._fsdp_wrapped_module.weight": WEIGHTS["conv.weight"],
            "module.conv._checkpoint_wrapped_module._orig_mod.bias": WEIGHTS["conv.bias"],
        },
        tmp_path / "w.pth",
    )
    assert_read(tmp_path / "w.pth")


def test_paths_without_a_file_are_messages(tmp_path: Path):
    with pytest.raises(ModelError, match=r"there is no such file.*look at the path"):
        read_checkpoint(tmp_path / "w.pth")
    (tmp_path / "link.pth").symlink_to("blobs/123")
    with pytest.raises(ModelError, match="it is a link to blobs/123, where nothing is"):
        read_checkpoint(tmp_path / "link.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ModelError, match="it is no regular file"):
        read_checkpoint(tmp_path / "pipe.pth")


def test_masks_may_hold_infinities(tmp_path: Path):
    save_file({**WEIGHTS, "attn_mask": torch.full((2, 2), -torch.inf)}, tmp_path / "w.safetensors")
    assert len(read_checkpoint(tmp_path / "w.safetensors").weights) == 3


@pytest.mark.parametrize("zipped", [True, False])
def test_an_object_that_would_run_code_is_refused_also_beside_known_ones(tmp_path: Path, zipped: bool):
    content = {"state_dict": WEIGHTS, "args": argparse.Namespace(trap=Trap(tmp_path / "sprung"))}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        read_checkpoint(tmp_path / "w.pth")
    assert not (tmp_path / "sprung").exists()
