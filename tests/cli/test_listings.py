"""`models`, `datasets` and `recipes`."""

import pytest

from cnnlab.cli import main
from cnnlab.models import list_models
from cnnlab.training import Recipe, get_recipe, list_recipes


def test_models_lists_every_name(capsys):
    assert main(["models"]) == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.split()[:3] == ["model", "family", "images"]
    assert [row.split()[0] for row in rows] == list_models()


def test_a_single_model_tells_its_options(capsys):
    assert main(["models", "lenet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "hidden          (400, 120, 256, 84)" in lines


def test_a_pattern_without_a_match_is_refused(capsys):
    assert main(["models", "zebra*"]) == 2
    assert capsys.readouterr().err.startswith("cnnlab: Expected the name of a registered model, got 'zebra*'")


def test_datasets_tells_where_each_is(capsys):
    assert main(["datasets"]) == 0
    text = capsys.readouterr().out
    assert "digits " in text and "comes with scikit-learn" in text
    (cifar10,) = [line for line in text.splitlines() if line.startswith("cifar10 ")]
    assert "not prepared" in cifar10


def test_recipes_lists_every_name(capsys):
    assert main(["recipes"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == [recipe.name for recipe in list_recipes()]


@pytest.mark.parametrize("name", [recipe.name for recipe in list_recipes()])
def test_a_printed_recipe_can_be_read_back(name, capsys, tmp_path):
    assert main(["recipes", name]) == 0
    text = capsys.readouterr().out
    (tmp_path / "my.toml").write_text(text, encoding="utf-8")
    assert Recipe.read(tmp_path / "my.toml") == get_recipe(name)
    assert "\n# passes over the training images, at most.\nepochs = " in text
    assert text.count("\n\n# ") == len(Recipe().to_dict())  # each field has its meaning


def test_an_edited_recipe_is_printed_with_its_changes(capsys, tmp_path):
    (tmp_path / "my.toml").write_text("epochs = 7\n")
    assert main(["recipes", "my.toml"]) == 0
    assert "\nepochs = 7\n" in capsys.readouterr().out
