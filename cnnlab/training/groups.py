"""Groups of parameters, named by shell patterns: what is frozen, and what learns at a rate of its own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from flax import nnx

from .recipe import Recipe, RecipeError

Path = tuple[Any, ...]
_WRAPPED = "network."


def matches(pattern: str, path: Path) -> bool:
    """Return whether a pattern means the parameter at a path such as `("layer1", 0, "conv1", "kernel")`.

    It does when it matches the dotted path, `layer1.0.conv1.kernel`, or the path of a module around it: `layer1` is
    the whole of layer1, and nothing of layer10. A star also stands for dots. The `network.` that a wrapper such as
    `Standardized` puts in front may be left out.
    """
    return any(fnmatchcase(name, p) for name in _names(path) for p in (pattern, f"{pattern}.*"))


def path_of(keys: tuple[Any, ...]) -> Path:
    """Return the path of a leaf of a pure nested dictionary, from the keys that `jax.tree.map_with_path` gives."""
    return tuple(entry.key for entry in keys)


def rate_factor(factors: Iterable[tuple[str, float]], path: Path, *, default: float = 1.0) -> float:
    """Return the factor of the last pattern that means the parameter; `default` when none does."""
    return next((factor for pattern, factor in reversed([*factors]) if matches(pattern, path)), default)


def expect_matches(field: str, patterns: Iterable[str], paths: Sequence[Path]) -> None:
    """Raise RecipeError for the first pattern that means none of the parameters; it names the nearest."""
    for pattern in patterns:
        if not any(matches(pattern, path) for path in paths):
            hint = _hint(pattern, paths)
            raise RecipeError(f"Expected every pattern of {field} to match a parameter, got {pattern!r}; {hint}")


def expect_groups(model: nnx.Module, recipe: Recipe) -> None:
    """Raise RecipeError unless each pattern of the recipe means a parameter, and each with a factor one that trains.

    Args:
        model: the network; an abstract one will do.
        recipe: its `freeze`, `learning_rates` and `weight_decays` are looked at.
    """
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    free = [path for path, _ in nnx.to_flat_state(nnx.state(model, trained_filter(model, recipe.freeze)))]
    for field in ("learning_rates", "weight_decays"):
        for pattern, _ in getattr(recipe, field):
            expect_matches(field, [pattern], paths)
            if not any(matches(pattern, path) for path in free):
                raise RecipeError(
                    f"Expected every pattern of {field} to match a parameter that trains, got {pattern!r}, "
                    f"which is frozen; do take it out of {field} or of freeze."
                )


def trained_filter(model: nnx.Module, freeze: Sequence[str]) -> Any:
    """Return the NNX filter of the parameters that training changes; RecipeError when that leaves none."""
    if not freeze:
        return nnx.Param
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    expect_matches("freeze", freeze, paths)
    frozen = {path for path in paths if any(matches(pattern, path) for pattern in freeze)}
    if len(frozen) == len(paths):
        raise RecipeError(f"Expected a parameter to train, got all frozen by {', '.join(freeze)}; do freeze fewer.")
    return nnx.All(nnx.Param, _is_not_in(frozen))


def frozen_modules(model: nnx.Module, trained: Any) -> list[nnx.Module]:
    """Return the modules that hold parameters (they or the modules inside them), none of them trained."""
    free = {path for path, _ in nnx.to_flat_state(nnx.state(model, trained))}
    frozen = {path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))} - free

    def inside(path: Path, paths: Iterable[Path]) -> bool:
        return any(p[: len(path)] == path for p in paths)

    return [m for path, m in nnx.iter_modules(model) if inside(path, frozen) and not inside(path, free)]


def _is_not_in(frozen: set[Path]) -> Callable[[Path, Any], bool]:
    return lambda path, _: tuple(path) not in frozen


def _names(path: Path) -> tuple[str, str]:
    """The dotted path, and the same without what wrappers put in front."""
    name = inner = ".".join(map(str, path))
    while inner.startswith(_WRAPPED):
        inner = inner.removeprefix(_WRAPPED)
    return name, inner


def _hint(pattern: str, paths: Sequence[Path]) -> str:
    """The nearest parameters and modules, or the outermost ones."""
    names = [_names(path)[1].split(".") for path in paths]
    known = {".".join(parts[:length]): None for parts in names for length in range(1, len(parts) + 1)}
    near = difflib.get_close_matches(pattern.rstrip("*."), known, n=3, cutoff=0.5)
    near = [name for name in near if not any(name.startswith(f"{other}.") for other in near)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"the parameters lie in {', '.join(dict.fromkeys(parts[0] for parts in names))}."
