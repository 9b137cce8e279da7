"""The commands that tell what there is: models, datasets, recipes."""

from __future__ import annotations

import inspect
import re
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from .output import print_table

if TYPE_CHECKING:
    from cnnlab.training import Recipe


def models(pattern: Annotated[Positional[str], arg(metavar="PATTERN")] = "*") -> int:
    """List the models, or those that match a pattern such as 'res*'; of a single one, its options too.

    Args:
        pattern: a name or a shell pattern.
    """
    from cnnlab.models import list_models, model_info

    infos = [model_info(name) for name in list_models(pattern) or [pattern]]  # an unknown name is refused
    rows = [(i.name, i.family, f"{i.input_size}x{i.input_size}", i.summary) for i in infos]
    print_table(("model", "family", "images", "what it is"), rows)
    if len(infos) == 1 and pattern != "*":
        (info,) = infos
        costs = f"{info.parameters:,} parameters, {info.multiply_adds:,} multiply-adds per image"
        print(f"\n{costs}\n{info.paper}".rstrip())
        print("\nOptions, for --model-set (the data decide num_classes, in_channels and image_size):")
        print_table(("option", "default"), [(name, str(value)) for name, value in info.options.items()])
    return 0


def datasets() -> int:
    """List the data sets, and where each of them is on this machine."""
    print_datasets()
    return 0


def print_datasets() -> None:
    """The table of data sets."""
    from cnnlab.data import list_datasets

    rows = [(d.name, d.description, d.location, d.how) for d in list_datasets()]
    print_table(("data set", "what it is", "where it is", "how to get it"), rows)


def recipes(name: Annotated[Positional[str | None], arg(metavar="NAME")] = None) -> int:
    """List the recipes; or print one as TOML, ready to be saved, edited and trained with --recipe my.toml.

    Args:
        name: a recipe, or a .toml or .json file.
    """
    from cnnlab.training import get_recipe, list_recipes

    if name is None:
        rows = [(r.name, str(r.epochs), r.source, r.result) for r in list_recipes()]
        print_table(("recipe", "epochs", "source", "result"), rows)
    else:
        print(recipe_toml(get_recipe(name)), end="")
    return 0


def recipe_toml(recipe: Recipe) -> str:
    """The recipe as TOML, each field under what it means."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        recipe.write(path)
        lines = path.read_text(encoding="utf-8").splitlines()
    meanings = _meanings(type(recipe))
    text = ["# Save this as my.toml, change it, and: cnnlab train --recipe my.toml"]
    for line in lines:
        meaning = meanings.get(line.partition(" = ")[0], "")
        text += ["", *textwrap.wrap(meaning, 100, initial_indent="# ", subsequent_indent="# "), line]
    return "\n".join(text) + "\n"


def _meanings(kind: type) -> dict[str, str]:
    """What the docstring says of each attribute."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
