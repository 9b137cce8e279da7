"""The networks of cnnlab in plain PyTorch: what the parity tests and `architectures.py` hold ours against.

Written from the papers, in NCHW, with the attribute names that PyTorch's own libraries gave these networks, so that
`state_dict()` has the keys of the files one finds: torchvision's for ResNet, VGG and the single-tower AlexNet, and for
the CIFAR ResNets those of the well-known re-implementation by Y. Idelbayev.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# Stage depths; those from 50 on are of bottleneck blocks.
RESNETS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# Convolutions before each of the five poolings.
VGGS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size of the image but for its stride."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 (with the stride) and 1x1 to four times the width, and a shortcut around them.

    Shape: `[b, inputs, h, w]` to `[b, width * expansion, h / stride, w / stride]`.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool, skip: bool):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        else:
            sizes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.depth, self.skip = len(sizes), skip
        for i, size in enumerate(sizes, 1):
            self.add_module(f"conv{i}", conv(*size))
            self.add_module(f"bn{i}", nn.BatchNorm2d(size[1]))
        projects = skip and (stride != 1 or inputs != outputs)
        self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)) if projects else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = F.relu(y) if i < self.depth else y
        if self.skip:
            y = y + (x if self.downsample is None else self.downsample(x))
        return F.relu(y)


class ResNet(nn.Module):
    """He et al. 2015 for ImageNet, a bottleneck's stride in its 3x3 convolution: `[b, 3, h, w]` to `[b, classes]`.

    With `stem="cifar"` it begins with a 3x3 convolution of stride 1 and without pooling, for small images.
    """

    def __init__(
        self,
        depths: Sequence[int],
        num_classes: int,
        *,
        bottleneck: bool,
        skip: bool = True,
        stem: str = "imagenet",
    ):
        super().__init__()
        self.small = stem == "cifar"
        self.conv1 = conv(3, 64, 3) if self.small else conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        inputs, expansion = 64, 4 if bottleneck else 1
        for stage, depth in enumerate(depths):
            width, blocks = 64 << stage, []
            for i in range(depth):
                stride = 2 if stage and i == 0 else 1
                blocks.append(Block(inputs, width, stride, bottleneck=bottleneck, skip=skip))
                inputs = expansion * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if not self.small:
            x = F.max_pool2d(x, 3, 2, padding=1)
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class CifarBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut takes every second pixel and pads channels with zeros (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, skip: bool):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.stride, self.added, self.skip = stride, outputs - inputs, skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.skip:
            before = self.added // 2
            y = y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.added - before))
        return F.relu(y)


class CifarResNet(nn.Module):
    """He et al. 2015 for CIFAR-10, 6n + 2 layers: `[b, 3, 32, 32]` to `[b, classes]`."""

    def __init__(self, depth: int, num_classes: int, *, skip: bool = True):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16, 3), nn.BatchNorm2d(16)
        inputs, blocks = 16, (depth - 2) // 6
        for stage, width in enumerate((16, 32, 64), 1):
            sizes = [(inputs if i == 0 else width, width, 2 if stage > 1 and i == 0 else 1) for i in range(blocks)]
            self.add_module(f"layer{stage}", nn.Sequential(*(CifarBlock(*size, skip=skip) for size in sizes)))
            inputs = width
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))


class Features(nn.Module):
    """`features`, pooling to a grid of one size for images of every size, flattening, `classifier`: `[b, classes]`."""

    def __init__(self, features: Sequence[nn.Module], classifier: Sequence[nn.Module], grid: int | None = None):
        super().__init__()
        self.features = nn.Sequential(*features)
        self.avgpool = nn.Identity() if grid is None else nn.AdaptiveAvgPool2d(grid)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def vgg(depth: int, num_classes: int, *, norm: bool, hidden: int = 4096) -> nn.Module:
    """Simonyan and Zisserman 2014, with BatchNorm after each convolution or without."""
    features, inputs = [], 3
    for stage, convolutions in enumerate(VGGS[depth]):
        width = min(64 << stage, 512)
        for _ in range(convolutions):
            features.append(nn.Conv2d(inputs, width, 3, padding=1))
            features += [nn.BatchNorm2d(width)] if norm else []
            features.append(nn.ReLU())
            inputs = width
        features.append(nn.MaxPool2d(2))
    return Features(features, dense(512 * 7 * 7, hidden, num_classes), grid=7)


def alexnet_single(num_classes: int, *, hidden: int = 4096) -> nn.Module:
    """Krizhevsky 2014 ("One weird trick"), without normalisation and groups."""
    features = [
        *(nn.Conv2d(3, 64, 11, 4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    # Dropout before the hidden layers, not after them.
    after = dense(256 * 6 * 6, hidden, num_classes)
    return Features(features, [after[i] for i in (2, 0, 1, 5, 3, 4, 6)], grid=6)


def normalised_alexnet(convolutions: Sequence[nn.Module], num_classes: int, image_size: int, hidden: int) -> nn.Module:
    """Five convolutions, response normalisation (PyTorch divides alpha by n), overlapping pooling, dense layers."""
    features = []
    for index, convolution in enumerate(convolutions):
        features += [convolution, nn.ReLU()]
        features += [nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2)] if index < 2 else []
        features += [nn.MaxPool2d(3, 2)] if index in (0, 1, 4) else []
    with torch.no_grad():
        flat = nn.Sequential(*features)(torch.zeros(1, 3, image_size, image_size)).numel()
    return Features(features, dense(flat, hidden, num_classes))


def alexnet(num_classes: int, *, image_size: int = 224, hidden: int = 4096) -> nn.Module:
    """Krizhevsky et al. 2012: convolutions 2, 4 and 5 in two towers; the first reaches 3 pixels beyond the image."""
    convolutions = [
        nn.Sequential(nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, 4)),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
    ]
    return normalised_alexnet(convolutions, num_classes, image_size, hidden)


def alexnet_cifar(num_classes: int, *, image_size: int = 32, hidden: int = 1024) -> nn.Module:
    """The 32-pixel version: half the filters, one tower, a first convolution of stride 1."""
    sizes = [(3, 48, 5), (48, 128, 5), (128, 192, 3), (192, 192, 3), (192, 128, 3)]
    convolutions = [nn.Conv2d(a, b, size, padding=size // 2) for a, b, size in sizes]
    return normalised_alexnet(convolutions, num_classes, image_size, hidden)


def dense(flat: int, hidden: int, num_classes: int) -> list[nn.Module]:
    """Two hidden layers with ReLU and dropout, and the last one."""
    layers = [m for a in (flat, hidden) for m in (nn.Linear(a, hidden), nn.ReLU(), nn.Dropout())]
    return [*layers, nn.Linear(hidden, num_classes)]


def mlp(num_classes: int, *, image_size: int = 32, hidden: int = 512) -> nn.Module:
    """A feed-forward network with two hidden layers; it flattens channels first, ours last."""
    widths = (3 * image_size**2, hidden, hidden)
    layers = [m for a, b in zip(widths[:-1], widths[1:], strict=True) for m in (nn.Linear(a, b), nn.ReLU())]
    return Features([], [*layers, nn.Linear(hidden, num_classes)])


def convnet4(num_classes: int, *, image_size: int = 32) -> nn.Module:
    """cuda-convnet's `layers-18pct` without normalisation: pooled by maximum once, then by mean, grids round up."""
    features = [
        *(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU()),
        *(nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)),
    ]
    return Features(features, [nn.Linear(64 * (image_size // 8) ** 2, num_classes)])


def lenet(num_classes: int) -> nn.Module:
    """The thesis' network for 32-pixel images: two convolutions, four hidden layers."""
    features = [nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    widths = (400, 400, 120, 256, 84)
    dense = [m for a, b in zip(widths[:-1], widths[1:], strict=True) for m in (nn.Linear(a, b), nn.ReLU())]
    return Features(features, [*dense, nn.Linear(widths[-1], num_classes)])


def _builders() -> dict[str, Callable[..., nn.Module]]:
    """Name to a function of the number of classes and options."""
    found: dict[str, Callable[..., nn.Module]] = {
        build.__name__: build for build in (alexnet, alexnet_single, alexnet_cifar, convnet4, lenet, mlp)
    }
    for name, skip in (("resnet", True), ("plain", False)):
        for depth, stages in RESNETS.items():
            found[f"{name}{depth}"] = partial(ResNet, stages, bottleneck=depth >= 50, skip=skip)
        for depth in (20, 32, 44, 56, 110):
            found[f"{name}{depth}"] = partial(CifarResNet, depth, skip=skip)
    for depth in VGGS:
        for suffix, norm in (("", False), ("_bn", True)):
            found[f"vgg{depth}{suffix}"] = partial(vgg, depth, norm=norm)
    return found


BUILDERS = _builders()


def torch_network(name: str, num_classes: int = 10, *, image_size: int | None = None, **options: Any) -> nn.Module:
    """Return the PyTorch twin of cnnlab's network `name`, with PyTorch's fresh weights, in train mode.

    Args:
        name: a key of `BUILDERS`.
        num_classes: outputs.
        image_size: height and width of the images, for the networks whose weights depend on it; others ignore it.
        **options: others of the builder, e.g. `hidden` of the networks with hidden dense layers.
    """
    if name not in BUILDERS:
        raise ValueError(f"Expected one of {', '.join(BUILDERS)}, got {name!r}.")
    build = BUILDERS[name]
    if image_size is not None and "image_size" in inspect.signature(build).parameters:
        options["image_size"] = image_size
    return build(num_classes=num_classes, **options)
