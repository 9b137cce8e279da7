import pytest

from cnnlab.report import ReportError
from cnnlab.report.marked import replace_marked


def test_what_stands_between_the_markers_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a table: begin (by me) -->\nold\n<!-- a table: end -->\nafter\n<!-- b: end -->\n")
    for text in ("first", "| é |"):
        replace_marked(page, "a table", text)
    expected = "before\n<!-- a table: begin (by me) -->\n\n| é |\n\n<!-- a table: end -->\nafter\n<!-- b: end -->\n"
    assert page.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    ("content", "counts"),
    [
        ("no markers", "0 and 0"),
        ("<!-- t: begin -->", "1 and 0"),
        ("<!-- t: end -->\n<!-- t: begin -->", "1 and 1"),
        ("<!-- t: begin -->\n<!-- t: end -->\n" * 2, "2 and 2"),
        ("<!-- other: begin -->\n<!-- other: end -->", "0 and 0"),
    ],
)
def test_a_page_without_the_markers_is_named_and_left_as_it_is(tmp_path, content, counts):
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(ReportError, match=f"Expected the markers of t in {page}, each once, got {counts}, or out of"):
        replace_marked(page, "t", "text")
    assert page.read_text() == content
