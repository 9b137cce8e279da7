"""Writes what a script found into a page, between two markers; the prose around it stays as it is."""

from __future__ import annotations

from pathlib import Path

from .errors import ReportError


def replace_marked(page: Path, name: str, text: str) -> None:
    """Put text between the markers `<!-- NAME: begin ... -->` and `<!-- NAME: end -->` of a page, in place of the old.

    Args:
        page: a Markdown file.
        name: of the markers; the first may say more behind `begin`, such as who writes there.
        text: what to put there, a blank line from either marker.

    Raises:
        ReportError: the page lacks the markers, or has them twice; nothing is written.
    """
    content = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin", f"<!-- {name}: end -->"
    before, _, rest = content.partition(begin)
    comment, closed, rest = rest.partition("-->")
    _, ended, after = rest.partition(end)
    counts = content.count(begin), content.count(end)
    if counts != (1, 1) or not (closed and ended):
        raise ReportError(
            f"Expected the markers of {name} in {page}, each once, got {counts[0]} and {counts[1]}, or out of order; "
            f"do put '{begin} -->' and below it '{end}' there."
        )
    page.write_text(f"{before}{begin}{comment}-->\n\n{text}\n\n{end}{after}", encoding="utf-8")
