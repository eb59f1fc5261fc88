"""Networks with their input contract: images in [0, 1] go in, logits in the data's class order come out."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from jaxtyping import Float
from timm.data.model_config import resolve_input_data_config
from timm.models import get_pretrained_cfg, split_model_name_tag
from timm.models._input import get_model_traits
from torch import Tensor, nn

from hard_ray.config.data import DataConfig
from hard_ray.config.networks import NetworkConfig, StudentConfig, TeacherConfig
from hard_ray.errors import ModelError, readable, suggestion
from hard_ray.maths.resampling import resize
from hard_ray.networks.class_names import read_names
from hard_ray.networks.compilation import Compilation, compile_model, make_eager, problem_of
from hard_ray.networks.misfit import settings
from hard_ray.networks.outputs import check_classes, embedding_axes
from hard_ray.networks.timm_layout import check_timm_folder
from hard_ray.networks.tokens import TokenAnswer
from hard_ray.networks.training_modes import batch_norms, checkpoint_gradients, freeze_batch_norms, freeze_tower, rest
from hard_ray.networks.weights import add_weights, load_weights
from hard_ray.storage.address import Remote
from hard_ray.storage.fetched import fetched, local_model


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The size, channels and classes of a data set's images."""

    img_size: int
    in_chans: int
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InputContract:
    """The normalisation, size and interpolation of a network's input."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    """Images of another size are resized to this; None: images of any size are taken as they are."""
    interpolation: str


class Network(nn.Module):
    """A timm model that resizes and normalises its input itself."""

    mean: Tensor
    std: Tensor
    outputs: Tensor | None
    dimension: int | None
    """The dimension of the embedding that its last layer projects to; None: it answers with classes or features."""
    has_new_head: bool
    """Whether the class head is newly initialised, unlike the other weights."""
    norms_rest: bool
    """Whether BatchNorm uses its averages and leaves them alone in training too."""
    tower_rests: bool
    """Whether all layers but the class head are in evaluation mode in training too."""
    recomputes: bool
    """Whether the backward pass computes activations again."""
    notes: tuple[str, ...]
    """What was chosen in the file of the weights, and what was left out, a sentence each."""
    compilation: Compilation | None
    """How the model is compiled; None: it is not."""
    tokens: TokenAnswer | None
    """How it answers with its tokens beside its embedding; None: with the embedding, or classes, alone."""

    def __init__(self, model: nn.Module, contract: InputContract, outputs: Sequence[int] | None = None) -> None:
        """Wrap a model; `outputs` selects and orders its classes, None keeps them."""
        super().__init__()
        self.model = model
        self.contract = contract
        self.register_buffer("mean", torch.tensor(contract.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(contract.std).view(1, -1, 1, 1), persistent=False)
        index = None if outputs is None else torch.tensor(list(outputs))
        self.register_buffer("outputs", index, persistent=False)
        self.dimension, self.has_new_head, self.notes, self.compilation = None, False, (), None
        self.norms_rest = self.tower_rests = self.recomputes = False
        self.tokens = None

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of images in [0, 1]; of a network with tokens one row of numbers, as `TokenAnswer` gives it."""
        if self.tokens is not None:
            return self.tokens(self.model, self._prepared(images))
        logits: Tensor = self._logits(self._prepared(images))
        return logits if self.outputs is None else logits[:, self.outputs]

    def features(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch ..."]:
        """Features of images in [0, 1] before they are pooled, in the layout of timm's model."""
        features: Tensor = cast(Any, self.model).forward_features(self._prepared(images))
        return features

    def _prepared(self, images: Tensor) -> Tensor:
        """The images in the network's size and normalisation."""
        channels = self.mean.shape[1]
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"want images of shape (batch, {channels}, height, width), got {tuple(images.shape)}")
        size = self.contract.size
        if size is not None and tuple(images.shape[-2:]) != size:
            images = resize(images, size, mode=self.contract.interpolation, antialias=True)
        return (images - self.mean) / self.std

    def train(self, mode: bool = True) -> Network:
        """Training or evaluation mode, in which BatchNorm at rest stays at rest."""
        super().train(mode)
        if self.norms_rest:
            rest(batch_norms(self.model))
        if self.tower_rests:
            self.model.eval()
            cast(Any, self.model).get_classifier().train(mode)
        return self

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images) if self.compilation is None else self.compilation(self.model, images)
        return logits

    def compile_for(self, mode: str, *, sizes: Sequence[int], name: str, attempt: Callable[[], object]) -> str | None:
        """Compile the model in place, and call `attempt`, which uses it; the reason if it cannot be, and stays eager.

        `sizes` and `name` are as in `Compilation`.
        """
        self.compilation = compile_model(self.model, mode, sizes=sizes, name=name)
        problem = problem_of(attempt, self.model)
        if problem is not None:
            self.stay_eager()
        return problem

    def stay_eager(self) -> None:
        """Undo `compile_for`."""
        make_eager(self.model)
        self.compilation = None

    @property
    def architecture(self) -> str:
        """Timm's name of the model, without its weights' tag."""
        return str(pretrained_cfg(self.model)["architecture"])

    def freeze(self) -> Network:
        """Put the network in evaluation mode, without gradients for its parameters, as every teacher is."""
        return self.eval().requires_grad_(False)

    def identity(self) -> str:
        """SHA-256 over the architecture, the input contract, the class order and every weight."""
        digest = hashlib.sha256()
        outputs = None if self.outputs is None else self.outputs.tolist()
        digest.update(repr((self.architecture, sorted(asdict(self.contract).items()), outputs)).encode())
        add_weights(digest, self.model)
        return digest.hexdigest()


