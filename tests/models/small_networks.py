"""Small networks of several families for tests of weights, filled with random numbers and compared by name."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from cnnlab.models import VGG, AlexNet, LeNet, ResNet
from cnnlab.models.alexnet import Convolution

Arrays = dict[str, np.ndarray]

small_resnet = partial(ResNet, "basic", (1, 1), width=4, stem="cifar")
small_cifar_resnet = partial(ResNet, "basic", (1, 2, 1), width=4, stem="cifar", shortcut="A")
small_vgg = partial(VGG, (1, 2), widths=(3, 5), hidden=(6, 7), batch_norm=True, dropout=0.0)
small_alexnet = partial(AlexNet, [Convolution(n, 3, 1, (1, 1)) for n in (2, 3, 4, 5, 6)], hidden=(7, 8), dropout=0.0)
small_lenet = partial(LeNet, hidden=(5,), filters=(2, 3), image_size=16)


def filled(build: Any, seed: int = 0, num_classes: int = 10) -> nnx.Module:
    """A network in which every array is random, the statistics of BatchNorm too."""
    model = nnx.eval_shape(lambda: build(num_classes=num_classes, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(seed)
    nnx.update(model, jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32), nnx.state(model)))
    return model


def arrays(model: nnx.Module) -> Arrays:
    """All arrays by dotted path."""
    flat = nnx.to_flat_state(nnx.state(model))
    return {".".join(map(str, path)): np.asarray(variable[...]) for path, variable in flat}


def expect_equal(model: nnx.Module, expected: Arrays) -> None:
    found = arrays(model)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def write(path: Path, content: Arrays) -> Path:
    safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in content.items()}, path)
    return path
