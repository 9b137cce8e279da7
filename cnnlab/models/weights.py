"""Weights from and to safetensors files, by PyTorch's names where a network has a twin there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from .safetensors_file import TensorFile, WeightsError, open_tensors, write_tensors
from .torch_names import Naming, arrays_of, namings

_SHOWN = 4  # names per kind of mismatch
_COUNTER = "num_batches_tracked"  # of PyTorch's BatchNorm, which counts its updates; nothing here reads it
_PARALLEL = "module."  # before every name in files of networks that were wrapped in DataParallel


def load_weights(model: nnx.Module, path: str | os.PathLike[str], *, drop_head: bool = False) -> None:
    """Fill a network with the weights of a safetensors file; all of it or, after an error, nothing.

    Understood are the names and layouts of PyTorch, as torchvision and timm have them, for ResNet (with the plain twins
    and the CIFAR family, there also `linear` for the head and `shortcut` for projections), VGG and the single-tower
    AlexNet; and every network's own names, as `save_weights` writes them where there is no twin. Which names a file has
    is found out. A network behind `Standardized` takes the weights of the one inside.

    Numbers of type F64, F32, F16 and BF16 become those of the parameters, float32. PyTorch keeps the unbiased running
    variance, we the biased one; the two differ by n / (n - 1), and the n that it came from is not in the file. So it is
    taken as it is, and the outputs in evaluation mode are those of PyTorch.

    Args:
        model: the network; in evaluation mode or not, `nnx.eval_shape`'s abstract one too.
        path: a safetensors file. Pickle files (.pth, .pt, .bin) can run code and are refused; the error has the
            command that converts one.
        drop_head: leave the network's own last layer as it is, and load the rest: for another number of classes.

    Raises:
        OSError: no such file.
        WeightsError: a file that is damaged or a pickle; or weights of another network: the text names the missing and
            unexpected arrays and those of another shape.

    Example:
        >>> import cnnlab
        >>> model = cnnlab.create_model("resnet34", num_classes=1000)
        >>> cnnlab.load_weights(model, "resnet34.safetensors")  # doctest: +SKIP
    """
    with open_tensors(path) as file:
        parallel = all(name.startswith(_PARALLEL) for name in file.shapes)
        names = {name.removeprefix(_PARALLEL) if parallel else name: name for name in file.shapes}
        naming = max(namings(model), key=lambda naming: len(naming.entries.keys() & names.keys()))

        def is_meant(key: str) -> bool:
            return not (drop_head and naming.in_head(key)) and key.rpartition(".")[2] != _COUNTER

        wanted = {key: entry for key, entry in naming.entries.items() if is_meant(key)}
        found = {key: name for key, name in names.items() if is_meant(key)}
        shapes = {key: file.shapes[name] for key, name in found.items()}
        if {key: entry.shape for key, entry in wanted.items()} != shapes:
            raise WeightsError(_mismatch(model, naming, {k: e.shape for k, e in wanted.items()}, shapes, file))
        arrays = {entry.path: entry.decode(file.read(found[key])) for key, entry in wanted.items()}

    variables = arrays_of(model)
    state = {
        path: variables[path].replace(jnp.array(array, variables[path].get_value().dtype))
        for path, array in arrays.items()
    }
    nnx.update(model, nnx.from_flat_state(state))


def save_weights(model: nnx.Module, path: str | os.PathLike[str], *, names: Literal["torch", "own"] = "torch") -> None:
    """Write the weights of a network to a safetensors file, the whole file or nothing.

    Args:
        model: the network.
        path: the file, named *.safetensors by custom; one that is there is replaced.
        names: "torch" gives names and layouts of the twin in PyTorch, so that `safetensors.torch.load_file` and
            `load_state_dict` take the file (BatchNorm's counters are zero); a network without twin has its own names.
            Of one behind `Standardized`, PyTorch gets the network inside and must standardise by itself. "own" writes
            each array by its path in the network, such as `conv1.kernel`, in its own layout.

    Raises:
        OSError: the file cannot be written.
        ValueError: other `names`.
    """
    if names not in ("torch", "own"):
        raise ValueError(f"Expected names to be torch or own, got {names!r}; do choose one of the two.")
    naming = namings(model)[0 if names == "torch" else -1]
    variables = arrays_of(model)
    tensors: dict[str, np.ndarray] = {}
    for key, entry in naming.entries.items():
        tensors[key] = entry.encode(np.asarray(variables[entry.path].get_value()))
        module, _, leaf = key.rpartition(".")
        if leaf == "running_var":
            tensors[f"{module}.{_COUNTER}"] = np.zeros((), np.int64)
    write_tensors(path, tensors, {} if naming.name == "own" else {"format": "pt"})


def _mismatch(
    model: nnx.Module,
    naming: Naming,
    wanted: dict[str, tuple[int, ...]],
    found: dict[str, tuple[int, ...]],
    file: TensorFile,
) -> str:
    """The one text on all that does not fit."""
    both = wanted.keys() & found.keys()
    wrong = {
        "missing": [key for key in wanted if key not in found],
        "unexpected": [key for key in found if key not in wanted],
        "of another shape": [key for key in wanted if key in both and wanted[key] != found[key]],
    }

    def show(key: str) -> str:
        return f"{key} {list(found[key])} for {list(wanted[key])}" if key in both else key

    parts = [f"{len(keys)} {kind} ({_some(map(show, keys))})" for kind, keys in wrong.items() if keys]
    of_head = [naming.in_head(key) for keys in wrong.values() for key in keys]
    advice = ["do build the network that these weights were trained with, with the same options"]
    if any(of_head):
        keep = "pass drop_head=True to keep the network's own head and load the rest"
        advice = [f"do {keep}"] if all(of_head) else [*advice, f"and for another number of classes {keep}"]
    return (
        f"Expected the weights of this {type(model).__name__} (names of {naming.name}, {len(wanted)} arrays), "
        f"got {file.path} with {len(both)} of them: {', '.join(parts)}; {' '.join(advice)}. Nothing was changed."
    )


def _some(words: Iterable[str]) -> str:
    """The first few, and how many there are besides."""
    words = list(words)
    more = [f"and {len(words) - _SHOWN} more"] if len(words) > _SHOWN else []
    return ", ".join([*words[:_SHOWN], *more])