def pretrained_cfg(model: nn.Module) -> dict[str, Any]:
    """Timm's description of a model's weights: architecture, input size, label names."""
    return dict(model.pretrained_cfg)  # type: ignore[arg-type]


def label_names(model: nn.Module) -> tuple[str, ...] | None:
    """The class names that a model was saved with, in the order of its outputs; None if it has none."""
    saved = pretrained_cfg(model).get("label_names")
    if not saved:
        return None
    names = [saved[key] for key in sorted(saved, key=int)] if isinstance(saved, dict) else saved
    return tuple(str(name) for name in names)


def build_student(config: NetworkConfig, images: ImageSpec, *, role: str = "student") -> Network:
    """A network with one output per class of the data; raises ModelError if it is unknown, or weights do not fit."""
    if isinstance(config, StudentConfig):
        return with_training_modes(_student(config, images, role=role), config, role=role)
    return _student(config, images, role=role)


def with_training_modes(network: Network, config: StudentConfig, *, role: str) -> Network:
    """The network with gradients and BatchNorm as configured."""
    if config.grad_checkpointing:
        checkpoint_gradients(network.model, role=role)
        network.recomputes = True
    if config.freeze_bn:
        freeze_batch_norms(network.model, role=role)
        network.norms_rest = True
    if config.freeze == "tower":
        freeze_tower(network.model, role=role)
        network.tower_rests = True
    return network.train(network.training)


def _student(config: NetworkConfig, images: ImageSpec, *, role: str) -> Network:
    if isinstance(config, StudentConfig) and config.new_head:
        return _with_fitting_head(config, images, role=role)
    model, notes = model_with_weights(config, images, num_classes=len(images.classes), role=role)
    if model.num_classes != len(images.classes):
        raise ModelError(
            f"{role}.model {config.model} has {model.num_classes} outputs, the data has "
            f"{len(images.classes)} classes; use a model trained on these classes, or its architecture's name"
        )
    _check_order(model, images.classes, role=role)
    network = Network(model, input_contract(model, config, images))
    network.notes = notes
    return network


