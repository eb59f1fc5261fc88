"""Networks without classes: a tower answers with its features, and a student projects its own to their dimension.

The features are those that timm calls pre-logits: pooled, before the class head, shape (batch, dimension). A tower is a
network whose head was taken off. A student's head stays: made for as many outputs as the teacher's embedding has values
it is the linear projection, and is trained, averaged, compiled and saved like every other layer.

Both may answer with their tokens too, see `hard_ray.networks.tokens`.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn

from hard_ray.config.networks import NetworkConfig, StudentConfig
from hard_ray.errors import ModelError, readable
from hard_ray.maths.tokens import AnswerLayout
from hard_ray.networks.misfit import settings
from hard_ray.networks.network import (
    ImageSpec,
    Network,
    input_contract,
    make_model,
    model_with_own_head,
    weights_of,
    with_training_modes,
)
from hard_ray.networks.precision import resting
from hard_ray.networks.tokens import FeatureMap, TokenAnswer, add_token_projection, find_map, remove_token_projection
from hard_ray.networks.weights import load_weights

TOLERANCE = 1e-3
"""Most by which the projection of the features may differ from the network's own answer, which rounds otherwise."""


def build_tower(
    config: NetworkConfig, images: ImageSpec, *, role: str = "teacher", with_tokens: bool = False
) -> Network:
    """A frozen network that answers with its features, with its own weights and without its class head.

    `with_tokens` beside the features that are pooled. Weights may be those of a classifier, whatever its classes, or of
    a network without head. Raises ModelError if the model is unknown, its weights do not fit, or it has no features of
    one vector per image, or no tokens.
    """
    model, notes = model_with_own_head(config, images, role=role)
    network = Network(model, input_contract(model, config, images))
    network.notes = notes
    return as_tower(network, config, images, role=role, with_tokens=with_tokens).freeze()


def as_tower(
    network: Network, config: NetworkConfig, images: ImageSpec, *, role: str = "teacher", with_tokens: bool = False
) -> Network:
    """The network itself, once its class head is taken off; raises ModelError if that leaves no vector per image.

    `with_tokens`: it answers with these, too; raises ModelError if it has none.
    """
    try:
        cast(Any, network.model).reset_classifier(0)
        found = _answer(network, images)
    except Exception as error:  # each of timm's models raises errors of its own
        raise ModelError(
            f"{role}.model {config.model} does not answer without its class head ({readable(error)}); want a model "
            f"with pooled features before a class head; name another {role}.model, or correct {role}.img_size"
        ) from error
    if found.ndim != 2:
        raise ModelError(
            f"{role}.model {config.model} answers an image with features of shape {tuple(found.shape)}; want one "
            f"vector; leave global_pool out of {role}.model_kwargs, or name another {role}.model"
        )
    if with_tokens:
        network.tokens = _own_tokens(network, config.model, images, role=role)
        _check_one_pass(network, config.model, images, found, role=role)
    return network


@torch.inference_mode()
def dimension_of(network: Network, images: ImageSpec) -> int:
    """The number of values in a network's embedding, whether it has a class head or not."""
    zeros = torch.zeros(1, images.in_chans, images.img_size, images.img_size, device=network.mean.device)
    with resting(network):
        features = cast(Any, network.model).forward_head(network.features(zeros), pre_logits=True)
    return int(features.shape[1])


def layout_of(network: Network, config: NetworkConfig, images: ImageSpec, *, role: str = "teacher") -> AnswerLayout:
    """The layout of a teacher's answer with tokens, with a class head or without; ModelError: it has no tokens."""
    return _own_tokens(network, config.model, images, role=role).layout


def _own_tokens(network: Network, name: str, images: ImageSpec, *, role: str) -> TokenAnswer:
    """How a network answers with its embedding and the tokens on its own grid."""
    found = map_of(network, name, images, role=role)
    return TokenAnswer(found, AnswerLayout(dimension_of(network, images), found.rows, found.columns, found.width))


@torch.inference_mode()
def map_of(network: Network, name: str, images: ImageSpec, *, role: str) -> FeatureMap:
    """Where a network has the positions of an image; raises ModelError if its features have none."""
    side = images.img_size
    with resting(network):
        features = network.features(torch.zeros(1, images.in_chans, side, side, device=network.mean.device))
    return find_map(network.model, features, network.contract.size or (side, side), name, role=role)


