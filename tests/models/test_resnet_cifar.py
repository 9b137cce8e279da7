"""The residual networks of the paper's section 4.2 on CIFAR-10, counted by hand."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cnnlab.layers import Conv
from cnnlab.models import create_model, list_models, model_info

# Blocks per stage, and parameters: the paper has 0.27, 0.46, 0.66, 0.85 and 1.7 millions.
NETWORKS = {
    "resnet20": (3, 269_722),
    "resnet32": (5, 464_154),
    "resnet44": (7, 658_586),
    "resnet56": (9, 853_018),
    "resnet110": (18, 1_727_962),
}


@cache
def abstract(name: str, **options: Any) -> nnx.Module:
    """The network without numbers."""
    return nnx.eval_shape(lambda: create_model(name, **options))


def params(name: str, **options: Any) -> nnx.State:
    return nnx.state(abstract(name, **options), nnx.Param)


def count(name: str, **options: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params(name, **options)))


def norm_after(numbers: int, features: int) -> int:
    """Numbers of a convolution and its BatchNorm."""
    return numbers + 2 * features


def by_hand(blocks: int) -> int:
    """Convolutions of n blocks of two per stage, BatchNorm after each, and the head."""
    total = norm_after(3 * 9 * 16, 16)
    for width_in, width in ((16, 16), (16, 32), (32, 64)):
        total += norm_after(9 * width_in * width, width) + (2 * blocks - 1) * norm_after(9 * width * width, width)
    return total + 64 * 10 + 10


@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_parameters_is_exact(name: str) -> None:
    blocks, parameters = NETWORKS[name]
    assert count(name) == parameters == by_hand(blocks)


@pytest.mark.parametrize("name", ["plain20", "plain32", "plain44", "plain56"])
def test_the_plain_twin_has_the_same_parameters_and_with_projections_fewer(name: str) -> None:
    twin = name.replace("plain", "resnet")
    shapes, of_twin = (jax.tree.map(lambda leaf: leaf.shape, nnx.to_pure_dict(params(n))) for n in (name, twin))
    assert shapes == of_twin  # shortcut A has no parameters
    assert count(name) < count(twin, shortcut="B")


def test_shortcuts_b_and_c_add_their_projections() -> None:
    widening = norm_after(16 * 32, 32) + norm_after(32 * 64, 64)
    everywhere = 3 * norm_after(16 * 16, 16) + 2 * norm_after(32 * 32, 32) + 2 * norm_after(64 * 64, 64)
    assert count("resnet20", shortcut="B") == 269_722 + widening
    assert count("resnet20", shortcut="C") == 269_722 + widening + everywhere


@pytest.mark.parametrize("name", ["resnet20", "plain20", "resnet32"])
def test_the_name_is_the_number_of_weighted_layers_and_the_sizes_are_those_of_the_paper(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []

    def watched(self: Conv, inputs: jax.Array) -> jax.Array:
        outputs = nnx.Conv.__call__(self, inputs)
        sizes.append(outputs.shape[1:])
        return outputs

    monkeypatch.setattr(Conv, "__call__", watched)
    graph, state = nnx.split(abstract(name))
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    assert jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, image).shape == (1, 10)
    layers = int(name.removeprefix("resnet").removeprefix("plain"))
    n = (layers - 2) // 6
    assert sizes == [(32, 32, 16)] * (2 * n + 1) + [(16, 16, 32)] * (2 * n) + [(8, 8, 64)] * (2 * n)


def test_the_family_and_its_defaults() -> None:
    names = {*NETWORKS, "plain20", "plain32", "plain44", "plain56"}
    assert names < set(list_models(family="resnet"))
    for name in names:
        info = model_info(name)
        assert (info.build.__name__, info.input_size) == (name, 32)
        assert info.options.get("shortcut", "A") == "A"