def _with_fitting_head(config: NetworkConfig, images: ImageSpec, *, role: str) -> Network:
    """A network whose head keeps its weights only if they were made for these classes.

    They were if the number of classes is the same and, where the weights name their classes, the names and their order.
    """
    count = len(images.classes)
    kwargs = {**config.model_kwargs, "num_classes": count}
    model = make_model(config.model_copy(update={"model_kwargs": kwargs}), images, num_classes=count, role=role)
    notes = _resized(model, config, role)
    network = Network(model, input_contract(model, config, images))
    network.notes = notes
    saved = pretrained_cfg(model)
    checkpoint = weights_of(config)
    if checkpoint is not None and not checkpoint.is_dir():
        loaded = load_weights(model, checkpoint, role=role, head=settings(model, "classifier"))
        network.has_new_head, network.notes = loaded.has_new_head, (*notes, *loaded.notes)
        return network
    network.has_new_head = saved.get("num_classes") != count
    if not network.has_new_head and embedding_axes(model) is not None:
        cast(Any, model).reset_classifier(count)  # as many outputs as classes, by chance
        network.has_new_head = True
    names = label_names(model)
    if not network.has_new_head and names and names != images.classes:
        cast(Any, model).reset_classifier(count)  # timm keeps the weights of a head of the same size
        network.has_new_head = True
    return network


def build_teacher(config: TeacherConfig, images: ImageSpec) -> Network:
    """The frozen teacher, with its outputs in the order of the data's classes.

    Raises ModelError if the model is unknown, its weights do not fit, or its classes are not the data's.
    """
    names = read_names(config.class_map, "teacher.class_map") if config.class_map else None
    count = len(names) if names else (None if config.pretrained else len(images.classes))
    model, notes = model_with_weights(config, images, num_classes=count, role="teacher")
    if not names and not _is_file(weights_of(config)):
        check_classes(model, config.model)
    outputs = _pick_outputs(names, images.classes, config.class_map) if names else None
    if names and model.num_classes != len(names):
        raise ModelError(
            f"teacher.class_map names {len(names)} classes, teacher.model {config.model} has "
            f"{model.num_classes} outputs; the map needs one line per output"
        )
    if not names and model.num_classes != len(images.classes):
        raise ModelError(
            f"teacher.model {config.model} has {model.num_classes} outputs, the data has "
            f"{len(images.classes)} classes; fine-tune the teacher on the data, or name its outputs in "
            "teacher.class_map"
        )
    if not names:
        _check_order(model, images.classes, role="teacher")
    network = Network(model, input_contract(model, config, images), outputs).freeze()
    network.notes = notes
    return network


def answers_of(config: TeacherConfig, data: DataConfig) -> tuple[str, ...]:
    """What a teacher's outputs are called, for data without classes: the names it was saved with, else their numbers.

    `teacher.class_map` names them, if it is set. Raises ModelError if the teacher is unknown, or has one output.
    """
    if config.class_map is not None:
        return read_names(config.class_map, "teacher.class_map")
    model = make_model(config, image_spec(data, ()), num_classes=None, role="teacher", with_weights=False)
    count = int(cast(Any, model).num_classes)
    if count < 2:
        raise ModelError(
            f"teacher.model {config.model} has {count} outputs, and images without labels are learned by a "
            "teacher's answers among several; give it a head by `hardray fit-head --kind prototypes`"
        )
    return label_names(model) or tuple(str(number) for number in range(count))


