"""The list of architectures for the docs: what each is, where it was published, and what it costs.

python benchmarks/model_list.py docs/models.md    # a minute or two; nothing is measured, no weight is allocated
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from architecture_task import SMALL
from measure import BenchmarkError, markdown_table, update_page

from cnnlab.models import list_models, model_info, summarize

HEADER = ("network", "images", "parameters", "multiply-adds", "what it is", "source")


def main(arguments: list[str] | None = None) -> None:
    """Write the list, and a summary as an example, between their markers in the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path, help="a page of the docs")
    page = parser.parse_args(arguments).page
    try:
        update_page(page, "model_list", model_list(), code=False)
        update_page(page, "summary", str(summarize("lenet", batch=32)))
    except BenchmarkError as error:
        sys.exit(f"model_list.py: {error}")


def model_list() -> str:
    """Return the table: networks for large images with 1000 classes, as their papers count, others with 10."""
    rows = []
    for name in list_models():
        info = model_info(name)
        costs = summarize(name, num_classes=1000 if info.input_size >= SMALL else 10)
        size = f"{info.input_size} x {info.input_size}"
        rows.append([f"`{name}`", size, f"{costs.parameters:,}", f"{costs.multiply_adds:,}", info.summary, info.paper])
    return markdown_table(HEADER, rows, left=(0, 4, 5))


if __name__ == "__main__":
    main()
