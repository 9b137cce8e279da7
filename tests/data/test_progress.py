"""Bars are for people at a terminal: nothing is drawn when they are not wanted, or when nobody is there."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlab.data import load_dataset
from cnnlab.data.progress import progress_bar


@pytest.fixture(autouse=True)
def terminal_that_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def images(tmp_path: Path) -> str:
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    return f"folder:{tmp_path / 'images'}"


def test_a_terminal_sees_what_is_decoded(images: str) -> None:
    with contextlib.redirect_stderr(Terminal()) as stream:
        load_dataset(images)
    assert "decoding images_train" in stream.getvalue()


def test_without_progress_a_terminal_sees_nothing(images: str) -> None:
    with contextlib.redirect_stderr(Terminal()) as stream:
        load_dataset(images, progress=False)
    assert stream.getvalue() == ""


def test_what_is_no_terminal_gets_not_even_a_blank_line(images: str, capfd) -> None:
    load_dataset(images)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("unit", "full"), [("images", "2/2"), ("bytes", "2/2 bytes")])
def test_a_bar_counts_to_its_total(unit: str, full: str) -> None:
    with contextlib.redirect_stderr(Terminal()) as stream, progress_bar("working", 2, unit=unit) as advance:
        advance(1)
        advance(1)
    assert "working" in stream.getvalue() and full in stream.getvalue()
