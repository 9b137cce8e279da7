"""``import cnnlab`` is light and quiet, and the public face is complete: each in a fresh process."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import cnnlab

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ["tensorflow", "tensorflow_datasets", "grain", "matplotlib", "sklearn", "tyro", "torch"]
LATE = [
    "orbax",
    "PIL",
    "rich",
    "jax",
    "flax",
    "optax",
    "numpy",
]  # the bare import brings none of these either

WATCH = """
import json, os, sys
{before}
sockets, environment, modules = [], dict(os.environ), set(sys.modules)
sys.addaudithook(lambda event, args: sockets.append(event) if event.startswith("socket.") else None)
{statement}
changed = sorted(k for k in {{*environment, *os.environ}} if environment.get(k) != os.environ.get(k))
roots = sorted({{name.split(".")[0] for name in set(sys.modules) - modules}})
print(json.dumps({{"modules": roots, "environment": changed, "sockets": sockets}}))
"""


def watch(statement: str, before: str = "pass") -> dict:
    """Run a statement in a fresh interpreter; return what it imported, set and opened."""
    code = WATCH.format(before=before, statement=statement)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_cnnlab_brings_in_no_heavy_package():
    seen = watch("import cnnlab")
    assert "cnnlab" in seen["modules"]
    assert set(seen["modules"]).isdisjoint(HEAVY + LATE)
    assert seen["environment"] == []
    assert seen["sockets"] == []


def test_the_whole_public_face_brings_in_no_heavy_package():
    seen = watch(
        "import cnnlab\nfor name in cnnlab.__all__: getattr(cnnlab, name)",
        before="import jax, flax.nnx, optax",  # what these three do is theirs
    )
    assert set(seen["modules"]).isdisjoint(HEAVY)
    assert seen["environment"] == []
    assert seen["sockets"] == []


def test_the_watch_sees_what_it_watches_for():
    seen = watch("import os, socket, uuid\nos.environ['CNNLAB_PLANTED'] = '1'\nsocket.socket().close()")
    assert "uuid" in seen["modules"]
    assert seen["environment"] == ["CNNLAB_PLANTED"]
    assert seen["sockets"][0] == "socket.__new__"


@pytest.mark.parametrize("name", cnnlab.__all__)
def test_every_public_name_resolves(name):
    value = getattr(cnnlab, name)
    assert value.__doc__, f"{name} has no docstring"
    assert getattr(cnnlab, name) is value


def test_a_star_import_gives_the_public_names():
    names: dict = {}
    exec("from cnnlab import *", names)
    assert set(cnnlab.__all__) == set(names) - {"__builtins__"}


def test_dir_lists_the_public_names_before_they_are_used():
    listed = subprocess.run(
        [sys.executable, "-c", "import cnnlab; print(*dir(cnnlab))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()
    assert {"__version__", *cnnlab.__all__} <= set(listed)


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="module 'cnnlab' has no attribute 'nonsense'"):
        cnnlab.nonsense  # noqa: B018  # pyright: ignore


def type_checker_face() -> dict[str, str]:
    """Return name -> module as a type checker reads it: the ``from .x import y as y`` under TYPE_CHECKING."""
    tree = ast.parse((ROOT / "cnnlab" / "__init__.py").read_text(encoding="utf-8"))
    (guard,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guard.body if isinstance(node, ast.ImportFrom)]
    pairs = [(alias, node.module or "") for node in imports for alias in node.names]
    assert len(imports) == len(guard.body)
    assert [alias.name for alias, _ in pairs] == [alias.asname for alias, _ in pairs]  # `x as x` is what exports
    return {alias.name: module for alias, module in pairs}


def test_type_checkers_and_the_interpreter_see_the_same_face():
    rooms = dict.fromkeys(cnnlab._ROOMS, "")
    assert type_checker_face() == {**rooms, **cnnlab._HOME_OF}
    assert sorted(cnnlab.__all__) == sorted(type_checker_face())
    assert len(cnnlab.__all__) == len(set(cnnlab.__all__))
