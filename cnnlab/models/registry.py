"""The registry: names to functions that build networks."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import functools
import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

if TYPE_CHECKING:
    from .summary import Summary

Builder = Callable[..., nnx.Module]
ENTRY_POINT_GROUP = "cnnlab.models"
SMALL_IMAGES = 64  # pixels; images with a side below it are small (see `small_images` of `register_model`)


@dataclass(frozen=True)
class ModelInfo:
    """What the registry knows of an architecture.

    Attributes:
        name: what `create_model` calls it.
        build: the function that builds it.
        family: what it is a member of, e.g. "resnet"; mostly the file it is defined in.
        summary: one line on what it is.
        input_size: height and width in pixels of the images it is meant for.
        paper: where it was published; empty where it was not.
        small_images: options for images with a side below `SMALL_IMAGES` pixels; `cnnlab.fit` sets them.
    """

    name: str
    build: Builder
    family: str
    summary: str
    input_size: int
    paper: str = ""
    small_images: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def options(self) -> dict[str, Any]:
        """Options that the builder names with their defaults (None for one that has to be given), without `rngs`."""
        return {p.name: None if p.default is p.empty else p.default for p in self._named}

    @property
    def takes_any_option(self) -> bool:
        """Whether the builder takes options that it does not name, as `**options`."""
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.build).parameters.values())

    @property
    def parameters(self) -> int:
        """Trained numbers with the default options; counted when first asked for, no weight is allocated."""
        return self._summary.parameters

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image of `input_size`, forward, with the default options (see `cnnlab.summarize`)."""
        return self._summary.multiply_adds

    @property
    def _named(self) -> list[inspect.Parameter]:
        parameters = inspect.signature(self.build).parameters.values()
        return [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "rngs"]

    @functools.cached_property
    def _summary(self) -> Summary:
        from .summary import summarize_info

        return summarize_info(self)

    def create(self, *, rngs: nnx.Rngs | None = None, **options: Any) -> nnx.Module:
        """Build it, as `create_model` does; the network notes name and options (as JSON) in `made_by`."""
        unknown = ", ".join(sorted(set(options) - set(self.options)))
        if unknown and not self.takes_any_option:
            raise ValueError(f"Expected options of {self.name} ({', '.join(self.options)}), got {unknown}.")
        missing = [p.name for p in self._named if p.default is p.empty and p.name not in options]
        if missing:
            raise ValueError(
                f"Expected values for all options of {self.name} without a default, got none for "
                f"{', '.join(missing)}; do give {missing[0]}=... ."
            )
        model = self.build(rngs=nnx.Rngs(0) if rngs is None else rngs, **options)
        with contextlib.suppress(TypeError):  # an option that is no plain value: then no note
            model.made_by = (self.name, json.dumps(plain(options)))  # pyright: ignore[reportAttributeAccessIssue]
        return model


class ModelRegistry:
    """A dictionary of `ModelInfo` that refuses duplicates and knows near misses."""

    def __init__(self) -> None:
        self._models: dict[str, ModelInfo] = {}
        self._plugins_loaded = False

    def add(self, info: ModelInfo) -> None:
        """Add a model; ValueError when the name is taken."""
        if info.name in self._models:
            raise ValueError(
                f"Expected a new model name, got {info.name!r}, which is registered already "
                f"({self._models[info.name].build.__module__}); do choose another name."
            )
        self._models[info.name] = info

    def get(self, name: str) -> ModelInfo:
        """Return the model called `name`; ValueError with the nearest names when there is none."""
        self._load_plugins()
        if name not in self._models:
            raise ValueError(f"Expected the name of a registered model, got {name!r}; {_hint(name, self._models)}")
        return self._models[name]

    def names(self, pattern: str = "*", family: str | None = None) -> list[str]:
        """Return the sorted names that match a shell pattern such as "res*"; of one family, if it is named.

        ValueError with the nearest names for a family that no model has.
        """
        self._load_plugins()
        families = {info.family for info in self._models.values()}
        if family is not None and family not in families:
            raise ValueError(f"Expected a family of models, got {family!r}; {_hint(family, families)}")
        models = [name for name, info in self._models.items() if family in (None, info.family)]
        return sorted(fnmatch.filter(models, pattern), key=_natural)

    @contextlib.contextmanager
    def temporarily(self) -> Iterator[None]:
        """Forget, on leaving, what was registered inside (for tests); models of installed packages stay."""
        self._load_plugins()
        before = dict(self._models)
        try:
            yield
        finally:
            self._models = before

    def _load_plugins(self) -> None:
        """Import the models that installed packages offer, once; importing one registers it.

        A package that fails is a warning and keeps no other from being loaded.
        """
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        failures = []
        for entry_point in entry_points(group=ENTRY_POINT_GROUP):
            try:
                entry_point.load()
            except Exception as error:
                failures.append(
                    f"Expected models from the entry point {entry_point.name!r} ({entry_point.value}), got "
                    f"{type(error).__name__}: {error}; do update or uninstall the package that offers it."
                )
        for failure in failures:
            warnings.warn(failure, stacklevel=4)


