"""What stands for objects that training scripts keep beside weights, such as `argparse.Namespace` and NumPy's numbers.

A file names a function or class for each of its objects. Torch's reader of weights calls none that it does not know;
for the names here it calls what stands below, which has no behaviour. The objects themselves are never made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any


class Stand:
    """Stands for an object of a type that is not needed; keeps its state if that is a table."""

    state: dict[Any, Any]

    def __new__(cls, *_: Any) -> Stand:
        """Whatever the object would be made of is ignored."""
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, Mapping) else {}


def _table(*_: Any) -> OrderedDict[Any, Any]:
    """Stands for a dictionary of another type; its entries are put in afterwards."""
    return OrderedDict()


def _rows(*_: Any) -> list[Any]:
    """Stands for a list of another type; its items are put in afterwards."""
    return []


_SEEDS = "bit_generator.__pyx_unpickle_SeedSequence"

_OBJECTS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"datetime.{kind}" for kind in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"{kind.lower()}.{kind}" for kind in ("UUID", "Decimal")),
    "torch.torch_version.TorchVersion",
    *(f"numpy.{core}.multiarray.{name}" for core in ("_core", "core") for name in ("scalar", "_reconstruct")),
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *(f"numpy.{kind}" for kind in ("float16", "float32", "float64", "bool", "bool_", "str_")),
    *(f"numpy.random._pickle.__{kind}_ctor" for kind in ("randomstate", "generator", "bit_generator")),
    *(f"numpy.random.{kind}" for kind in ("_mt19937.MT19937", "_pcg64.PCG64", "bit_generator.SeedSequence", _SEEDS)),
    *(f"pathlib{local}.{kind}" for local in ("", "._local") for kind in ("PosixPath", "PurePosixPath", "WindowsPath")),
    *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig", "base.ContainerMetadata")),
    *(f"omegaconf.base.{name}" for name in ("Metadata", "Node")),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Integer", "Float", "String", "Boolean", "Path", "Bytes")),
    "typing.Any",
    *(f"builtins.{kind}" for kind in ("dict", "list", "tuple", "int", "float", "str", "bool", "slice", "range")),
    "builtins.frozenset",
)
"""Objects that training scripts keep beside the weights, by the names that a file has for what makes them."""
_TABLES = (
    *(f"{home}.AttributeDict" for home in ("lightning_fabric.utilities.data", "lightning.fabric.utilities.data")),
    *(
        f"{home}.AttributeDict"
        for home in ("pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing")
    ),
    "easydict.EasyDict",
    "addict.addict.Dict",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
)
"""Dictionaries of other types."""

STANDS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((Stand, name) for name in _OBJECTS),
    *((OrderedDict, name) for name in _TABLES),
    (_table, "collections.defaultdict"),
    (_rows, "collections.deque"),
]
"""What torch's reader of weights puts in place of the objects that a file names."""
