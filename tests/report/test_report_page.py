"""What report.html says, and that it says it safely and by itself."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from cnnlab.report import Example, write_report
from cnnlab.report.html import picture


@pytest.fixture(scope="module")
def finished(make_run, tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "lenet")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    write_report(folder, filters=rng.normal(size=(5, 5, 3, 6)), mistakes=[Example(image, "cat", "<b>dog", 0.93)])
    return folder


@pytest.fixture(scope="module")
def page(finished, read_page):
    return read_page(finished / "report.html")


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_the_headline_says_the_outcome_in_words(page):
    assert "lenet reached 77.2 % on the 400 test images of cifar10 after 7 epochs; best at epoch 4." in page.text


def test_the_numbers_are_those_of_the_json_files(finished, page):
    result = read(finished, "result.json")
    evaluation = result["evaluation"]
    for text in (
        f"test accuracy {100 * evaluation['accuracy']:.2f} %",
        f"macro F1 {100 * evaluation['f1']:.1f} %",
        "parameters 264,806",
        "training time 12 min 14 s and 14.2 s to compile",
        "images per second 5,432 median epoch",
        "Why it stopped: converged",
    ):
        assert text in page.text
    for row in evaluation["per_class"]:
        scores = " ".join(f"{100 * row[key]:.1f}" for key in ("precision", "recall", "f1"))
        assert f"{row['name']} {scores} {row['support']}" in page.text


def test_the_most_confused_pairs_are_said_in_words_most_frequent_first(page):
    said = (
        "dog was taken for cat 30 times in 100 (30.0 %).",
        "cat was taken for dog 25 times in 100 (25.0 %).",
        "ship & sail was taken for <script>alert(1)</script> 12 times in 100 (12.0 %).",
    )
    places = [page.text.index(sentence) for sentence in said]
    assert places == sorted(places)


def test_every_setting_and_version_is_listed(page):
    for text in ("options.hidden [400, 120]", "batch_size 32", "shuffle false", "seed 0", "jax 0.10.1"):
        assert text in page.text


def test_the_command_line_is_given_to_reproduce(page):
    assert "How to reproduce cnnlab train --out 'a <b>'" in page.text
    assert "Made with Python 3.11.7, JAX 0.10.1. Data fingerprint: sha256:abc." in page.text


def test_names_from_outside_never_become_markup(page):
    assert page.all("script") == []
    assert page.all("b") == []
    assert "<script>alert(1)</script>" in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.source


def test_the_page_loads_nothing_from_anywhere(page):
    for link in page.links:
        assert link.startswith(("data:image/", "#"))
    assert not re.search(r"url\(|@import|https?://", page.source)


def test_the_page_is_accessible(page):
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    images = page.all("img")
    assert len(images) == 5
    assert all(len(image["alt"]) > 20 for image in images)
    assert {attributes["scope"] for attributes in page.all("th")} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table"))
    assert {link for link in page.links if link.startswith("#")} == {f"#{s['id']}" for s in page.all("section")}


def test_the_page_adapts_to_dark_screens_and_to_paper_and_stays_small(finished, page):
    assert "prefers-color-scheme: dark" in page.source
    assert "@media print" in page.source
    assert (finished / "report.html").stat().st_size < 2_000_000


def test_the_embedded_pictures_are_the_files_in_figures(finished, page):
    names = ("learning_curves", "per_class", "confusion_matrix", "filters", "mistakes")
    for name, attributes in zip(names, page.all("img"), strict=True):
        data = (finished / "figures" / f"{name}.png").read_bytes()
        assert base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,")) == data
        with Image.open(io.BytesIO(data)) as image:
            assert (int(attributes["width"]), int(attributes["height"])) == (
                image.width // 2,
                image.height // 2,
            )


@pytest.mark.parametrize(("side", "shrink"), [(400, 1), (1600, 2)])
def test_a_large_picture_is_embedded_as_a_smaller_jpeg_at_the_same_place(tmp_path, side, shrink):
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(noise).save(path)
    form = rf'src="data:image/jpeg;base64,([^"]*)" width="{side // 2}" height="{side // 2}"'
    found = re.search(form, picture(path, "noise"))
    assert found
    data = base64.b64decode(found[1])
    assert len(data) < min(path.stat().st_size, 400_000)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (side // shrink, side // shrink)


def test_the_csv_files_read_back_equal_the_evaluation(finished):
    evaluation = read(finished, "result.json")["evaluation"]
    with (finished / "confusion_matrix.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == evaluation["classes"] == [row[0] for row in rows]
    assert [[int(cell) for cell in row[1:]] for row in rows] == evaluation["confusion_matrix"]
    with (finished / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, evaluation["per_class"], strict=True):
        assert row["class"] == expected["name"]
        assert {key: float(row[key]) for key in row if key != "class"} == {
            key: expected[key] for key in expected if key != "name"
        }


def test_a_run_steered_by_the_test_set_says_that_its_figure_is_optimistic(page):
    assert "The test set steered the learning rate and chose the best epoch" in page.text
    assert "this figure is optimistic" in page.text
    assert "read once" not in page.text


def test_a_held_out_run_says_that_the_test_set_was_read_once(make_run, read_page, tmp_path):
    page = read_page(write_report(make_run(tmp_path / "run", protocol="held-out")))
    assert "The test set was read once, at the end: 5,000 held-out training images steered" in page.text
    assert "best validation accuracy 52.50 %" in page.text
    assert "optimistic" not in page.text


def test_an_unfinished_run_says_so_and_how_to_resume(make_run, read_page, tmp_path):
    folder = make_run(tmp_path / "my run", epochs=6, finished=False)
    page = read_page(write_report(folder))
    assert "lenet has reached 52.5 % on the test images of cifar10 so far" in page.text
    assert "Still running, or interrupted after epoch 6 of 100." in page.text
    assert f"Resume with: cnnlab resume '{folder}'" in page.text
    assert "torn" not in page.text
    assert not (folder / "per_class.csv").exists()
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["learning_curves.png"]


def test_a_run_without_an_epoch_yet_has_a_report_too(make_run, read_page, tmp_path):
    folder = make_run(tmp_path / "run", epochs=0, finished=False)
    (folder / "metrics.jsonl").unlink()
    (folder / "environment.json").unlink()
    page = read_page(write_report(folder))
    assert "lenet on cifar10: no epoch has finished yet." in page.text
    assert page.all("img") == []


def test_the_same_folder_gives_the_same_page(make_run, tmp_path):
    folder = make_run(tmp_path / "run", finished=False)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert sorted(path.name for path in folder.iterdir() if "report" in path.name) == ["report.html"]