def model_with_weights(
    config: NetworkConfig, images: ImageSpec, *, num_classes: int | None, role: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The architecture with all of its weights, and sentences about what was chosen in their file and for their input.

    `num_classes` of a model by name: None keeps its own. Raises ModelError if the model or its weights cannot be used.
    """
    model = make_model(config, images, num_classes=num_classes, role=role)
    notes = _resized(model, config, role)
    checkpoint = weights_of(config)
    if checkpoint is not None and _is_file(checkpoint):
        return model, (*notes, *load_weights(model, checkpoint, role=role).notes)
    return model, notes


def model_with_own_head(config: NetworkConfig, images: ImageSpec, *, role: str) -> tuple[nn.Module, tuple[str, ...]]:
    """As `model_with_weights`, but with whatever head the weights have, or a new one if they have none that fits."""
    checkpoint = weights_of(config)
    if checkpoint is None or not _is_file(checkpoint):
        return model_with_weights(config, images, num_classes=None, role=role)
    without = config.model_copy(update={"checkpoint": None, "pretrained": False})
    model, notes = model_with_weights(without, images, num_classes=1, role=role)
    loaded = load_weights(model, checkpoint, role=role, head=settings(model, "classifier"))
    return model, (*notes, *loaded.notes)


def weights_of(config: NetworkConfig) -> Path | None:
    """The file or folder of a network's weights on this machine; those at a URL are brought to it.

    Raises StorageError if they cannot be.
    """
    return fetched(config.checkpoint) if isinstance(config.checkpoint, Remote) else config.checkpoint


def _is_file(checkpoint: Path | None) -> bool:
    """Whether the weights are in a file, which is loaded into the architecture."""
    return checkpoint is not None and not checkpoint.is_dir()


def _resized(model: nn.Module, config: NetworkConfig, role: str) -> tuple[str, ...]:
    """Give a model of a fixed input size the configured one; sentences about what that does to its weights.

    Raises ModelError if it takes no other size.
    """
    wanted, traits = config.img_size, get_model_traits(model)
    if wanted is None or not traits["fixed_input_size"]:
        return ()
    weights = tuple(pretrained_cfg(model)["input_size"][1:])
    size = tuple(resolve_input_data_config(model)["input_size"][1:])
    if size != (wanted, wanted):
        try:
            cast(Any, model).set_input_size(img_size=wanted)
        except Exception as error:  # models without this method, and each with conditions of its own
            raise ModelError(
                f"{role}.img_size {wanted}: {config.model} takes images of {size[0]} x {size[1]} pixels and no others "
                f"({readable(error)}); want the size that it takes; leave {role}.img_size unset, and images are "
                "resized to it"
            ) from error
    has_weights = config.pretrained or ":" in config.model or config.checkpoint is not None
    if weights == (wanted, wanted) or _is_file(weights_of(config)) or not has_weights:
        return ()
    ratio = wanted**2 / (weights[0] * weights[1])
    return (
        f"{role}.img_size {wanted}: weights of positions are resampled from images of {weights[0]} x {weights[1]}; an "
        f"image has {ratio:.3g} times as many patches, and takes at least about as many times the time",
    )


def make_model(
    config: NetworkConfig, images: ImageSpec, *, num_classes: int | None, role: str, with_weights: bool = True
) -> nn.Module:
    """The architecture, with its weights unless they are in a file, or nobody asks for them."""
    name, checkpoint = local_model(config.model), weights_of(config)
    from_folder = checkpoint is not None and checkpoint.is_dir()
    if from_folder:
        name = f"local-dir:{checkpoint}"
    source, _, path = name.partition(":")
    if source == "local-dir":
        check_timm_folder(Path(path).expanduser(), f"{role}.checkpoint" if from_folder else f"{role}.model")
    has_source = bool(path)
    arguments: dict[str, Any] = {"in_chans": images.in_chans, **config.model_kwargs}
    if has_source:
        arguments = dict(config.model_kwargs)
    else:
        check_known(name, role)
        arguments["num_classes"] = num_classes
        fixed = bool(getattr(get_pretrained_cfg(name), "fixed_input_size", False))
        if fixed and (config.img_size or not config.pretrained):
            arguments["img_size"] = config.img_size or images.img_size
    try:
        wanted = with_weights and (config.pretrained or has_source)
        model = timm.create_model(name, pretrained=wanted, **arguments)
    except Exception as error:  # timm raises the errors of its models and of the hub
        raise ModelError(
            f"{role}.model {name} cannot be made ({readable(error)}); want a model that timm makes with "
            f"{arguments or 'no arguments'}; {_making_remedy(config, arguments, role)}"
        ) from error
    if from_folder:
        _check_architecture(model, config, role)
    return model


def _making_remedy(config: NetworkConfig, arguments: Mapping[str, Any], role: str) -> str:
    """What to do if timm cannot make a model."""
    if config.model_kwargs:
        return f"correct {role}.model_kwargs, or name another {role}.model"
    if config.pretrained or config.model.startswith("hf-hub:"):
        return f"look at the name and the network, or bring the weights as {role}.checkpoint=FILE"
    if ":" in config.model or config.checkpoint is not None:
        return f"look at the files of the model, or name another {role}.model or {role}.checkpoint"
    own = getattr(get_pretrained_cfg(config.model), "input_size", None)
    if own and arguments.get("img_size") not in (None, own[-1]):
        return f"set {role}.img_size={own[-1]}, to which images are then resized, or name another {role}.model"
    return f"name another {role}.model"


def check_known(name: str, role: str) -> None:
    """Raise a ModelError, which names similar ones, if timm does not know this architecture or these weights of it."""
    architecture, tag = split_model_name_tag(name)
    if not timm.is_model(name):
        hint = suggestion(architecture, timm.list_models(), most=3, otherwise="`timm.list_models()` names them")
        raise ModelError(f"{role}.model {name}: timm knows no such model; {hint}")
    tags = [full.partition(".")[2] for full in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags and not _is_described(name):
        hint = suggestion(tag, tags, most=3, otherwise=f"there are {', '.join(tags) or 'none'}")
        raise ModelError(f"{role}.model {name}: timm knows no weights {tag!r} of {architecture}; {hint}")


def _is_described(name: str) -> bool:
    try:
        return get_pretrained_cfg(name) is not None
    except RuntimeError:  # timm's answer to a tag that it does not know
        return False


def _check_architecture(model: nn.Module, config: NetworkConfig, role: str) -> None:
    found = pretrained_cfg(model)["architecture"]
    wanted, _ = split_model_name_tag(config.model)
    if found != wanted:
        raise ModelError(
            f"{role}.checkpoint {config.checkpoint} holds a {found}, {role}.model says {config.model}; "
            f"set {role}.model={found}"
        )


def input_contract(model: nn.Module, config: NetworkConfig, images: ImageSpec) -> InputContract:
    """The input of a model, as the configuration sets it, and otherwise as the model's own settings do.

    Raises ModelError if the model takes another number of channels than the images have.
    """
    arguments = {"mean": list(config.mean) if config.mean else None, "std": list(config.std) if config.std else None}
    resolved = resolve_input_data_config(model, args=arguments)
    channels = resolved["input_size"][0]
    if channels != images.in_chans:
        raise ModelError(
            f"{config.model} takes {channels} channels, the data has {images.in_chans}; set data.in_chans={channels}"
        )
    fixed = bool(get_model_traits(model)["fixed_input_size"])
    size = tuple(resolved["input_size"][1:]) if fixed else None
    if not fixed and config.img_size is not None:
        size = (config.img_size, config.img_size)
    interpolation = str(resolved["interpolation"])
    return InputContract(
        mean=_per_channel(resolved["mean"], channels),
        std=_per_channel(resolved["std"], channels),
        size=size,
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
    )


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    return tuple(float(value) for value in values) if len(values) > 1 else (float(values[0]),) * channels


def _pick_outputs(names: tuple[str, ...], classes: tuple[str, ...], path: Path | Remote | None) -> list[int]:
    wanted = [unicodedata.normalize("NFC", name) for name in classes]
    absent = [name for name in wanted if name not in names]
    if absent:
        raise ModelError(
            f"teacher.class_map {path} lacks {len(absent)} of the data's classes, first {absent[0]!r}; "
            "the map needs every class of the data, by the same name"
        )
    return [names.index(name) for name in wanted]


def _check_order(model: nn.Module, classes: tuple[str, ...], *, role: str) -> None:
    """Refuse a model whose saved label names contradict the data's order."""
    names = label_names(model)
    if names is None:
        return
    moved = [name for index, name in enumerate(classes) if name in names and names.index(name) != index]
    if moved:
        remedy = "name its outputs in teacher.class_map" if role == "teacher" else "retrain it in this order"
        raise ModelError(
            f"{role}.model was saved with another class order: {moved[0]!r} is its output "
            f"{names.index(moved[0])}, and class {classes.index(moved[0])} of the data; {remedy}"
        )
    if role == "teacher" and not set(names) & set(classes):
        raise ModelError(
            f"teacher.model was saved with other class names ({names[0]!r}, ...) than the data's "
            f"({classes[0]!r}, ...), so their order cannot be compared; give teacher.class_map the data's names "
            "in the order of the outputs"
        )


def image_spec(config: DataConfig, classes: tuple[str, ...]) -> ImageSpec:
    """The size, channels and classes of a data set's images."""
    return ImageSpec(config.img_size, config.in_chans, classes)
