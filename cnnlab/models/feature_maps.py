"""What each layer of a network hands on, by name, for those who look inside."""

from __future__ import annotations

import fnmatch
from collections import OrderedDict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from .watching import watch


def feature_maps(model: nnx.Module, images: ArrayLike, pattern: str = "*") -> dict[str, Any]:
    """Return the intermediate feature maps of a network, by the dotted names of its modules.

    The network runs in evaluation mode and is left as it was. A map is what the module's `__call__`, or whichever
    public method the network used instead, returned: that of a residual block is its output after the last
    ReLU, that of a convolution comes before BatchNorm and ReLU; `lenet` uses `Conv.max_pooled`, so that the
    maps of its convolutions are pooled. A module that is called again has its later maps under "name#2", "name#3".

    Args:
        model: any module that maps images to logits.
        images: `[batch, height, width, channels]`, as the network takes them: float, in [0, 1] for the
            networks of `cnnlab.fit`.
        pattern: which modules: a name or a shell pattern such as "layer*.0.conv1".

    Returns:
        Maps in the order in which the modules are called. May be used inside `jax.jit` and differentiated
        with respect to the images.

    Raises:
        ValueError: no module that is called matches the pattern.

    Example:
        >>> import cnnlab, numpy as np
        >>> maps = cnnlab.feature_maps(cnnlab.create_model("lenet"), np.zeros((1, 32, 32, 3)), "conv*")
        >>> {name: map.shape for name, map in maps.items()}
        {'conv1': (1, 14, 14, 6), 'conv2': (1, 5, 5, 16)}
    """
    copy = nnx.merge(*nnx.split(model))  # shares the numbers, not the mode
    copy.eval()
    graph, state = nnx.split(copy)
    return dict(_feature_maps(state, jnp.asarray(images), graph=graph, pattern=pattern))


@partial(jax.jit, static_argnames=("graph", "pattern"))
def _feature_maps(state: Any, images: jax.Array, *, graph: Any, pattern: str) -> OrderedDict[str, Any]:
    """Compiled once per network, pattern and shape; what no chosen map needs is not computed."""
    maps: OrderedDict[str, Any] = OrderedDict()  # jit would sort a dict
    times: dict[str, int] = {}
    for call in watch(nnx.merge(graph, state), images):
        if call.name and call.output is not None:
            times[call.name] = time = times.get(call.name, 0) + 1
            maps[call.name if time == 1 else f"{call.name}#{time}"] = call.output
    chosen = [name for name in maps if {name, name.partition("#")[0]} & set(fnmatch.filter(maps, pattern))]
    if not chosen:
        names = ", ".join(maps)
        raise ValueError(f"Expected the name or a pattern of a feature map, got {pattern!r}; the names are {names}.")
    return OrderedDict((name, maps[name]) for name in chosen)
