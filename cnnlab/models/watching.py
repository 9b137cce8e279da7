"""Watch a network while it runs: which of its modules is called, in which order, and what each hands on.

The modules of a throw-away copy become instances of watched subclasses of their classes; neither the network
nor any class is changed. (`nnx.capture` patches classes and misses inherited methods.)
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx

_TAG = "watched-call-"


@dataclass
class Call:
    """A call of a module.

    Attributes:
        name: the module's path in dotted form, such as "layer1.0.conv1"; "" for the network itself.
        kind: name of the module's class.
        module: the module, of the copy that ran.
        output: what the call returned, an array or a structure of arrays; None if it returned no arrays.
    """

    name: str
    kind: str
    module: nnx.Module
    output: Any = None


def watch(model: nnx.Module, images: jax.Array) -> list[Call]:
    """Run `model(images)` and return the calls of its modules, in the order in which they began.

    A call is that of `__call__` or of another public method; what a module calls of itself meanwhile belongs
    to it. In a traced program, each operation carries the index of its innermost call (`call_of`).

    Args:
        model: a copy that nobody else uses: its modules change their class.
        images: `[batch, height, width, channels]`.
    """
    watching = _Watch()
    for path, module in list(nnx.iter_modules(model)):
        module._watched_name = dotted(path)  # pyright: ignore[reportAttributeAccessIssue]
        object.__setattr__(module, "__class__", _watched_class(type(module)))
    token = _WATCH.set(watching)
    try:
        model(images)  # pyright: ignore[reportCallIssue]
    finally:
        _WATCH.reset(token)
    return watching.calls


def dotted(path: Iterable[Any]) -> str:
    """Return the path of a module as one name: `("layer1", 0, "conv1")` is "layer1.0.conv1"."""
    return ".".join(map(str, path))


def call_of(name_stack: str) -> int | None:
    """Return the index of the innermost call in the name stack of a traced operation, None outside of all calls."""
    before, tag, rest = name_stack.rpartition(_TAG)
    return int(rest.partition("/")[0].partition(")")[0]) if tag else None


@dataclass
class _Watch:
    """What is known while a network runs: the calls so far, and the modules at work."""

    calls: list[Call] = field(default_factory=list)
    at_work: set[int] = field(default_factory=set)


_WATCH: ContextVar[_Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def _noted(module: Any) -> Iterator[Call | None]:
    """Note a call of a module; None when nobody watches or the module is at work already."""
    watching = _WATCH.get()
    if watching is None or id(module) in watching.at_work:
        yield None
        return
    call = Call(module._watched_name, type(module).__name__, module)
    watching.calls.append(call)
    watching.at_work.add(id(module))
    try:
        with jax.named_scope(f"{_TAG}{len(watching.calls) - 1}"):
            yield call
    finally:
        watching.at_work.remove(id(module))


def _watched(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: Any, *args: Any, **options: Any) -> Any:
        with _noted(self) as call:
            output = method(self, *args, **options)
            leaves = jax.tree.leaves(output)
            if call is not None and leaves and all(isinstance(leaf, jax.Array) for leaf in leaves):
                call.output = output
        return output

    return run


@functools.cache
def _watched_class(kind: type[nnx.Module]) -> type[nnx.Module]:
    """A subclass of the same name whose public methods note that they are called."""
    namespace: dict[str, Any] = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    for base in reversed(kind.__mro__[: kind.__mro__.index(nnx.Module)]):
        for name, method in vars(base).items():
            if inspect.isfunction(method) and (name == "__call__" or not name.startswith("_")):
                namespace[name] = _watched(method)
    pytree = getattr(kind, "_pytree__is_pytree", True)
    return type(kind)(kind.__name__, (kind,), namespace, pytree=pytree)  # pyright: ignore[reportCallIssue]