def plain(value: Any) -> Any:
    """Turn what has a plain twin into it: NumPy's and JAX's numbers, tuples, types of numbers (to their names).

    Anything else stays as it is. What comes out builds the same network, and JSON knows it.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return value.tolist()
    scalar = isinstance(value, type) and issubclass(value, np.generic)
    dtype = value if scalar or isinstance(value, np.dtype) else getattr(value, "dtype", None)  # that of jnp.bfloat16
    return np.dtype(dtype).name if scalar or isinstance(dtype, np.dtype) else value


def _hint(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, or all of them."""
    names = sorted(known, key=_natural)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.8)
    return f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(names)}."


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A sorting key under which resnet18 comes before resnet101."""
    parts = re.findall(r"\d+|\D+", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


REGISTRY = ModelRegistry()


def register_model(
    build: Builder | None = None,
    *,
    name: str | None = None,
    family: str | None = None,
    input_size: int = 32,
    paper: str = "",
    small_images: Mapping[str, Any] | None = None,
):
    """Register a function `build(num_classes=10, *, rngs, **options) -> nnx.Module`; use as a decorator.

    Args:
        build: the builder; its name is the model's name, its docstring's first line the summary. Its options are best
            named one by one: then others are refused, and the command line knows them.
        name: another name.
        family: by default the name of the module that defines the builder.
        input_size: height and width in pixels of the images it is meant for.
        paper: where it was published, e.g. "He et al. 2015, arXiv:1512.03385".
        small_images: options that `cnnlab.fit` sets, unless they are given, for images with a side below 64 pixels,
            e.g. `{"stem": "cifar"}`; for networks that are meant for large images.

    Raises:
        ValueError: the name is taken, a builder without `rngs`, or `small_images` that are no options of it.

    Example:
        >>> import cnnlab
        >>> @cnnlab.register_model
        ... def mynet(num_classes=10, *, rngs):
        ...     return cnnlab.create_model("lenet", num_classes=num_classes, hidden=(32,), rngs=rngs)
    """

    def register(build: Builder) -> Builder:
        summary = (inspect.getdoc(build) or "").partition("\n")[0]
        model_family = family or build.__module__.rpartition(".")[2]
        model_name, small = name or build.__name__, dict(small_images or {})
        info = ModelInfo(model_name, build, model_family, summary, input_size, paper, small)
        if not info.takes_any_option:
            _expect_rngs(info)
            if unknown := ", ".join(sorted(set(small) - set(info.options))):
                raise ValueError(
                    f"Expected small_images to be options of {info.name} ({', '.join(info.options)}), got {unknown}."
                )
        REGISTRY.add(info)
        return build

    return register if build is None else register(build)


def _expect_rngs(info: ModelInfo) -> None:
    signature = inspect.signature(info.build)
    if "rngs" not in signature.parameters:
        raise ValueError(
            f"Expected a builder such as {info.name}(num_classes=10, *, rngs), got {info.name}{signature}; "
            "do add rngs, the source of the initial weights."
        )


def create_model(name: str, *, rngs: nnx.Rngs | None = None, **options: Any) -> nnx.Module:
    """Build the architecture called `name`.

    Args:
        name: a name of `list_models()`.
        rngs: source of the initial weights; `nnx.Rngs(0)` when left out.
        **options: the builder's own, e.g. `num_classes=10`.

    Raises:
        ValueError: unknown name, or an option that the model does not have.
    """
    return REGISTRY.get(name).create(rngs=rngs, **options)


def list_models(pattern: str = "*", *, family: str | None = None) -> list[str]:
    """Return the names of the registered models, sorted.

    Args:
        pattern: a shell pattern such as "res*".
        family: only models of this family, such as "resnet".

    Raises:
        ValueError: no model has this family.
    """
    return REGISTRY.names(pattern, family)


def model_info(name: str) -> ModelInfo:
    """Return what the registry knows of a model; ValueError for an unknown name."""
    return REGISTRY.get(name)
