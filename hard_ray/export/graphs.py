"""A network as one file that runs without its Python code: ONNX, and torch.export's pt2.

Both take images in [0, 1], shape (batch, channels, height, width) with any batch, and return logits: the resizing and
normalisation of the input are part of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hard_ray.errors import ModelError, readable
from hard_ray.networks.network import ImageSpec, Network

Kind = Literal["onnx", "pt2"]
Graph = Callable[[Tensor], Tensor]
"""From images in [0, 1] to logits."""

FILES: dict[Kind, str] = {"onnx": "model.onnx", "pt2": "model.pt2"}
INPUT, OUTPUT = "images", "logits"
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit where that is above 1."""
BATCHES = (1, 7)
"""Sizes of the first batches of a check: a file must take any size."""


@dataclass(frozen=True, slots=True)
class GraphCheck:
    """How closely a file reproduces its network."""

    file: str
    images: int
    source: str
    """A description of the images."""
    max_difference: float
    """The largest difference of any logit of any image."""


def check_packages() -> None:
    """Check that an ONNX file can be written and run here; ModelError: it names the missing packages."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"an ONNX file needs {' and '.join(missing)}, which cannot be imported; "
            "install what is missing with `pip install '.[onnx]'` in a clone of hardray"
        )


def write_graph(kind: Kind, network: Network, path: Path, images: ImageSpec) -> None:
    """Write a network in evaluation mode as a graph; ModelError: the exporter does not support it."""
    example = torch.zeros(2, images.in_chans, images.img_size, images.img_size)  # a batch of 1 would become a constant
    shapes = ({0: torch.export.Dim("batch")},)
    try:
        if kind == "onnx":
            program = torch.onnx.export(
                network,
                (example,),
                dynamic_shapes=shapes,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.save(path, external_data=False)  # one file, as long as it is below protobuf's 2 GB
        else:
            torch.export.save(torch.export.export(network, (example,), dynamic_shapes=shapes), path)
    except Exception as error:  # an unsupported operator raises errors of any kind
        raise ModelError(
            f"{network.architecture} cannot be written as {path.name}: {readable(error)}; export without this file"
        ) from error


def _onnx(path: Path) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)

    return run


def _pt2(path: Path) -> Graph:
    module: Any = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = module(images)
        return logits

    return run


def check_graph(
    kind: Kind, path: Path, network: Network, images: Tensor, *, source: str, has_classes: bool = True
) -> GraphCheck:
    """Compare a file with its network on real images, in batches of several sizes.

    Args:
        kind: the file's format.
        path: the file.
        network: in evaluation mode.
        images: in [0, 1], shape (batch, channels, height, width).
        source: a description of the images.
        has_classes: whether the answers are logits of classes, of which the largest must be the same one.

    Raises:
        ModelError: the file does not run, a logit differs by more than `TOLERANCE`, or an image gets another class.
    """
    with torch.no_grad():
        wanted = network(images)
    try:
        run = _onnx(path) if kind == "onnx" else _pt2(path)
        got = torch.cat([run(batch) for batch in images.split(_sizes(len(images)))])
    except Exception as error:  # an operator or a shape raises errors of any kind
        raise ModelError(f"{path.name} was written, but does not run: {readable(error)}; it was removed") from error
    return GraphCheck(path.name, len(images), source, compare(got, wanted, file=path.name, has_classes=has_classes))


def compare(got: Tensor, wanted: Tensor, *, file: str, has_classes: bool = True) -> float:
    """The largest difference of logits; ModelError: it exceeds `TOLERANCE`, or an image gets another class."""
    difference = float((got - wanted).abs().max())
    moved = int((got.argmax(dim=1) != wanted.argmax(dim=1)).sum()) if has_classes else 0
    if moved or not difference <= TOLERANCE * max(1.0, float(wanted.abs().max())):  # `not <=` is true of NaN too
        raise ModelError(
            f"{file} was written, but is not the network: on {len(wanted)} images its logits differ by up to "
            f"{difference:.2g}, and {moved} images get another class; it was removed"
        )
    return difference


def _sizes(count: int) -> list[int]:
    sizes: list[int] = []
    for size in (*BATCHES, count):
        sizes.append(min(size, count - sum(sizes)))
    return [size for size in sizes if size]
