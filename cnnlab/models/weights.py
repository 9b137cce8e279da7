"""Weights from and to safetensors files, by PyTorch's names where a network has a twin there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .safetensors_file import TensorFile, WeightsError, open_tensors, write_tensors
from .torch_names import OWN, WRAPPED, Naming, Path, arrays_of, namings

_SHOWN = 4  # names per kind of mismatch
_COUNTER = "num_batches_tracked"  # of PyTorch's BatchNorm, which counts its updates; nothing here reads it
_PARALLEL = "module."  # before every name in files of networks that were wrapped in DataParallel
_INSIDE = f"{WRAPPED}."  # before the names in files of networks that were wrapped in `Standardized`
_CONSTANTS = {"mean", "std"}  # of `Standardized` itself


def load_weights(model: nnx.Module, path: str | os.PathLike[str], *, drop_head: bool = False) -> None:
    """Fill a network with the weights of a safetensors file; all of it or, after an error, nothing.

    Understood are the names and layouts of PyTorch, as torchvision and timm have them, for ResNet (with the plain twins
    and the CIFAR family, there also `linear` for the head and `shortcut` for projections; without squeeze-and-excite),
    VGG and the single-tower AlexNet; and every network's own names, as `save_weights` writes them where there is no
    twin. Which names a file has is found out. A network behind `Standardized` takes the weights of the one inside and
    keeps its mean and std. A network alone takes a file written from one behind `Standardized` but for the mean and
    std in it: its images have to be standardised elsewhere.

    Numbers of type F64, F32, F16 and BF16 become those of the parameters, float32. PyTorch keeps the unbiased running
    variance, we the biased one; the two differ by n / (n - 1), and the n that it came from is not in the file. So it is
    taken as it is, and the outputs in evaluation mode are those of PyTorch.

    Args:
        model: the network, in evaluation mode or not; `nnx.eval_shape`'s abstract one too, where the file has all of
            its arrays. The random keys of its dropout then become those of seed 0.
        path: a safetensors file. Pickle files (.pth, .pt, .bin) can run code and are refused; the error has the
            command that converts one.
        drop_head: leave the network's own last layer as it is, and load the rest: for another number of classes.

    Raises:
        OSError: no such file.
        WeightsError: a file that is damaged or a pickle; weights of another network: the text names the missing and
            unexpected arrays and those of another shape; or an abstract network that would stay so in part.

    Example:
        >>> import cnnlab
        >>> model = cnnlab.create_model("resnet34", num_classes=1000)
        >>> cnnlab.load_weights(model, "resnet34.safetensors")  # doctest: +SKIP
    """
    with open_tensors(path) as file:
        naming, names = _best(namings(model), _readings(file.shapes))

        def is_meant(key: str) -> bool:
            return not (drop_head and naming.in_head(key)) and key.rpartition(".")[2] != _COUNTER

        wanted = {key: entry for key, entry in naming.entries.items() if is_meant(key)}
        found = {key: name for key, name in names.items() if is_meant(key)}
        shapes = {key: file.shapes[name] for key, name in found.items()}
        if {key: entry.shape for key, entry in wanted.items()} != shapes:
            raise WeightsError(_mismatch(model, naming, {k: e.shape for k, e in wanted.items()}, shapes, file))
        variables = arrays_of(model)
        _expect_numbers(variables, {entry.path for entry in wanted.values()})
        arrays = {entry.path: entry.decode(file.read(found[key])) for key, entry in wanted.items()}

    state = {
        path: variables[path].replace(jnp.array(array, variables[path].get_value().dtype))
        for path, array in arrays.items()
    }
    nnx.update(model, nnx.from_flat_state({**state, **_new_random_state(model)}))


def save_weights(model: nnx.Module, path: str | os.PathLike[str], *, names: Literal["torch", "own"] = "torch") -> None:
    """Write the weights of a network to a safetensors file, the whole file or nothing.

    Args:
        model: the network.
        path: the file, named `NAME.safetensors` by custom; one that is there is replaced.
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
    naming = next(naming for naming in namings(model) if names == "torch" or naming.name == OWN)
    variables = arrays_of(model)
    tensors: dict[str, np.ndarray] = {}
    for key, entry in naming.entries.items():
        tensors[key] = entry.encode(np.asarray(variables[entry.path].get_value()))
        module, _, leaf = key.rpartition(".")
        if leaf == "running_var":
            tensors[f"{module}.{_COUNTER}"] = np.zeros((), np.int64)
    write_tensors(path, tensors, {} if naming.name == OWN else {"format": "pt"})


def _readings(written: Iterable[str]) -> list[dict[str, str]]:
    """What the names in a file may mean, each a mapping to the name as written.

    Those of the network that was saved, and where that was wrapped in another, those of the network inside.
    """
    names = {name: name for name in written}
    if all(name.startswith(_PARALLEL) for name in names):
        names = {key.removeprefix(_PARALLEL): name for key, name in names.items()}
    readings = [names]
    while inside := {key.removeprefix(_INSIDE): name for key, name in names.items() if key.startswith(_INSIDE)}:
        if any(not key.startswith(_INSIDE) for key in names.keys() - _CONSTANTS):
            break
        names = inside
        readings.append(names)
    return readings


def _best(namings: list[Naming], readings: list[dict[str, str]]) -> tuple[Naming, dict[str, str]]:
    """The pair with the most names in common, and of these the first with the fewest that only one of the two has."""

    def agreement(pair: tuple[Naming, dict[str, str]]) -> tuple[int, int]:
        wanted, found = pair[0].entries.keys(), pair[1].keys()
        return len(wanted & found), -len(wanted ^ found)

    return max(((naming, names) for naming in namings for names in readings), key=agreement)


def _is_abstract(variable: nnx.Variable) -> bool:
    return isinstance(variable.get_value(), jax.ShapeDtypeStruct)


def _expect_numbers(variables: Mapping[Path, nnx.Variable], filled: set[Path]) -> None:
    """Refuse an abstract network in which arrays would stay without numbers."""
    empty = [".".join(map(str, path)) for path, v in variables.items() if path not in filled and _is_abstract(v)]
    if empty:
        raise WeightsError(
            f"Expected a network with numbers where the file does not give them, got an abstract one ({_some(empty)}); "
            "do build it with create_model in place of nnx.eval_shape. Nothing was changed."
        )


def _new_random_state(model: nnx.Module) -> dict[Path, nnx.Variable]:
    """The random keys and counters of an abstract network, of seed 0; of one with numbers none."""
    rngs, new = nnx.Rngs(0), {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.RngState)):
        if _is_abstract(variable):
            shape, dtype = variable.get_value().shape, variable.get_value().dtype
            is_key = jnp.issubdtype(dtype, jax.dtypes.prng_key)
            new[path] = variable.replace(jax.random.split(rngs(), shape) if is_key else jnp.zeros(shape, dtype))
    return new


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
