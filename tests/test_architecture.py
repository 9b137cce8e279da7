"""The rooms of cnnlab and the arrows between them, read from the source: imports point down only.

Every import counts: absolute or relative, at the top of a file, inside a function, under ``TYPE_CHECKING``.
The public face (``cnnlab/__init__.py``) may import every room. No room below the command line may import the
face, but for its version: a name taken from the face hides the arrow it stands for.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FACE = "cnnlab/__init__.py"
LONGEST = 400

ALLOWED: dict[str, set[str]] = {
    "layers": set(),
    "data": set(),
    "models": {"layers"},
    "training": {"data", "layers"},
    "evaluation": {"training", "data", "layers"},
    "report": {"evaluation", "training", "data", "layers"},
    "experiment": {"report", "models", "evaluation", "training", "data", "layers"},
    "reproduction": {"experiment", "report", "models", "evaluation", "training", "data", "layers"},
    "__main__": {"cli"},
    "cli": {FACE, "reproduction", "experiment", "report", "models", "evaluation", "training", "data", "layers"},
}


def package_files(root: Path) -> list[Path]:
    return sorted((root / "cnnlab").rglob("*.py"))


def room_of(file: Path, root: Path) -> str:
    """Return the room a file is in: ``training`` for both cnnlab/training/loop.py and cnnlab/training.py."""
    first = file.relative_to(root / "cnnlab").parts[0]
    return FACE if first == "__init__.py" else first.removesuffix(".py")


def imported_names(file: Path, root: Path) -> list[tuple[int, str]]:
    """Return (line, absolute dotted name) of everything the file imports, ``from a import b`` as ``a.b``."""
    package = file.relative_to(root).parent.parts
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += [node.module] if node.module else []
            found += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            found += [(node.lineno, text) for text in texts if isinstance(text, str)]
    return found


def target_room(name: str) -> str | None:
    """Return the room that a dotted name leads to; None where it leads outside or to the version."""
    if name == "cnnlab.__version__" or name.split(".")[0] != "cnnlab":
        return None
    second = name.split(".")[1:2]
    return second[0] if second and second[0] in ALLOWED else FACE


def wrong_arrows(root: Path) -> list[str]:
    wrong: list[str] = []
    for file in package_files(root):
        room = room_of(file, root)
        where = file.relative_to(root).as_posix()
        if room == FACE:
            continue
        if room not in ALLOWED:
            wrong.append(f"{where}: Expected one of the rooms {sorted(ALLOWED)}, got {room!r}; draw its arrows")
            continue
        for line, name in imported_names(file, root):
            target = target_room(name)
            if target not in {None, room, *ALLOWED[room]}:
                wrong.append(f"{where}:{line}: {room} must not import {target} ({name})")
    return wrong


def test_the_arrows_between_rooms_point_down_only():
    assert wrong_arrows(ROOT) == []


def test_every_room_with_arrows_exists():
    assert {room_of(file, ROOT) for file in package_files(ROOT)} - {FACE} == set(ALLOWED)


def test_the_arrows_have_no_cycle():
    """Follow the table itself: a room that could reach itself would make `down` meaningless."""

    def below(room: str) -> set[str]:
        return {room}.union(*(below(target) for target in ALLOWED.get(room, ())))

    assert all(room not in below(target) for room, targets in ALLOWED.items() for target in targets)


@pytest.mark.parametrize(
    ("file", "source", "target"),
    [
        ("layers/conv.py", "import cnnlab.models", "models"),
        ("data/feed.py", "from cnnlab.training import Recipe", "training"),
        ("data/feed.py", "from cnnlab import layers", "layers"),
        ("training/loop.py", "from ..models import create_model", "models"),
        ("training/loop.py", "from .. import report", "report"),
        ("training/deep/loop.py", "from ...models.lenet import LeNet", "models"),
        ("training/__init__.py", "from ..models import create_model", "models"),
        ("models/lenet.py", "def build():\n    from cnnlab.data import load_dataset", "data"),
        (
            "models/lenet.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..training import Recipe",
            "training",
        ),
        ("models/lenet.py", "import importlib\nimportlib.import_module('cnnlab.data')", "data"),
        ("experiment.py", "from .cli import main", "cli"),
        ("experiment.py", "import cnnlab", FACE),
        ("report/page.py", "from cnnlab import load_dataset", FACE),
    ],
)
def test_a_planted_wrong_arrow_is_found(tmp_path, file, source, target):
    planted = tmp_path / "cnnlab" / file
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    line = 1 + source.count("\n")
    room = Path(file).parts[0].removesuffix(".py")
    (message,) = wrong_arrows(tmp_path)
    assert message.startswith(f"cnnlab/{file}:{line}: {room} must not import {target} (")


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("training/loop.py", "from ..data import Dataset\nfrom . import step\nfrom .state import TrainState"),
        ("models/lenet.py", "import jax\nfrom cnnlab.layers import Conv\nfrom .. import __version__"),
        ("report/page.py", "from cnnlab import __version__, evaluation"),
        ("cli.py", "import cnnlab\nfrom cnnlab import experiment, load_dataset"),
        ("__init__.py", "from . import cli, models\nfrom .data import Dataset"),
    ],
)
def test_a_right_arrow_is_let_through(tmp_path, file, source):
    planted = tmp_path / "cnnlab" / file
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    assert wrong_arrows(tmp_path) == []


def test_an_unknown_room_is_named(tmp_path):
    (tmp_path / "cnnlab").mkdir()
    (tmp_path / "cnnlab" / "attic.py").write_text("")
    (message,) = wrong_arrows(tmp_path)
    assert message.startswith("cnnlab/attic.py: Expected one of the rooms") and "'attic'" in message


def our_files() -> list[Path]:
    return [file for part in ("cnnlab", "tests", "examples", "benchmarks") for file in (ROOT / part).rglob("*.py")]


def test_no_file_is_a_drawer_for_everything():
    assert [file for file in our_files() if file.stem in {"utils", "util", "helpers", "misc"}] == []


def test_no_file_is_longer_than_it_should_be():
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text("utf-8").splitlines()) for file in our_files()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
