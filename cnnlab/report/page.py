"""Lays a story and its figures out as one HTML page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import html
from .confusion import confused_pairs
from .story import Story
from .stylesheet import STYLESHEET
from .words import MISSING, confusions, count, curves_alt, percent

_LONG = 20  # items of a list in the settings
# Nothing is fetched, nothing is run: the browser is told so too.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render_page(story: Story, figures: Mapping[str, Path]) -> str:
    """The page.

    Args:
        story: what to say.
        figures: PNG files by name; a figure that is not there is left out.

    Returns:
        A complete HTML document with the pictures in it.
    """
    sections = {
        "seeds": ("Every seed", _seeds(story)),
        "classes": ("Class by class", _classes(story, figures)),
        "confusions": ("What is taken for what", _confusions(story, figures)),
        "filters": ("First-layer filters", _filters(figures)),
        "mistakes": ("Mistakes", _mistakes(figures)),
        "settings": ("Recipe and environment", _settings(story)),
        "reproduce": ("How to reproduce", _reproduce(story)),
    }
    shown = {anchor: (title, body) for anchor, (title, body) in sections.items() if body}
    links = " ".join(f'<a href="#{anchor}">{html.esc(title)}</a>' for anchor, (title, _) in shown.items())
    body = "\n".join(html.section(anchor, title, body) for anchor, (title, body) in shown.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.esc(story.headline)}</title>
<style>
{STYLESHEET}
</style>
</head>
<body>
<main>
<header>
{_opening(story)}
{_curves(story, figures)}
<nav aria-label="Sections">{links}</nav>
</header>
{body}
<footer>Written by cnnlab from the recipe, environment, metrics and result of this folder. The same pictures
lie in figures/; once a run has finished, its tables lie in per_class.csv and confusion_matrix.csv.</footer>
</main>
</body>
</html>
"""


def _opening(story: Story) -> str:
    parts = [html.paragraph(story.kicker, "kicker"), f"<h1>{html.esc(story.headline)}</h1>"]
    parts += [html.paragraph(notice[0].upper() + notice[1:], "note") for notice in story.notices]
    if story.commands:
        parts += [html.paragraph("Resume with:"), html.code("\n".join(story.commands))]
    if story.honest:
        parts.append(html.paragraph(story.honest, "note" if story.optimistic else "note good"))
    parts.append(html.key_numbers(story.numbers))
    if story.stop_reason:
        parts.append(html.paragraph(f"Why it stopped: {story.stop_reason}", "aside"))
    return "\n".join(parts)


def _curves(story: Story, figures: Mapping[str, Path]) -> str:
    if "learning_curves" not in figures:
        return ""
    watched = f"Grey: the training images, while trained on; blue: the {story.monitor} images after each epoch."
    if len(story.histories) > 1:
        alt = f"Learning curves of {len(story.histories)} seeds, loss and accuracy, with their means."
        caption = (
            f"{watched} Thin: one line per seed; thick: the mean, for as long as every seed runs. "
            "The dots are best epochs."
        )
    else:
        alt = curves_alt(story.histories[0], story.monitor)
        cut = any(line.get("event") == "cut" for line in story.histories[0])
        lines = " Dotted lines: the learning rate is cut; above them the new rate." if cut else ""
        caption = f"{watched}{lines} The dot is the best epoch."
    return html.picture(figures["learning_curves"], alt, caption)


def _seeds(story: Story) -> str:
    if not story.rows:
        return ""
    rows = []
    for row in story.rows:
        seed = html.esc(row.get("seed", MISSING))
        report = story.folder / f"seed-{row.get('seed')}" / "report.html"
        name = f'<a href="seed-{seed}/report.html">{seed}</a>' if report.exists() else seed
        rows.append(
            f'<th scope="row">{name}</th>'
            + html.bar_cell(row.get("accuracy"), digits=2)
            + html.cell(percent(row.get("best_accuracy"), 2, sign=False), numeric=True)
            + html.cell(count(row.get("best_epoch")), numeric=True)
            + html.cell(count(row.get("epochs")), numeric=True)
            + html.cell(row.get("stop_reason") or MISSING)
        )
    headers = (
        "seed",
        "test accuracy, %",
        f"best {story.monitor} accuracy, %",
        "best epoch",
        "epochs",
        "stopped because",
    )
    return html.table("All seeds, none left out.", headers, rows, numeric=headers[2:5])


