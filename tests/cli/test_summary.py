"""`summary`, and what `models` tells of a single model."""

import pytest

from cnnlab.cli import main
from cnnlab.models import summarize


def test_summary_prints_the_table_and_where_the_network_comes_from(capsys):
    assert main(["summary", "lenet"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{summarize('lenet')}\n")
    assert "Careddu" in text


def test_summary_takes_sizes_and_options(capsys):
    chosen = ["--image-size", "28", "--batch", "4", "--model-set", "hidden=20,30", "--model-set", "in_channels=1"]
    assert main(["summary", "lenet", *chosen]) == 0
    expected = summarize("lenet", image_size=28, batch=4, hidden=[20, 30], in_channels=1)
    assert capsys.readouterr().out.startswith(f"{expected}\n")


@pytest.mark.parametrize("flags", [[], ["--image-size", "28"]])
def test_summary_takes_the_size_of_images_as_an_option_of_the_model_too(flags, capsys):
    assert main(["summary", "lenet", "--model-set", "image_size=28", "--model-set", "in_channels=1", *flags]) == 0
    expected = summarize("lenet", image_size=28, in_channels=1)
    assert capsys.readouterr().out.startswith(f"{expected}\n")


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (["lennet"], "Expected the name of a registered model, got 'lennet'; did you mean lenet"),
        (["lenet", "--model-set", "depth=3"], "Expected an option of lenet, got 'depth'"),
        (["lenet", "--image-size", "7"], "Expected images of at least 16 pixels for lenet, got 7"),
        (
            ["lenet", "--image-size", "28", "--model-set", "image_size=32"],
            "Expected one size of images, got --image-size",
        ),
        (["lenet", "--batch", "0"], "Expected images of at least 1 pixel and a batch of at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(typed, text, capsys):
    assert main(["summary", *typed]) == 2
    assert capsys.readouterr().err.startswith(f"cnnlab: {text}")


def test_a_single_model_tells_its_costs(capsys):
    assert main(["models", "lenet"]) == 0
    assert "264,806 parameters, 853,864 multiply-adds per image" in capsys.readouterr().out
