"""The few pieces of HTML that the page is made of. Whatever comes in as `str` text leaves escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .words import MISSING, as_number, percent

_LARGE = 250_000  # bytes of PNG above which the page carries a JPEG instead
_LARGEST = 400_000  # bytes of that JPEG


def esc(text: Any) -> str:
    """Any text, safe in an element or in a quoted attribute."""
    return html.escape(str(text), quote=True)


def section(anchor: str, title: str, *parts: str) -> str:
    """A titled section; empty when none of its parts says anything."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{esc(anchor)}">\n<h2>{esc(title)}</h2>\n{body}\n</section>' if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{esc(kind)}">{esc(text)}</p>' if kind else f"<p>{esc(text)}</p>"


def bullets(items: Iterable[str]) -> str:
    """A list of plain sentences."""
    rows = "".join(f"<li>{esc(item)}</li>" for item in items)
    return f"<ul>{rows}</ul>" if rows else ""


def code(text: str) -> str:
    """A block of code, as typed."""
    return f"<pre><code>{esc(text)}</code></pre>"


def cell(value: Any, numeric: bool = False) -> str:
    """A table cell of plain text."""
    return f'<td class="n">{esc(value)}</td>' if numeric else f"<td>{esc(value)}</td>"


def bar_cell(fraction: Any, spread: Any = None, digits: int = 1) -> str:
    """A percentage with a small bar below it, and its standard deviation over seeds where there is one."""
    width = as_number(fraction)
    if not 0 <= width <= 1:
        return f'<td class="n">{percent(fraction, sign=False)}</td>'
    text = percent(fraction, digits, sign=False)
    deviation = percent(spread, sign=False)
    if deviation != MISSING:
        text += f"<small> ± {deviation}</small>"
    return f'<td class="n bar">{text}<span><i style="width:{100 * width:.1f}%"></i></span></td>'


def table(caption: str, headers: Sequence[str], rows: Iterable[str], numeric: Sequence[str] = ()) -> str:
    """A table with a caption; each row is the HTML of its cells, the first of them a row header.

    Args:
        caption: what the table shows.
        headers: one per column.
        rows: the cells of each row.
        numeric: the headers that stand to the right, above cells made with `cell(..., numeric=True)`.

    Returns:
        The table, in a frame that scrolls sideways on a narrow screen.
    """
    kinds = [' class="n"' if header in numeric else "" for header in headers]
    heads = "".join(f'<th scope="col"{kind}>{esc(header)}</th>' for kind, header in zip(kinds, headers, strict=True))
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table>\n<caption>{esc(caption)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def row_header(name: Any) -> str:
    """The first cell of a row."""
    return f'<th scope="row">{esc(name)}</th>'


def facts(caption: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A table of names and values."""
    rows = [row_header(name) + cell(value) for name, value in pairs]
    return table(caption, ("setting", "value"), rows) if rows else ""


def key_numbers(numbers: Iterable[tuple[str, str, str]]) -> str:
    """The figures of the first screen: value, what it is, a remark."""
    cards = "\n".join(
        f"<div><dt>{esc(label)}</dt><dd>{esc(value)}<small>{esc(remark)}</small></dd></div>"
        for value, label, remark in numbers
    )
    return f'<dl class="numbers">\n{cards}\n</dl>'


def picture(path: Path, alt: str, caption: str = "") -> str:
    """A PNG of twice the screen density, embedded, on a white card."""
    from PIL import Image  # comes with matplotlib

    data, kind = path.read_bytes(), "png"
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.width // 2, image.height // 2
        if len(data) > _LARGE:
            data, kind = _jpeg(image), "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    words = f"\n<figcaption>{esc(caption)}</figcaption>" if caption else ""
    return f'<figure>\n<img src="{source}" width="{width}" height="{height}" alt="{esc(alt)}">{words}\n</figure>'


def _jpeg(image: Any) -> bytes:
    """The picture as JPEG, coarser until it fits: large photographs must not make a heavy page."""
    picture = image.convert("RGB")
    for quality, shrink in ((85, 1), (70, 1), (70, 2), (50, 2)):
        buffer = io.BytesIO()
        picture.reduce(shrink).save(buffer, format="JPEG", quality=quality, subsampling=0)
        if buffer.tell() <= _LARGEST:
            break
    return buffer.getvalue()