def _classes(story: Story, figures: Mapping[str, Path]) -> str:
    evaluation = story.evaluation or {}
    per_class = evaluation.get("per_class")
    if not per_class:
        return ""
    favourites = _favourite_mistakes(evaluation)
    rows = [
        html.row_header(row.get("name"))
        + "".join(html.bar_cell(row.get(key), row.get(f"{key}_std")) for key in ("precision", "recall", "f1"))
        + html.cell(count(row.get("support")), numeric=True)
        + html.cell(favourites.get(index, MISSING))
        for index, row in enumerate(per_class)
    ]
    caption = "Precision: how many of the images called so are so. Recall: how many of the class were found."
    if story.rows:
        caption += " Mean ± standard deviation over the finished seeds."
    headers = ("class", "precision, %", "recall, %", "F1, %", "images", "most often taken for")
    table = html.table(caption, headers, rows, numeric=headers[4:5])
    if "per_class" not in figures:
        return table
    return table + "\n" + html.picture(figures["per_class"], "Bars of precision, recall and F1, as in the table above.")


def _favourite_mistakes(evaluation: Mapping[str, Any]) -> dict[int, str]:
    """For each class, by index, what it is most often taken for, and how often."""
    matrix, classes = evaluation.get("confusion_matrix"), evaluation.get("classes")
    if not matrix or not classes:
        return {}
    favourites = {}
    for index, row in enumerate(matrix):
        others = [0 if column == index else value for column, value in enumerate(row)]
        if max(others) > 0:
            favourites[index] = f"{classes[others.index(max(others))]} ({percent(max(others) / sum(row))})"
    return favourites


def _confusions(story: Story, figures: Mapping[str, Path]) -> str:
    evaluation = story.evaluation or {}
    matrix = evaluation.get("confusion_matrix")
    if not matrix or "confusion_matrix" not in figures:
        return ""
    sentences = confusions(confused_pairs(matrix, [str(name) for name in evaluation["classes"]]))
    counted = "Counts of all finished seeds together. " if story.rows else ""
    alt = "Confusion matrix. " + " ".join(sentences)
    caption = f"{counted}Rows: the true class; columns: the prediction. The counts are in confusion_matrix.csv."
    said = html.bullets(sentences) if sentences else html.paragraph("Not one image was taken for another class.")
    return said + "\n" + html.picture(figures["confusion_matrix"], alt, caption)


def _filters(figures: Mapping[str, Path]) -> str:
    if "filters" not in figures:
        return ""
    caption = "Weights of the first convolution, each filter scaled to its own largest weight."
    return html.picture(figures["filters"], "Tiles of first-layer filter weights.", caption)


def _mistakes(figures: Mapping[str, Path]) -> str:
    if "mistakes" not in figures:
        return ""
    caption = "True class → prediction, and how sure the network was of it."
    return html.picture(figures["mistakes"], "Gallery of misclassified images.", caption)


def _settings(story: Story) -> str:
    """recipe.json and environment.json, value by value."""
    tables = [html.facts(name.capitalize(), _flat(value)) for name, value in story.recipe.items() if _is_table(value)]
    rest = {name: value for name, value in story.recipe.items() if not _is_table(value)}
    tables += [html.facts("Run", _flat(rest)), html.facts("Environment", _flat(story.environment))]
    return f'<div class="facts">{"".join(f"<div>{table}</div>" for table in tables if table)}</div>'


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """{"a": {"b": 1}} as [("a.b", "1")]: settings in the form in which they are typed."""
    pairs = []
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if _is_table(inner) and inner:
            pairs += _flat(inner, f"{name}.")
        else:
            pairs.append((name, _typed(inner)))
    return pairs


def _typed(value: Any) -> str:
    """A string as it is, another value as JSON; of a long list, such as 1,000 class names, the beginning."""
    if isinstance(value, str):
        return value or MISSING
    if isinstance(value, list) and len(value) > _LONG:
        return f"{json.dumps(value[:_LONG], ensure_ascii=False)} and {count(len(value) - _LONG)} more"
    return json.dumps(value, ensure_ascii=False)


def _reproduce(story: Story) -> str:
    command = story.environment.get("command")
    if isinstance(command, list):
        command = shlex.join(map(str, command))
    parts = [html.code(str(command))] if command else []
    said = "recipe.json holds every setting" + ("" if command else "; the command was not recorded") + "."
    known = {
        "cnnlab": "cnnlab",
        "git_revision": "revision",
        "python": "Python",
        "jax": "JAX",
        "flax": "Flax",
        "device_kind": "device",
    }
    values = ((name, story.environment.get(key)) for key, name in known.items())
    with_ = ", ".join(f"{name} {value}" for name, value in values if value)
    sentences = [f"{said[0].upper()}{said[1:]}", f"Made with {with_}." if with_ else ""]
    fingerprint = story.recipe["dataset"].get("fingerprint")
    sentences.append(f"Data fingerprint: {fingerprint}." if fingerprint else "")
    return "\n".join([*parts, html.paragraph(" ".join(filter(None, sentences)))])
