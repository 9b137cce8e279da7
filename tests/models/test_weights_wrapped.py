"""Weights between networks alone and in wrappers, and into abstract networks: all, or an error that says why."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnlab.layers import Standardized
from cnnlab.models import WeightsError, load_weights, save_weights
from cnnlab.models.lenet import SoftmaxTwice
from cnnlab.training import TrainState
from tests.models.small_networks import (
    Arrays,
    arrays,
    expect_equal,
    filled,
    small_cifar_resnet,
    small_lenet,
    small_resnet,
    small_vgg,
    write,
)


def test_a_standardized_network_takes_the_weights_of_the_one_inside_and_saves_itself(tmp_path: Path) -> None:
    expected = arrays(filled(small_resnet, 1))
    model = Standardized(filled(small_resnet, 2), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    constants = {name: array for name, array in arrays(model).items() if name in ("mean", "std")}
    save_weights(filled(small_resnet, 1), tmp_path / "torch.safetensors")
    load_weights(model, tmp_path / "torch.safetensors")
    whole = {f"network.{name}": array for name, array in expected.items()} | constants
    expect_equal(model, whole)

    save_weights(model, tmp_path / "own.safetensors", names="own")
    other = Standardized(filled(small_resnet, 3), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    load_weights(other, tmp_path / "own.safetensors")
    expect_equal(other, whole)


def standardized(network: nnx.Module, mean: float = 0.5) -> nnx.Module:
    return Standardized(network, mean=(mean,) * 3, std=(0.25,) * 3)


def inside_of(model: nnx.Module, depth: int = 1) -> Arrays:
    prefix = "network." * depth
    return {name.removeprefix(prefix): array for name, array in arrays(model).items() if name.startswith(prefix)}


@pytest.mark.parametrize("build", [small_lenet, partial(small_cifar_resnet, squeeze_excite=True), small_vgg])
@pytest.mark.parametrize("names", ["torch", "own"])
def test_weights_go_into_a_standardized_network_and_out_of_one(tmp_path: Path, build: Any, names: Any) -> None:
    bare, wrapped = filled(build, 1), standardized(filled(build, 2))
    constants = {name: array for name, array in arrays(wrapped).items() if name in ("mean", "std")}
    save_weights(bare, tmp_path / "bare.safetensors", names=names)
    load_weights(wrapped, tmp_path / "bare.safetensors")
    expect_equal(wrapped, {f"network.{name}": array for name, array in arrays(bare).items()} | constants)

    wrapped, bare = standardized(filled(build, 3)), filled(build, 4)
    save_weights(wrapped, tmp_path / "wrapped.safetensors", names=names)
    load_weights(bare, tmp_path / "wrapped.safetensors")
    expect_equal(bare, inside_of(wrapped))


def test_a_network_in_two_wrappers_and_one_in_one_exchange_weights(tmp_path: Path) -> None:
    once = standardized(filled(small_lenet, 1), mean=0.1)
    twice = standardized(SoftmaxTwice(filled(small_lenet, 2)), mean=0.2)
    save_weights(once, tmp_path / "once.safetensors")
    load_weights(twice, tmp_path / "once.safetensors")
    assert arrays(twice)["mean"][0] == np.float32(0.2)
    np.testing.assert_equal(inside_of(twice, 2), inside_of(once))

    twice = standardized(SoftmaxTwice(filled(small_lenet, 3)))
    save_weights(twice, tmp_path / "twice.safetensors")
    load_weights(once, tmp_path / "twice.safetensors")
    assert arrays(once)["mean"][0] == np.float32(0.1)
    np.testing.assert_equal(inside_of(once), inside_of(twice, 2))


def test_what_does_not_fit_between_wrapped_and_bare_networks_is_named_as_inside(tmp_path: Path) -> None:
    wrapped, bare = standardized(filled(small_lenet, 1)), filled(small_lenet, 2, num_classes=3)
    save_weights(wrapped, tmp_path / "w.safetensors")
    text = r"got .* with 8 of them: 2 of another shape \(head\..*\); do pass drop_head=True"
    with pytest.raises(WeightsError, match=text):
        load_weights(bare, tmp_path / "w.safetensors")
    head = {name: array for name, array in arrays(bare).items() if name.startswith("head.")}
    load_weights(bare, tmp_path / "w.safetensors", drop_head=True)
    expect_equal(bare, inside_of(wrapped) | head)


def test_names_that_are_in_no_wrapper_are_not_taken_for_inside_of_one(tmp_path: Path) -> None:
    model = filled(small_lenet)
    content = {f"network.{name}": array for name, array in arrays(model).items()}
    with pytest.raises(WeightsError, match=r"missing .* unexpected \(extra, "):
        load_weights(model, write(tmp_path / "w.safetensors", content | {"extra": np.zeros(2, np.float32)}))


def test_an_abstract_network_becomes_a_real_one(tmp_path: Path) -> None:
    expected = filled(small_resnet, 1)
    save_weights(expected, tmp_path / "w.safetensors")
    model = nnx.eval_shape(lambda: small_resnet(rngs=nnx.Rngs(0)))
    load_weights(model, tmp_path / "w.safetensors")
    expect_equal(model, arrays(expected))


def test_an_abstract_network_gets_random_keys_for_its_dropout(tmp_path: Path) -> None:
    class Dropping(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.drops = nnx.List([nnx.Dropout(0.5, rngs=rngs) for _ in range(2)])
            self.head = nnx.Linear(2, 3, rngs=rngs)

    def keys(model: nnx.Module) -> list[jax.Array]:
        return [jax.random.key_data(key) for key in jax.tree.leaves(nnx.state(model, nnx.RngKey))]

    save_weights(Dropping(nnx.Rngs(1)), tmp_path / "w.safetensors")
    model = nnx.eval_shape(lambda: Dropping(nnx.Rngs(0)))
    load_weights(model, tmp_path / "w.safetensors")
    assert len(jax.tree.leaves(nnx.state(model))) == 6
    state = TrainState.create(model, optax.sgd(0.1))  # copies every array
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((state.params, state.extra)))
    first, second = (drop(jnp.ones(64)) for drop in model.drops)
    assert 0 < np.count_nonzero(first) < 64 and np.any(first != second)

    ours = Dropping(nnx.Rngs(2))  # a network with numbers keeps its own keys
    before = keys(ours)
    load_weights(ours, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(before, keys(ours))


def test_an_abstract_network_that_would_stay_so_in_part_is_refused(tmp_path: Path) -> None:
    save_weights(filled(small_lenet, 1), tmp_path / "w.safetensors")
    model = nnx.eval_shape(lambda: small_lenet(num_classes=3, rngs=nnx.Rngs(0)))
    text = r"got an abstract one \(head.bias, head.kernel\); do build it with create_model .* Nothing was changed"
    with pytest.raises(WeightsError, match=text):
        load_weights(model, tmp_path / "w.safetensors", drop_head=True)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(nnx.state(model)))

    model = nnx.eval_shape(lambda: standardized(small_lenet(rngs=nnx.Rngs(0))))
    with pytest.raises(WeightsError, match=r"got an abstract one \(mean, std\); do build it"):
        load_weights(model, tmp_path / "w.safetensors")
