"""Our networks and the same in plain PyTorch, with the same random weights, give the same logits and gradients.

PyTorch's weights go through a safetensors file and `load_weights`; our gradients go back through `save_weights` and are
compared under PyTorch's names. The statistics of BatchNorm are random too: zero means and unit variances
would hide a mistake.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax import nnx

from cnnlab.models import VGG, ResNet, create_model
from cnnlab.models.weights import load_weights, save_weights

torch = pytest.importorskip("torch", reason="PyTorch is what these tests compare with; do make torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from benchmarks.torch_networks import CifarResNet, torch_network  # noqa: E402

# float32 on both sides, relative to the largest logit, and for gradients to the largest of the same array.
LOGITS = GRADIENTS = 1e-4

small_cifar_resnet = partial(ResNet, "basic", width=16, stem="cifar", shortcut="A")
small_vgg = partial(VGG, (1, 1, 2, 2, 2), hidden=(32, 32), batch_norm=True, dropout=0.0)


def with_random_statistics(network: Any) -> Any:
    """The network in evaluation mode, BatchNorm with numbers as after training."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2)
    return network.eval()


def random_batch(side: int, images: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(images, side, side, 3)).astype(np.float32), rng.integers(0, 10, images)


def loss_in_torch(network: Any, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits, and the gradient of the mean cross entropy by PyTorch's names."""
    logits = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    return logits.detach().numpy(), {key: p.grad.numpy() for key, p in network.named_parameters()}


def loss_in_ours(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> tuple[jax.Array, Any]:
    """Logits and the gradient, in one program; the model's batch statistics are updated if it is in train mode."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def run(params: Any, rest: Any, images: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            model = nnx.merge(graph, params, rest, copy=True)
            logits = model(images)  # pyright: ignore[reportCallIssue]
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels))
            return losses.mean(), (logits, nnx.state(model, nnx.Not(nnx.Param)))

        return jax.grad(loss, has_aux=True)(params)

    with jax.default_matmul_precision("highest"):  # a GPU would round to TF32
        gradient, (logits, rest) = run(params, rest, images)
    nnx.update(model, rest)
    return logits, gradient


def expect_equal(got: np.ndarray, expected: np.ndarray, tolerance: float, name: str = "") -> None:
    scale = np.abs(expected).max()
    assert scale > 0, name
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale, err_msg=name)


def expect_parity(model: nnx.Module, network: Any, folder: Path, side: int, *, images: int = 2) -> None:
    """Give our network PyTorch's weights; compare logits and gradients in the mode that PyTorch's is in.

    In train mode, compare the new batch statistics too.
    """
    file = folder / "weights.safetensors"
    save_file(network.state_dict(), file)
    load_weights(model, file)
    model.train() if network.training else model.eval()
    batch = random_batch(side, images)
    logits, gradient = loss_in_ours(model, *batch)
    expected_logits, expected_gradient = loss_in_torch(network, *batch)
    expect_equal(np.asarray(logits), expected_logits, LOGITS)
    if network.training:
        save_weights(model, file)
        statistics = load_file(file)
        means = {key: buffer for key, buffer in network.named_buffers() if key.endswith("running_mean")}
        assert len(means) > 1
        for key, expected in means.items():
            expect_equal(statistics[key].numpy(), expected.numpy(), LOGITS, key)
    nnx.update(model, gradient)
    save_weights(model, file)
    gradients = load_file(file)
    for key, expected in expected_gradient.items():
        expect_equal(gradients[key].numpy(), expected, GRADIENTS, key)


def test_resnet18_is_that_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nnx.eval_shape(lambda: create_model("resnet18"))
    expect_parity(model, with_random_statistics(torch_network("resnet18")), tmp_path, 64)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_a_cifar_resnet_is_that_of_pytorch(tmp_path: Path, train: bool) -> None:
    """In both modes, with shortcuts that pad channels on both sides there and behind here."""
    torch.manual_seed(0)
    model = nnx.eval_shape(lambda: small_cifar_resnet((1, 1, 1), rngs=nnx.Rngs(0)))
    network = with_random_statistics(CifarResNet(8, 10))
    expect_parity(model, network.train(train), tmp_path, 16, images=8)


def test_vgg_with_batch_norm_and_a_narrow_classifier_is_that_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = with_random_statistics(torch_network("vgg11_bn", hidden=32))
    expect_parity(nnx.eval_shape(lambda: small_vgg(rngs=nnx.Rngs(0))), network, tmp_path, 64)


@pytest.mark.slow  # that of two towers is fast
def test_alexnet_of_one_tower_is_that_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nnx.eval_shape(lambda: create_model("alexnet_single", dropout=0.0))
    expect_parity(model, torch_network("alexnet_single").eval(), tmp_path, 96)


TWINS = {
    "resnet18": (lambda: torch_network("resnet18"), lambda: create_model("resnet18")),
    "cifar": (lambda: CifarResNet(14, 10), lambda: small_cifar_resnet((2, 2, 2), rngs=nnx.Rngs(0))),
    "vgg": (lambda: torch_network("vgg11_bn", hidden=32), lambda: small_vgg(rngs=nnx.Rngs(0))),
}


@pytest.mark.parametrize("name", TWINS)
def test_pytorch_loads_what_we_save_and_it_is_what_we_loaded(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = TWINS[name]
    network, other, model = with_random_statistics(theirs()), theirs(), nnx.eval_shape(ours)
    save_file(network.state_dict(), tmp_path / "theirs.safetensors")
    load_weights(model, tmp_path / "theirs.safetensors")
    save_weights(model, tmp_path / "ours.safetensors")
    other.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=True)
    for key, expected in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], expected), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_deep_resnets_are_those_of_pytorch(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = nnx.eval_shape(lambda: create_model(name))
    expect_parity(model, with_random_statistics(torch_network(name)), tmp_path, 64)


@pytest.mark.slow
def test_vgg16_with_batch_norm_is_that_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nnx.eval_shape(lambda: create_model("vgg16_bn", dropout=0.0))
    expect_parity(model, with_random_statistics(torch_network("vgg16_bn")), tmp_path, 64)


def test_alexnet_of_two_towers_is_that_of_pytorch(tmp_path: Path) -> None:
    """No library has this network, so that the test itself translates the names."""
    torch.manual_seed(0)
    side = 96  # a last feature map of 2 x 2: small, and the order of the flattened numbers matters
    network = torch_network("alexnet", image_size=side).eval()
    weighty = (torch.nn.Conv2d, torch.nn.Linear)
    layers: list[Any] = [module for module in network.modules() if isinstance(module, weighty)]
    names = [*(f"convs.{i}" for i in range(5)), "hidden.0", "hidden.1", "head"]
    arrays = {}
    for name, layer in zip(names, layers, strict=True):
        weight = layer.weight.detach().numpy()
        if name == "hidden.0":  # [o, c * h * w] to [h * w * c, o]
            weight = weight.reshape(-1, 256, 2, 2).transpose(2, 3, 1, 0).reshape(1024, -1)
        else:
            weight = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        arrays |= {f"{name}.kernel": weight.copy(), f"{name}.bias": layer.bias.detach().numpy()}
    safetensors.numpy.save_file(arrays, tmp_path / "own.safetensors")
    model = nnx.eval_shape(lambda: create_model("alexnet", image_size=side, dropout=0.0))
    load_weights(model, tmp_path / "own.safetensors")
    model.eval()
    batch = random_batch(side)
    logits, gradient = loss_in_ours(model, *batch)
    expected_logits, expected_gradient = loss_in_torch(network, *batch)
    expect_equal(np.asarray(logits), expected_logits, LOGITS)
    first = expected_gradient["features.0.1.weight"].transpose(2, 3, 1, 0)
    expect_equal(np.asarray(gradient["convs"][0]["kernel"][...]), first, GRADIENTS)
