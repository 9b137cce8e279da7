"""What `--set` and `--model-set` mean."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_FLIPS = {"none": "none", "random": "random", "alternating": "alternating"} | {
    word: "random" if on else "none" for word, on in _WORDS.items()
}


def recipe_changes(settings: Sequence[str]) -> dict[str, Any]:
    """Read `epochs=3`, `flip=yes`, `freeze=conv1,bn1`, `learning_rates=head:10` ... by the fields of `Recipe`.

    An unknown field or an impossible value is left for `Recipe.replace` to refuse.

    Raises:
        ValueError: no `KEY=VALUE`.
        cnnlab.training.RecipeError: a value that is not of the field's type.
    """
    from cnnlab.training import Recipe, RecipeError

    kinds = get_type_hints(Recipe)
    changes = {}
    for name, text in _pairs(settings, "--set epochs=3"):
        key = name.replace("-", "_")
        read, words = _READERS.get(key) or _READERS.get(kinds.get(key)) or (str, "")
        try:
            changes[key] = read(text)
        except (ValueError, KeyError):
            raise RecipeError(f"Expected {words} for {key}, got {text!r}; do change --set {name}={text}.") from None
    return changes


def model_options(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Read `hidden=120,256,84`, `softmax_output=true`, `filters=[6, 16]` ...: JSON or numbers with commas, else text.

    Raises:
        ValueError: unknown model or option, no `KEY=VALUE`, or a value of another kind than the option's default.
    """
    from cnnlab.models import model_info

    info = model_info(name)
    defaults = info.options
    options = {}
    for key, text in _pairs(settings, "--model-set hidden=120,256,84"):
        key = key.replace("-", "_")
        if key not in defaults and not info.takes_any_option:
            near = difflib.get_close_matches(key, defaults, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(defaults)}."
            raise ValueError(f"Expected an option of {name}, got {key!r}; {hint}")
        value, default = _value(text), defaults.get(key)
        if isinstance(default, list | tuple) and not isinstance(value, list | str):
            value = [value]  # one number for a list of numbers
        if default is not None and not _fits(value, default):
            shown = ",".join(map(str, default)) if isinstance(default, list | tuple) else default
            raise ValueError(f"Expected {key} to be such as {shown}, got {text!r}; do change --model-set {key}={text}.")
        options[key] = value
    return options


def _pairs(settings: Sequence[str], example: str) -> list[tuple[str, str]]:
    pairs = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"Expected KEY=VALUE, got {setting!r}; do write {example}.")
        pairs.append((key.strip(), text.strip()))
    return pairs


def _number(text: str) -> int | float:
    return float(text) if set(text) & set(".e") else int(text)


def _patterns(text: str) -> list[str]:
    return [pattern.strip() for pattern in text.split(",") if pattern.strip()]


def _factors(text: str) -> dict[str, float] | list[tuple[str, float]]:
    pairs = [(pattern.strip(), float(factor)) for pattern, _, factor in (p.rpartition(":") for p in _patterns(text))]
    factors = dict(pairs)
    return factors if len(factors) == len(pairs) else pairs  # a pattern given twice is left for `Recipe` to refuse


# By the name of a field, or by its type: how to read a value, and how to say what was expected.
_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    "held_out": (_number, "a number of images or a share"),
    "flip": (lambda text: _FLIPS[text.lower()], "none, random or alternating"),
    "freeze": (_patterns, "patterns"),
    "milestones": (lambda text: [float(epoch) for epoch in _patterns(text)], "epochs, such as 80,120,"),
    "weight_decays": (_factors, "PATTERN:FACTOR, such as head:0,"),
    "learning_rates": (_factors, "PATTERN:FACTOR, such as head:10,"),
    bool: (lambda text: _WORDS[text.lower()], "yes or no"),
    int: (int, "a whole number"),
    float: (float, "a number"),
}


def _value(text: str) -> Any:
    for candidate in (text, f"[{text}]"):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return text


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, (int, float) if isinstance(default, float) else int) and not isinstance(value, bool)
    if isinstance(default, list | tuple):
        return isinstance(value, list) and bool(value) and all(_fits(item, default[0]) for item in value if default)
    return isinstance(value, type(default))