def _check_one_pass(network: Network, name: str, images: ImageSpec, wanted: torch.Tensor, *, role: str) -> None:
    """Raise a ModelError unless one pass gives tokens and `wanted`, the network's own answer to a black image."""
    assert network.tokens is not None
    try:
        found = network.tokens.layout.embedding(_answer(network, images))
        problem = "" if torch.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE) else "another embedding comes out"
    except Exception as error:  # each of timm's models raises errors of its own
        problem = readable(error)
    if problem:
        raise ModelError(
            f"{role}.model {name} does not answer with its embedding from the features that its tokens are of "
            f"({problem}); objective.w_tokens wants both from one pass; name another {role}.model, or use "
            "objective.w_tokens=0"
        )


def build_projected(
    config: NetworkConfig,
    images: ImageSpec,
    dimension: int,
    *,
    role: str = "student",
    layout: AnswerLayout | None = None,
) -> Network:
    """A network whose last layer is a new linear projection of its features to an embedding of this dimension.

    With the `layout` of a teacher's answer, another new layer projects its tokens, and it answers with both. Raises
    ModelError if it is unknown, its weights do not fit, its head is no linear layer on its features, or it has no
    tokens.
    """
    given = config.model_copy(update={"model_kwargs": {**config.model_kwargs, "num_classes": dimension}})
    model = make_model(given, images, num_classes=dimension, role=role)
    notes: tuple[str, ...] = ()
    checkpoint = weights_of(config)
    if checkpoint is not None and not checkpoint.is_dir():
        notes = load_weights(model, checkpoint, role=role, head=settings(model, "classifier")).notes
    if checkpoint is not None or config.pretrained or ":" in config.model:
        cast(Any, model).reset_classifier(dimension)  # a head of as many classes is no projection
    projection_of(model, config.model, role=role)
    network = Network(model, input_contract(model, config, images))
    network.dimension, network.notes = dimension, notes
    if isinstance(config, StudentConfig):
        with_training_modes(network, config, role=role)
    if layout is not None:  # after the modes: the layer is trained even where the tower is frozen
        found = map_of(network, config.model, images, role=role)
        add_token_projection(model, found.width, layout.width)
        network.tokens = TokenAnswer(found, layout)
    return network


def projection_of(model: nn.Module, name: str = "", *, role: str = "student") -> nn.Linear:
    """The last layer of a model that projects its features; raises ModelError if it is no single linear layer."""
    found = cast(Any, model).get_classifier()
    if not isinstance(found, nn.Linear):
        kind = f"{len(found)} layers" if isinstance(found, tuple) else f"a layer {type(found).__name__}"
        raise ModelError(
            f"{role}.model {name} ends in {kind}; objective.kind=embedding wants one linear layer, which projects to "
            f"the teacher's embedding; name another {role}.model"
        )
    return found


@torch.inference_mode()
def check_projection(network: Network, name: str, images: ImageSpec, *, role: str = "student") -> None:
    """Raise a ModelError unless the network's answer is the projection of the features that its export will give."""
    pixels = torch.linspace(0.0, 1.0, images.in_chans * images.img_size**2, device=network.mean.device)
    view = pixels.view(1, images.in_chans, images.img_size, images.img_size)
    model = cast(Any, network.model)
    with resting(network):
        features = model.forward_head(network.features(view), pre_logits=True)
        projected, answer = projection_of(network.model, name, role=role)(features), network(view)
    if network.tokens is not None:
        answer = network.tokens.layout.embedding(answer)
    if not torch.allclose(projected, answer, rtol=TOLERANCE, atol=TOLERANCE):
        raise ModelError(
            f"{role}.model {name} does more between its features and its answer than its last layer does; "
            f"objective.kind=embedding wants a linear projection of the features; name another {role}.model"
        )


def split(network: Network) -> tuple[Network, nn.Linear]:
    """A student without its projections, and the projection of its embedding: copies in main memory."""
    model = copy.deepcopy(network.model).to("cpu").to(memory_format=torch.contiguous_format)
    remove_token_projection(model)
    projection = projection_of(model)
    cast(Any, model).reset_classifier(0)
    return Network(model, network.contract), projection


@torch.inference_mode()
def _answer(network: Network, images: ImageSpec) -> torch.Tensor:
    shape = (1, images.in_chans, images.img_size, images.img_size)
    with resting(network):
        found: torch.Tensor = network(torch.zeros(shape, device=network.mean.device))
    return found
