"""Networks that timm lacks, registered with it so that every model has a name in timm."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

Built = TypeVar("Built", bound=nn.Module)


def _default_cfg(size: int, channels: int, classifier: str, first_conv: str, **more: Any) -> dict[str, Any]:
    return {
        "num_classes": 10,
        "input_size": (channels, size, size),
        "mean": (0.0,) * channels,
        "std": (1.0,) * channels,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "classifier": classifier,
        "first_conv": first_conv,
        **more,
    }


IMAGENET_STATISTICS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

default_cfgs = generate_default_cfgs(
    {
        "hardray_cnn.untrained": _default_cfg(28, 1, "head", "stem.0"),
        "hardray_mlp.untrained": _default_cfg(28, 1, "head", "layers.0", fixed_input_size=True),
        **{
            f"cifar_resnet{depth}.untrained": _default_cfg(32, 3, "linear", "conv1", **IMAGENET_STATISTICS)
            for depth in (8, 20, 32, 44, 56)
        },
    }
)


class _Classifier(nn.Module):
    """The part of timm's model interface that these networks share: features, then one linear layer."""

    classifier_name = "head"
    in_chans: int
    num_classes: int
    num_features: int

    def __init__(self, drop_rate: float) -> None:
        """`drop_rate` is the share of features that are dropped before the last layer in training."""
        super().__init__()
        self.drop_rate = drop_rate

    def forward_features(self, images: Tensor) -> Tensor:
        """Features before the classifier."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits, or with `pre_logits` the input of the last layer; a map is averaged over its positions."""
        if features.ndim == 4:
            features = features.mean(dim=(2, 3))
        if self.drop_rate > 0.0:
            features = F.dropout(features, self.drop_rate, self.training)
        if pre_logits:
            return features
        logits: Tensor = self.get_classifier()(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised images."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one for `num_classes`."""
        del global_pool
        self.num_classes = num_classes
        setattr(self, self.classifier_name, _last_layer(self.num_features, num_classes))


def _last_layer(features: int, classes: int) -> nn.Module:
    """The class head; without classes, features pass through."""
    return nn.Linear(features, classes) if classes else nn.Identity()


class Cnn(_Classifier):
    """A small convolutional network with global average pooling, which makes it tolerant of shifts."""

    def __init__(
        self, num_classes: int = 10, in_chans: int = 1, widths: tuple[int, ...] = (16, 32, 64), drop_rate: float = 0.0
    ) -> None:
        """One 3x3 convolution per width, with the image halved in between, and one more at the last width."""
        super().__init__(drop_rate)
        self.in_chans, self.num_classes, self.num_features = in_chans, num_classes, widths[-1]
        self.stem = nn.Sequential(*_conv_bn_relu(in_chans, widths[0]))
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.MaxPool2d(2), *_conv_bn_relu(width_in, width))
                for width_in, width in itertools.pairwise(widths)
            ),
            nn.Sequential(*_conv_bn_relu(widths[-1], widths[-1])),
        )
        self.head = _last_layer(self.num_features, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last map, shape (batch, num_features, rows, columns)."""
        features: Tensor = self.stages(self.stem(images))
        return features


def _conv_bn_relu(width_in: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)


class Mlp(_Classifier):
    """A fully connected network 784-512-128-32-10, which nothing in its architecture makes tolerant of shifts.

    Source: the student of Orbit's notebook (Nix et al., AISTATS 2022).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: int | tuple[int, int] = 28,
        widths: tuple[int, ...] = (512, 128, 32),
        drop_rate: float = 0.0,
    ) -> None:
        """Linear layers of `widths` with ReLU between, without normalisation."""
        super().__init__(drop_rate)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.in_chans, self.num_classes, self.num_features = in_chans, num_classes, widths[-1]
        sizes = (in_chans * height * width, *widths)
        self.layers = nn.Sequential(
            *(
                layer
                for size_in, size in itertools.pairwise(sizes)
                for layer in (nn.Linear(size_in, size), nn.ReLU(inplace=True))
            )
        )
        self.head = _last_layer(self.num_features, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """Features after the last hidden layer, shape (batch, num_features)."""
        features: Tensor = self.layers(images.flatten(1))
        return features


class CifarResNet(_Classifier):
    """The residual network for 32-pixel images: 6n + 2 layers, widths 16-32-64, shortcuts without weights.

    Source: He et al. 2015, arXiv:1512.03385, section 4.2, option A.
    """

    classifier_name = "linear"

    def __init__(self, depth: int = 20, num_classes: int = 10, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        """`depth` is 6n + 2 for n blocks per stage."""
        super().__init__(drop_rate)
        if (depth - 2) % 6:
            raise ValueError(f"want a depth of 6n + 2, such as 20 or 56, got {depth}")
        self.in_chans, self.num_classes, self.num_features = in_chans, num_classes, 64
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = _last_layer(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last map, shape (batch, 64, rows, columns)."""
        features = F.relu(self.bn1(self.conv1(images)), inplace=True)
        for stage in (self.layer1, self.layer2, self.layer3):
            features = stage(features)
        return features


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut drops every other pixel and pads the channels with zeros."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.padding = stride, (width - width_in) // 2

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features[:, :, :: self.stride, :: self.stride]
        if self.padding:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        residual = F.relu(self.bn1(self.conv1(features)), inplace=True)
        return F.relu(self.bn2(self.conv2(residual)) + shortcut, inplace=True)


def _stage(width_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = _BasicBlock(width_in, width, stride)
    return nn.Sequential(first, *(_BasicBlock(width, width, 1) for _ in range(blocks - 1)))


def _build(
    kind: type[Built], name: str, pretrained: bool, *, device: Any = None, dtype: Any = None, **kwargs: Any
) -> Built:
    """Build a network through timm; `device` and `dtype`, which timm passes, are those of the weights."""
    network: Built = build_model_with_cfg(kind, name, pretrained, **kwargs)
    return network.to(device=device, dtype=dtype)


def _cifar_resnet(depth: int, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return _build(CifarResNet, f"cifar_resnet{depth}", pretrained, depth=depth, **kwargs)


@register_model
def hardray_cnn(pretrained: bool = False, **kwargs: Any) -> Cnn:
    """A small CNN with global average pooling for 28-pixel grey images."""
    return _build(Cnn, "hardray_cnn", pretrained, **kwargs)


@register_model
def hardray_mlp(pretrained: bool = False, **kwargs: Any) -> Mlp:
    """A multilayer perceptron 784-512-128-32-10."""
    return _build(Mlp, "hardray_mlp", pretrained, **kwargs)


@register_model
def cifar_resnet8(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-8 for 32-pixel images."""
    return _cifar_resnet(8, pretrained, **kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20 for 32-pixel images."""
    return _cifar_resnet(20, pretrained, **kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32 for 32-pixel images."""
    return _cifar_resnet(32, pretrained, **kwargs)


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-44 for 32-pixel images."""
    return _cifar_resnet(44, pretrained, **kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-56 for 32-pixel images."""
    return _cifar_resnet(56, pretrained, **kwargs)
