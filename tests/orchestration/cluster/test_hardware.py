"""The choices that follow from a processor's flags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hard_ray.orchestration.cluster import hardware


@pytest.mark.parametrize(
    ("flags", "dtype", "channels_last"),
    [
        ("sse4_2 avx2", "float32", False),
        ("avx2 avx512f", "float32", True),
        ("avx2 avx512f avx512_bf16", "bfloat16", True),
        ("avx2 avx512f avx512_bf16 amx_bf16", "bfloat16", True),
    ],
)
def test_precision_and_layout_follow_from_the_flags(
    flags: str, dtype: str, channels_last: bool, monkeypatch: pytest.MonkeyPatch
):
    text = f"processor : 0\nmodel name : Any\nflags : {flags}\n"
    read = Path.read_text

    def cpuinfo(path: Path, **how: str) -> str:
        return text if str(path) == "/proc/cpuinfo" else read(path, **how)

    monkeypatch.setattr(Path, "read_text", cpuinfo)
    found = hardware.probe()
    assert found.cpu == "Any"
    assert found.fast_dtype(on_gpu=False) == dtype
    assert found.prefers_channels_last(found.fast_dtype(on_gpu=False), on_gpu=False) is channels_last


def test_a_gpu_without_bfloat16_computes_in_float16_or_float32_whatever_the_processor_has():
    found = hardware.Hardware("Any", 2, "AMX", True, ("Old",), gpu_has_bf16=False, memory_gib=1, shared_memory_gib=1)
    assert found.fast_dtype(on_gpu=True) == "float32"
    turing = replace(found, gpu_has_fp16=True)
    assert turing.fast_dtype(on_gpu=True) == "float16"
    assert turing.fast_dtype(on_gpu=False) == "bfloat16"
    assert turing.prefers_channels_last("float16", on_gpu=True)
    assert replace(turing, gpu_has_bf16=True).fast_dtype(on_gpu=True) == "bfloat16"
    assert not found.prefers_channels_last("float32", on_gpu=True)
